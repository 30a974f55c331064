"""Reruns of tiles from the viewer's page: the command line itself, in a process of its own.

The viewer stays small, and what ends a rerun can't end the viewer. The ledger has the outcome of each tile.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from typing import IO, Any

from flows.errors import FlowError
from flows.reporting.escaping import plain
from tiling.storage.place import Place

STOP_SECONDS = 30.0
TAIL_BYTES = 4096
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_COMMAND = (sys.executable, "-c", "from flows.entry import main; main()", "rerun")


class BusyError(FlowError):
    """A rerun of this run is running."""


@dataclass(frozen=True, slots=True)
class RerunRequest:
    """Tiles to rerun: by place, or with `kinds` every failed or damaged one."""

    tiles: tuple[tuple[int, int], ...] = ()
    kinds: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        """Of `overtile rerun`, after the run; empty where nothing is wanted."""
        return [*(f"--{kind}" for kind in self.kinds), *(f"--tile={row},{col}" for row, col in self.tiles)]

    def __str__(self) -> str:
        names = [f"tile {row},{col}" for row, col in self.tiles]
        return ", ".join([*names, *([f"every {' and '.join(self.kinds)} tile"] if self.kinds else [])])


@dataclass(slots=True)
class RerunJob:
    """One rerun, running or ended."""

    request: RerunRequest
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None

    def is_running(self) -> bool:
        if self.process.poll() is None:
            return True
        if self.ended is None:
            self.ended = time.monotonic()
        return False

    def facts(self) -> dict[str, Any]:
        """Facts that the page shows of it."""
        is_running = self.is_running()
        return {
            "what": str(self.request),
            "tiles": self.request.tiles,
            "is_running": is_running,
            "code": self.process.returncode,
            "seconds": round((self.ended or time.monotonic()) - self.started, 1),
            "message": "" if is_running else self._message(),
        }

    def _message(self) -> str:
        """The line that says why it ended: the command line's error, or its last word."""
        size = os.fstat(self.output.fileno()).st_size
        tail = os.pread(self.output.fileno(), TAIL_BYTES, max(0, size - TAIL_BYTES)).decode(errors="replace")
        lines = [plain(_COLORS.sub("", line)).strip() for line in tail.splitlines()]
        errors = [line for line in lines if line.startswith("error: ")]
        return next(iter(errors or [line for line in reversed(lines) if line]), "")


class Reruns:
    """All reruns since the viewer began; at most one at a time for each run. Safe to use from several threads."""

    def __init__(self) -> None:
        self._jobs: dict[Place, RerunJob] = {}
        self._lock = threading.Lock()

    def start(self, run: Place, request: RerunRequest) -> RerunJob:
        """Begin to compute tiles again.

        Raises:
            BusyError: a rerun of this run is running.
        """
        with self._lock:
            known = self._jobs.get(run)
            if known is not None and known.is_running():
                raise BusyError(f"{known.request} is being computed again; wait for it to end")
            if known is not None:
                known.output.close()
            output = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the job)
            environment = {**os.environ, "COLUMNS": "1000", "NO_COLOR": "1", "TERM": "dumb"}
            process = subprocess.Popen(
                [*_COMMAND, str(run), *request.arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
            self._jobs[run] = RerunJob(request, process, output)
            return self._jobs[run]

    def of(self, run: Place) -> RerunJob | None:
        """The run's last rerun."""
        return self._jobs.get(run)

    def stop(self) -> None:
        """Ask what still runs to stop as it does on SIGTERM: tiles in flight are finished first."""
        running = [job for job in self._jobs.values() if job.is_running()]
        for job in running:
            job.process.send_signal(signal.SIGTERM)
        for job in running:
            try:
                job.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                job.process.kill()
