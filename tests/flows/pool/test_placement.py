"""Placement of actors on a cluster of unlike nodes: real raylets, each with the resources that it declares."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli import clean_environment
from tiny import save_tiny, write_noise

from flows.config.run import SegmentConfig
from flows.run.prepare import prepare
from flows.worker.tuning import Tuning
from tiling.runs.run import Run

PROGRAM = Path(__file__).parents[2] / "support" / "unlike_nodes.py"


def planned(folder: Path) -> Run:
    image, model = write_noise(folder / "noise.tif", 256, 256), save_tiny(folder / "tiny")
    config = SegmentConfig(image=image, out=folder / "run", model=str(model), core=64, foreground="none")
    run = prepare(config, 2, lambda _: Tuning("float32", 64, {}))
    run.create_staged()
    return run


@pytest.mark.parametrize("when", ["early", pytest.param("late", marks=pytest.mark.slow)])
def test_cpu_nodes_stage_and_gpu_nodes_infer(when: str, tmp_path: Path) -> None:
    run = planned(tmp_path)
    paths = f"{PROGRAM.parent}:{PROGRAM.parents[2]}"
    ended = subprocess.run(
        [sys.executable, str(PROGRAM), str(run.path), when],
        env=clean_environment(tmp_path / "home", PYTHONPATH=paths),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    facts = json.loads(ended.stdout.splitlines()[-1])
    nodes = facts["nodes"]
    assert facts["size"] == 2, "one actor per GPU"
    assert facts["stagers"] == [nodes["staging"]]
    assert facts["told"] == [f"cuda {nodes['gpu']}"] * run.plan.count
