"""The command line is killed or stopped while it writes the pyramid and the pictures, or before it has begun."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import pytest
from cli import OVERTILE, Cli, mask_files
from small_bundles import noise, whole_labels
from tiny import save_tiny, write_noise

from flows.config.run import SegmentConfig
from flows.run.prepare import prepare
from flows.run.steps import export, stitch
from flows.worker.tuning import tune
from tiling.runs.ledger import TileRecord, TileState
from tiling.runs.run import Run
from unet_core.bundles.bundle import load_bundle

SIDE, CORE = 1536, 64
STOPPED = "error: stopped by SIGTERM; the same command resumes"


@dataclass(frozen=True, slots=True)
class Job:
    """A command whose tiles are all done, and what its end must be."""

    image: Path
    model: Path
    inferred: Path
    finished: dict[str, bytes]
    picture: bytes

    def command(self, folder: Path) -> list[str]:
        options = ("--out", folder, "--model", self.model, "--core", CORE, "--foreground", "none", "--workers", 1)
        return [str(OVERTILE), "segment", str(self.image), *map(str, options)]


def opened(image: Path, model: Path, folder: Path) -> Run:
    config = SegmentConfig(image=image, out=folder, model=str(model), core=CORE, foreground="none")
    return prepare(config, 1, partial(tune, device="cpu"))


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("job")
    image, model = write_noise(folder / "noise.tif", SIDE, SIDE), save_tiny(folder / "tiny")
    run = opened(image, model, folder / "inferred")
    labels, mask = whole_labels(load_bundle(str(model)), noise(SIDE, SIDE)), run.open_mask()
    for tile in run.plan.tiles():
        digest = mask.write(tile, labels[tile.valid.slices])
        run.ledger.append(TileRecord(tile.index, TileState.DONE, 1, digest))
    run.ledger.flush()
    shutil.copytree(folder / "inferred", folder / "finished")
    end(Run.open(folder / "finished"))
    finished = folder / "finished"
    return Job(image, model, folder / "inferred", mask_files(finished), (finished / "overlay.png").read_bytes())


def end(run: Run) -> None:
    stitch(run)
    export(run)


def pyramid_is_begun(run: Path, *_: int) -> bool:
    return any((run / "mask.ome.zarr" / "1").glob("c/*/*"))


def pyramid_is_done(run: Path, segments: int, *_: int) -> bool:
    return len(list((run / "ledger").glob("*.jsonl"))) > segments


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "sent"),
    [
        ("pyramid", signal.SIGTERM),
        pytest.param("export", signal.SIGKILL, marks=pytest.mark.soak),
        pytest.param("pyramid", signal.SIGKILL, marks=pytest.mark.soak),
        pytest.param("export", signal.SIGTERM, marks=pytest.mark.soak),
    ],
)
def test_killed_in_the_last_stages_it_ends_identical(
    cli: Cli, job: Job, tmp_path: Path, stage: str, sent: signal.Signals
) -> None:
    folder = Path(shutil.copytree(job.inferred, tmp_path / "run"))
    segments = len(list((folder / "ledger").glob("*.jsonl")))
    reached = partial(pyramid_is_begun, folder) if stage == "pyramid" else partial(pyramid_is_done, folder, segments)
    code, output = stop_when(reached, cli, job.command(folder), sent)
    assert pyramid_is_done(folder, segments) == (stage == "export")
    assert stage == "export" or not (folder / "overlay.png").exists()
    assert (code, output) == ((143, STOPPED) if sent == signal.SIGTERM else (-signal.SIGKILL, ""))
    end(opened(job.image, job.model, folder))
    assert mask_files(folder) == job.finished
    assert (folder / "overlay.png").read_bytes() == job.picture
    assert not list(folder.rglob("*.partial"))


@pytest.mark.soak
def test_stopped_before_it_has_begun_it_says_so(cli: Cli, job: Job, tmp_path: Path) -> None:
    command = job.command(tmp_path / "run")
    assert stop_when(has_children, cli, command, signal.SIGTERM) == (143, STOPPED)


def has_children(driver: int) -> bool:
    """Whether Ray is being started."""
    return bool(psutil.Process(driver).children())


def stop_when(reached: Callable[[int], bool], cli: Cli, command: list[str], sent: signal.Signals) -> tuple[int, str]:
    """The exit code of a command that gets a signal as soon as something is reached, and what it says of it."""
    quiet, pipe = subprocess.DEVNULL, subprocess.PIPE
    driver = subprocess.Popen(command, env=cli.environment, stdout=quiet, stderr=pipe, text=True)
    deadline = time.monotonic() + 250
    while not reached(driver.pid):
        if driver.poll() is not None or time.monotonic() > deadline:
            driver.kill()
            pytest.fail(f"never reached; exit {driver.poll()}: {driver.communicate()[1]}")
        time.sleep(0.002)
    driver.send_signal(sent)
    try:
        _, output = driver.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        driver.kill()
        raise
    return driver.returncode, output.strip()
