"""Runs one measurement in a process of its own and takes its figures: its last line of output is JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.memory import Sampler

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_SECONDS = 3600

Figures = dict[str, Any]


class MeasurementError(Exception):
    """A measurement that gave no figures: what it said last."""


def _path_of(python: str) -> str:
    """Folders that a Python imports from: of this one its own too, where libraries may lie that a part measures."""
    inherited = os.environ.get("PYTHONPATH", "") if python == sys.executable else ""
    return os.pathsep.join([str(ROOT), *filter(None, [inherited])])


def run(command: list[str], *, sample_seconds: float = 0.5, threads: int | None = None) -> Figures:
    """Run a command in the project's folder and return the figures of its last line, with its peak memory.

    Raises:
        MeasurementError: it ended with an error, or its last line is no JSON.
    """
    environment = {**os.environ, "PYTHONPATH": _path_of(command[0])}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "DO_NOT_TRACK": "1", "PREFECT_LOGGING_LEVEL": "ERROR"}
    environment |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    environment |= {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180"}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complained:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=complained)
        sampler = Sampler(process.pid, sample_seconds)
        try:
            code = process.wait(TIMEOUT_SECONDS)
        finally:
            process.kill()
            peaks = sampler.stop()
        said.seek(0)
        complained.seek(0)
        lines, complaint = said.read().splitlines(), complained.read()[-2000:]
    if code != 0 or not lines:
        raise MeasurementError(f"{' '.join(command)} ended with {code}: {complaint}")
    try:
        figures: Figures = json.loads(lines[-1])
    except ValueError as error:
        raise MeasurementError(f"{' '.join(command)} said {lines[-1]!r}, which is no JSON: {complaint}") from error
    figures["memory"] = {"tree_pss": peaks.tree_pss, "largest": peaks.largest, "by_kind": peaks.by_kind}
    return figures
