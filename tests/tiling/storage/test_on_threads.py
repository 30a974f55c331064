"""Work on threads that a signal's error meets while one of them is being started: the process ends all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tiling.storage.on_threads import on_threads

SUPPORT = Path(__file__).parents[2] / "support"

STOPPED = """
import sys, threading
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from cli import write_tissue
from finished import finished_run
from tiling.runs.counts import count_labels
from tiling.source import open_source
from tiling.sources.downsample import block_mean

class Terminated(BaseException):
    '''As SIGTERM is raised: the thread runs, and whoever has started it doesn't know yet.'''

folder = Path(sys.argv[2])
source = open_source(write_tissue(folder / "tissue.tif", 1024, 1024))
run = finished_run(folder / "tissue.tif", folder / "run")
work = {
    "pyramid": lambda: run.open_mask().build_pyramid(),
    "counts": lambda: count_labels(run.open_mask()),
    "coarse view": lambda: block_mean(source, 0, 4),
}[sys.argv[3]]
work()  # what is loaded, or started once for all, is
real, main = threading.Thread.start, threading.current_thread()

def start(thread):
    real(thread)
    if threading.current_thread() is main:
        threading.Thread.start = real
        raise Terminated

threading.Thread.start = start
try:
    work()
except Terminated:
    print("stopped")
"""


@pytest.mark.parametrize("work", ["pyramid", "counts", "coarse view"])
def test_a_signal_in_the_start_of_a_thread_leaves_none_behind(tmp_path: Path, work: str) -> None:
    command = [sys.executable, "-c", STOPPED, str(SUPPORT), str(tmp_path), work]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert (ended.returncode, ended.stdout) == (0, "stopped\n"), ended.stderr


def test_results_come_in_order_and_the_first_error_is_raised() -> None:
    assert on_threads(lambda number: number * number, range(50), 4) == [number * number for number in range(50)]
    with pytest.raises(ZeroDivisionError):
        on_threads(lambda number: 1 // number, range(50), 4)
