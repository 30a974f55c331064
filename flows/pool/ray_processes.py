"""The processes of an embedded Ray: watched, and ended in time where one is lost.

Ray itself lets a driver wait for ever where the raylet is gone, and aborts it after a minute, with a word to its log
alone, where the control store is.
"""

from __future__ import annotations

import atexit
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._private import ray_constants, worker  # registers Ray's own end, which is then the last but one

from flows.errors import ClusterLostError
from flows.lifecycle.bounded_exit import end_at_once
from flows.pool.ray_sessions import remove_session

CHECK_SECONDS = 0.5
ENDING_SECONDS = 20.0
"""For what is under way to end in order, such as a ledger's last segment; a call through Ray may wait for ever."""
NODE = "_global_node"  # nothing public says which processes were started
NEEDED = (ray_constants.PROCESS_TYPE_RAYLET, ray_constants.PROCESS_TYPE_GCS_SERVER)
"""Without these nobody works; they end where one of the others is missed, as the raylet does without its agents."""


STANDING_SECONDS = 30.0
STANDING_LOOKS = int(STANDING_SECONDS / CHECK_SECONDS)
"""After so many looks at a process that was stopped and isn't continued, it counts as lost: no call through it ends.
Looks, not seconds: where a batch system stops all of a command, this process stands still too."""

logger = logging.getLogger(__name__)

_lost: list[str] = []


@atexit.register
def _exit_before_ray() -> None:
    """Skip Ray's own end, of which a process without a raylet dies with a core dump; all else has ended by now."""
    if _lost:
        end_at_once()


def _log(message: dict[str, Any], ignore_prefix: bool) -> None:
    del ignore_prefix
    logger.info("Ray says: %s", " ".join(" ".join(message["lines"]).split()))


class EmbeddedRay:
    """Looked at as processes, with no call through Ray. Watches from the moment that it is made."""

    def __init__(self) -> None:
        self._node: Any = vars(worker)[NODE]
        self._processes: dict[str, subprocess.Popen[bytes]] = {
            name: self._node.all_processes[name][0].process for name in NEEDED
        }
        self._standing: dict[str, int] = dict.fromkeys(NEEDED, 0)
        self.is_lost = False
        # Ray's hook asks the control store before it lets an error be shown: a lost one for ever.
        sys.excepthook = vars(worker)["normal_excepthook"]
        worker.print_to_stdstream = _log  # Ray prints what it thinks of a death, with a log's last twenty lines
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="ray", daemon=True).start()

    def answers(self) -> bool:
        """True.

        Raises:
            ClusterLostError: one of its processes has ended.
        """
        message = self._fault()
        if message is not None:
            self.is_lost = True
            _lost.append(message)
            raise ClusterLostError(message)
        return True

    def wait(self) -> None:
        """As for a head that may come back: this one doesn't."""
        self.answers()

    def end(self) -> None:
        """End them all, and remove their folder; where one is lost it stays, for its logs may say why."""
        self._ended.set()
        if not self.is_lost and not all(_runs(process) for process in self._processes.values()):
            self.is_lost = True  # before the looks were counted, or with the work done: the exit status says which
            _lost.append("ended or stands still")
        if self.is_lost:  # Ray's own shutdown would ask it
            self._node.kill_all_processes(check_alive=False, allow_graceful=False)
            return
        session = Path(self._node.get_session_dir_path())
        ray.shutdown(wait_for_processes=True)
        remove_session(session)

    def _fault(self) -> str | None:
        for name, process in self._processes.items():
            code = process.poll()
            if code is not None:
                return _sentence(name, f"was killed by signal {-code}" if code < 0 else f"ended with code {code}")
            if self._standing[name] >= STANDING_LOOKS:
                return _sentence(
                    name, f"was stopped by a signal {STANDING_LOOKS * CHECK_SECONDS:g} s ago and stands still"
                )
        return None

    def _look_for_standing(self) -> None:
        for name, process in self._processes.items():
            self._standing[name] = self._standing[name] + 1 if _stands(process.pid) else 0

    def _watch(self) -> None:
        """End the process where what noticed the loss, or has yet to, waits for Ray in vain."""
        while not self._ended.wait(CHECK_SECONDS):
            self._look_for_standing()
            if (message := self._fault()) is None:
                continue
            if not self._ended.wait(ENDING_SECONDS):
                _exit_with(message)


@contextmanager
def watched_start() -> Generator[None]:
    """Watch a start of Ray: of a process that it loses in the midst it says nothing, and waits a minute for it."""
    before, started = {child.pid for child in psutil.Process().children()}, threading.Event()

    def watch() -> None:
        while not started.wait(CHECK_SECONDS):
            if (name := _ended_child(before)) is not None and not started.wait(ENDING_SECONDS):
                _exit_with(_sentence(name, "ended while it was starting"))

    threading.Thread(target=watch, name="ray-start", daemon=True).start()
    try:
        yield
    finally:
        started.set()


def _ended_child(before: set[int]) -> str | None:
    """The name of a needed process that has ended: nobody waits for it yet, so the system still lists it."""
    for child in psutil.Process().children():
        try:
            if child.pid not in before and child.name() in NEEDED and child.status() == psutil.STATUS_ZOMBIE:
                return child.name()
        except psutil.Error:
            continue
    return None


def _exit_with(message: str) -> None:
    """End this process at once: its other threads wait for Ray in vain."""
    sys.stderr.write(f"error: {message}\n")
    sys.stderr.flush()
    os._exit(1)


def _runs(process: subprocess.Popen[bytes]) -> bool:
    """True of a process that can answer."""
    return process.poll() is None and not _stands(process.pid)


def _stands(process: int) -> bool:
    """True if a process was stopped (SIGSTOP, a debugger) and not continued."""
    try:
        return psutil.Process(process).status() in {psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP}
    except psutil.Error:
        return False


def _sentence(name: str, how: str) -> str:
    return (
        f"Ray's {name}, which this command has started, {how}: no worker can be given work; the same command resumes "
        f"with the tiles that are missing"
    )
