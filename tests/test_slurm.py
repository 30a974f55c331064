"""The Slurm recipe against stand-ins for Slurm's commands, with real Ray nodes and a real segmentation."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from cli import clean_environment, free_port
from manifests import DEPLOY
from tiny import save_tiny, write_noise

from tiling.ledger import TileState
from tiling.run import Run

SCRIPT = DEPLOY / "slurm" / "overtile.sbatch"
STAND_INS = Path(__file__).parent / "slurm"
DEADLINE_SECONDS = 200


@pytest.fixture
def slurm(tmp_path: Path, prefect_url: str) -> dict[str, str]:
    """The environment of a user of a cluster of two nodes."""
    state = tmp_path / "slurm"
    state.mkdir()
    # A short folder: a socket's path has at most 107 characters, and pytest's folders are longer.
    temporary = Path("/tmp") / f"ot-{os.getpid()}"
    more = {
        "PATH": f"{STAND_INS}:{os.environ['PATH']}",
        "FAKE_SLURM": str(state),
        "FAKE_LIMIT_FILE": str(tmp_path / "limit"),
        "OVERTILE_BIN": str(Path(sys.executable).parent),
        "OVERTILE_COMMAND": "segment",
        "OVERTILE_LOG": "json",
        "OVERTILE_RAY_PORT": str(free_port()),
        "OVERTILE_RAY_TEMP": str(temporary),
    }
    return clean_environment(tmp_path / "prefect", PREFECT_API_URL=prefect_url, **more)


def test_a_job_that_meets_its_time_limit_is_queued_again_and_goes_on(tmp_path: Path, slurm: dict[str, str]) -> None:
    image, run = write_noise(tmp_path / "image.tif", 1536, 1536), tmp_path / "run"
    model = save_tiny(tmp_path / "tiny")
    arguments = [str(image), "--model", str(model), "--core", "64", "--foreground", "none", "--out", str(run)]
    log = (tmp_path / "log").open("w")
    job = subprocess.Popen(["sbatch", str(SCRIPT), *arguments], env=slurm, cwd=tmp_path, stdout=log, stderr=log)
    try:
        wait_until(job, lambda: run.exists() and done(run) >= 8, tmp_path / "log")
        (tmp_path / "limit").touch()
        assert job.wait(DEADLINE_SECONDS) == 0, (tmp_path / "log").read_text()[-3000:]
    finally:
        job.kill()
        log.close()
    text = (tmp_path / "log").read_text()
    # Stopped calmly the first time, complete the second.
    assert (tmp_path / "slurm" / "ended").read_text().split("\n")[:2] == ["0 143", "1 0"], text[-3000:]
    assert "queued again" in text
    state = Run.open(run).ledger.fold()
    assert state.count(TileState.DONE) == 24 * 24
    drivers = [event.facts for event in state.events if event.name == "inferred"]
    assert len(drivers) == 2
    assert computed(run) == list(range(24 * 24)), "the second driver computes nothing again"
    told = [line for line in logged(text) if line["message"] == "inference ended"]
    assert [line["run"] for line in told] == [str(run)] * 2
    assert [line["slide"] for line in told] == [str(image)] * 2
    assert sum(line["tiles"] for line in told) == 24 * 24
    # Both nodes were there each time, and nothing of Ray is left behind.
    steps = (tmp_path / "slurm" / "steps").read_text().splitlines()
    assert [("--head" in step) for step in steps] == [True, False, True, False]
    assert all(int(nodes) == 2 for nodes in re.findall(r"(\d+) nodes", text))
    assert left_behind(slurm["OVERTILE_RAY_TEMP"]) == []


def test_a_job_without_arguments_says_what_it_needs(slurm: dict[str, str], tmp_path: Path) -> None:
    ended = subprocess.run(
        ["sbatch", str(SCRIPT)], env=slurm, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30
    )
    assert ended.returncode == 2
    assert "nothing to segment" in ended.stderr


def done(run: Path) -> int:
    return Run.open(run).ledger.fold().count(TileState.DONE) if (run / "run.json").is_file() else 0


def computed(run: Path) -> list[int]:
    """Every tile that the ledger calls done, as often as it does."""
    lines = [json.loads(line) for path in (run / "ledger").glob("*.jsonl") for line in path.read_text().splitlines()]
    return sorted(line["tile"] for line in lines if line.get("state") == "done")


def logged(text: str) -> list[dict[str, Any]]:
    """The lines of a job's log that are JSON."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def wait_until(job: subprocess.Popen[Any], happened: Any, log: Path) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not happened():
        assert job.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)


def left_behind(temporary: str) -> list[str]:
    """Processes of Ray that this test's cluster has left running."""
    lines = (" ".join(each.info["cmdline"] or []) for each in psutil.process_iter(["cmdline"]))
    return [line for line in lines if temporary in line]
