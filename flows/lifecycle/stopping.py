"""Graceful shutdown: on a drained node, a preempted machine, Ctrl-C, or a terminal that is closed."""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from flows.errors import StoppedError
from flows.lifecycle.lost_signals import sent_again

GRACE_SECONDS = 20.0
"""For the tiles in flight: less than the 30 s that Kubernetes and Slurm give by default."""


@dataclass(slots=True)
class StopRequest:
    """A request to stop, and until when tiles in flight may still end; also made when the time is up.

    `ends_at`, on the monotonic clock, is when no further tile is begun anyway; those in flight then end in peace.
    """

    by: signal.Signals | None = None
    deadline: float = 0.0
    ends_at: float = float("inf")

    @property
    def is_requested(self) -> bool:
        return self.by is not None or time.monotonic() >= self.ends_at

    @property
    def name(self) -> str:
        """Name of what asked for it."""
        if self.by is None:
            return ""
        return CANCEL if _is_cancel(self.by) else self.by.name

    @property
    def is_over(self) -> bool:
        """True if the grace has passed too."""
        return self.by is not None and time.monotonic() > self.deadline

    def request(self, by: signal.Signals, grace_seconds: float = GRACE_SECONDS) -> None:
        self.by, self.deadline = by, time.monotonic() + grace_seconds


CANCEL = "a cancel in Prefect"

_cancelled = threading.Event()
"""Set once this process stops because its flow run was cancelled in Prefect, of which SIGTERM is the messenger."""


def forget_cancel() -> None:
    """Begin anew: a cancel is of the flow run that this process has at the time."""
    _cancelled.clear()


def stop_as_cancelled() -> None:
    """Stop what this process does as SIGTERM would, and let what is said of it name the cancel."""
    _cancelled.set()
    os.kill(os.getpid(), signal.SIGTERM)


def is_cancelled() -> bool:
    """True once this process stops for a cancel in Prefect."""
    return _cancelled.is_set()


def _is_cancel(sent: signal.Signals) -> bool:
    return sent is signal.SIGTERM and is_cancelled()


def stopped_as_cancelled() -> StoppedError:
    """The error of work that was cancelled before anything of it had begun."""
    _cancelled.set()
    return stopped_by(signal.SIGTERM)


def stopped_by(sent: signal.Signals, outcome: object = None) -> StoppedError:
    """The error of work that was stopped; `outcome`, where it is known, is what was done."""
    how = "cancelled in Prefect" if _is_cancel(sent) else f"stopped by {sent.name}"
    return StoppedError(f"{how}; the same command resumes", sent, outcome)


_ACTION_BYTES = 512
"""More than any system's `struct sigaction` has, which is kept as it is."""
_HELD_SECONDS = 0.005
"""Ray takes seconds to start on a busy machine, and puts its handler in place at some moment of them."""

FROM_TERMINAL = (signal.SIGINT, signal.SIGHUP)
"""What a terminal sends to all processes of a command at once, of which the first alone is to handle it."""


class _Terminated(BaseException):
    """Raised wherever the main thread is; an ordinary error might be swallowed there, by an import's fallback say."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def sigterm_as_error() -> Generator[None]:
    """While inside, SIGTERM and SIGHUP raise an error instead of ending the process without a word.

    Prefect catches SIGTERM while a flow runs, reports the run as crashed, and then hands the signal on to this.

    Raises:
        StoppedError: on SIGTERM or SIGHUP.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stopped(number: int, frame: FrameType | None) -> None:
        _leave_lost_terminal()
        raise _Terminated(number)

    previous = {number: signal.signal(number, stopped) for number in _heard(signal.SIGTERM)}
    try:
        with sent_again(_Terminated):
            yield
    except _Terminated as terminated:
        raise stopped_by(signal.Signals(terminated.number)) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _heard(*always: signal.Signals) -> tuple[signal.Signals, ...]:
    """Those, and SIGHUP unless it is ignored: under nohup a command works on when its terminal is closed."""
    return always if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else (*always, signal.SIGHUP)


def _leave_lost_terminal() -> None:
    """Say the rest to nobody where the terminal is closed: a word to it would be an error in the middle of an end."""
    for descriptor in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
                nobody = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nobody, descriptor)
                os.close(nobody)


@contextmanager
def unheard_by_children() -> Generator[None]:
    """Keep what a terminal sends to all from what starts inside, from this thread: it ends with this process."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FROM_TERMINAL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def keep_sigterm() -> Generator[None]:
    """While Ray starts or ends in this thread: the handler of SIGTERM from before is restored, at once and afterwards.

    Ray puts a handler of its own in Python's place, and absl's failure signal handler before it: that one prints a
    stack trace and aborts the process three seconds later, whatever is still being ended in order. Python sets handlers
    in its main thread alone, which may have other things to load meanwhile; so it is the system's that is put back.
    """
    libc, action = ctypes.CDLL(None), ctypes.create_string_buffer(_ACTION_BYTES)
    handler, started = signal.getsignal(signal.SIGTERM), threading.Event()
    libc.sigaction(signal.SIGTERM, None, action)

    def hold() -> None:
        while not started.wait(_HELD_SECONDS):
            libc.sigaction(signal.SIGTERM, action, None)

    if callable(handler):
        threading.Thread(target=hold, name="sigterm", daemon=True).start()
    try:
        yield
    finally:
        started.set()
        libc.sigaction(signal.SIGTERM, action, None)
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def stop_on_signals(ends_at: float = float("inf"), *, only: signal.Signals | None = None) -> Generator[StopRequest]:
    """While inside, the first SIGTERM, SIGINT or SIGHUP asks for a graceful end, as `ends_at` does.

    A second SIGINT ends at once. `only` one of them, where the others are the caller's own affair.

    Python delivers signals to the main thread only: elsewhere nothing is caught, and whoever runs the flow
    there decides.
    """
    stop = StopRequest(ends_at=ends_at)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def asked(number: int, frame: FrameType | None) -> None:
        del frame
        _leave_lost_terminal()
        if stop.by is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.request(signal.Signals(number))

    heard = _heard(signal.SIGTERM, signal.SIGINT) if only is None else (only,)
    previous = {number: signal.signal(number, asked) for number in heard}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
