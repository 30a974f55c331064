"""The Slurm recipe against stand-ins for Slurm's commands, with real Ray nodes and a real segmentation."""

from __future__ import annotations

import json
import os
import re
import socket
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

from tiling.archives.archive import Archive
from tiling.archives.slide_record import SlideState

SCRIPT = DEPLOY / "slurm" / "overtile.sbatch"
STAND_INS = Path(__file__).parent / "slurm"
DEADLINE_SECONDS = 200
SLIDES, CORE = {"0.tif": 1024, "1.tif": 768, "2.tif": 512}, 64


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
        "OVERTILE_LOG": "json",
        "OVERTILE_RAY_PORT": str(free_port()),
        "OVERTILE_RAY_TEMP": str(temporary),
    }
    return clean_environment(tmp_path / "prefect", PREFECT_API_URL=prefect_url, **more)


@pytest.mark.slow
def test_a_job_that_meets_its_time_limit_is_queued_again_and_goes_on(tmp_path: Path, slurm: dict[str, str]) -> None:
    source, archive = tmp_path / "slides", tmp_path / "runs"
    source.mkdir()
    for name, side in SLIDES.items():
        write_noise(source / name, side, side, seed=side)
    model = save_tiny(tmp_path / "tiny")
    options = ["--model", str(model), "--core", str(CORE), "--foreground", "none", "--settle", "0s"]
    log = (tmp_path / "log").open("w")
    command = ["sbatch", str(SCRIPT), str(source), *options, "--out", str(archive)]
    job = subprocess.Popen(command, env=slurm, cwd=tmp_path, stdout=log, stderr=log)
    try:
        wait_until(job, lambda: len(computed(archive)) >= 8, tmp_path / "log")
        (tmp_path / "limit").touch()
        assert job.wait(DEADLINE_SECONDS) == 0, (tmp_path / "log").read_text()[-3000:]
    finally:
        job.kill()
        log.close()
    text = (tmp_path / "log").read_text()
    # Stopped calmly the first time, complete the second.
    assert (tmp_path / "slurm" / "ended").read_text().split("\n")[:2] == ["0 143", "1 0"], text[-3000:]
    assert "queued again" in text
    expected = [(name, tile) for name, side in SLIDES.items() for tile in range((side // CORE) ** 2)]
    assert computed(archive) == expected, "the second driver computes nothing again"
    ledger = Archive.open(archive).ledger
    assert {record.slide: record.state for record in ledger} == dict.fromkeys(SLIDES, SlideState.DONE)
    assert len([event for event in ledger.events if event["event"] == "night"]) == 2
    ended = {line["slide"]: line["run"] for line in logged(text) if line.get("state") == "done"}
    assert ended == {str(source / name): str(archive / "slides" / name) for name in SLIDES}
    # Both nodes were there each time, and nothing of Ray is left behind.
    steps = (tmp_path / "slurm" / "steps").read_text().splitlines()
    assert [("--head" in step) for step in steps] == [True, False, True, False]
    assert all(int(nodes) == 2 for nodes in re.findall(r"(\d+) nodes", text))
    assert left_behind(slurm["OVERTILE_RAY_TEMP"]) == []


@pytest.mark.parametrize(
    ("answers", "address"),
    [
        ("127.0.1.1\n10.1.2.3 172.17.0.1 fd00::2 \n", "10.1.2.3"),
        ("10.9.9.9\n10.1.2.3 10.9.9.9\n", "10.9.9.9"),
        ("::1 127.0.0.1\nfd00::2 10.1.2.3\n", "10.1.2.3"),
        ("127.0.0.1\n\n", "127.0.0.1"),
    ],
)
def test_nodes_meet_at_an_address_that_others_reach(tmp_path: Path, answers: str, address: str) -> None:
    """Debian's /etc/hosts gives a node's own name a loopback address."""
    scripts = {
        "srun": f"cat {tmp_path}/answers",
        "scontrol": "echo node1",
        "python": "echo token",
        "ray": "exit 1",
    }
    (tmp_path / "answers").write_text(answers)
    for name, line in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "node1", "SLURM_JOB_ID": "7", "OVERTILE_BIN": str(tmp_path)}
    ended = subprocess.run(
        ["bash", SCRIPT, "slides"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", **job},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert f"head node1 at {address}:20007, 1 nodes" in ended.stderr
    assert "Ray's head doesn't answer" in ended.stderr


def test_a_job_whose_head_ends_does_not_wait_for_its_time_limit(tmp_path: Path) -> None:
    scripts = {
        "srun": 'while [ "${1#-}" != "$1" ]; do shift; done; [ "$1" = bash ] && echo 127.0.0.1 && exit; exec "$@"',
        "scontrol": "echo node1",
        "squeue": "echo RUNNING",
        "python": "echo token",
        "ray": '[ "$1" = health-check ] && exit 0; sleep 2; exit 1',
        "overtile": "trap 'exit 143' TERM; sleep 50 & wait",
    }
    for name, line in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as head:
        port = str(head.getsockname()[1])
        job = {"SLURM_JOB_NODELIST": "node1", "SLURM_JOB_ID": "7", "OVERTILE_BIN": str(tmp_path)}
        ended = subprocess.run(
            ["bash", SCRIPT, "slides"],
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "OVERTILE_RAY_PORT": port, **job},
            stdout=subprocess.DEVNULL,
            stderr=(tmp_path / "log").open("w"),
            timeout=40,
            check=False,
        )
    said = (tmp_path / "log").read_text()
    assert ended.returncode == 1, said
    assert "Ray's head has ended" in said
    assert "the same sbatch resumes" in said
    assert "queued again\n" not in said


def test_a_job_without_arguments_says_what_it_needs(slurm: dict[str, str], tmp_path: Path) -> None:
    ended = subprocess.run(
        ["sbatch", str(SCRIPT)], env=slurm, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30
    )
    assert ended.returncode == 2
    assert "nothing to segment" in ended.stderr


def computed(archive: Path) -> list[tuple[str, int]]:
    """Every tile that a slide's ledger calls done, as often as it does."""
    files = sorted(archive.glob("slides/*/ledger/*.jsonl"))
    lines = [(path.parents[1].name, json.loads(line)) for path in files for line in path.read_text().splitlines()]
    return sorted((slide, line["tile"]) for slide, line in lines if line.get("state") == "done")


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
