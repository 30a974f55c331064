"""A night whose end is notified, whatever its end: its work, a stop, or an error that it dies of."""

from __future__ import annotations

from collections.abc import Callable

from flows.config.archive import ArchiveConfig
from flows.errors import IncompleteError, StoppedError
from flows.nightly.clock import clock
from flows.nightly.failures import reason_of
from flows.nightly.night import NightSummary
from flows.nightly.notification import Notification, of_death, of_night, send, wanted


def notified(config: ArchiveConfig, work: Callable[[], NightSummary]) -> NightSummary:
    """Hold a night, and send its line wherever it was asked for."""
    to = wanted(config.notify)
    try:
        night = work()
    except BaseException as error:
        send(_of_end(config, error), to)
        raise
    send(of_night(night), to)
    return night


def _of_end(config: ArchiveConfig, error: BaseException) -> Notification:
    outcome = error.outcome if isinstance(error, IncompleteError | StoppedError) else None
    if isinstance(outcome, NightSummary):
        return of_night(outcome)
    reason = "stopped at once by Ctrl-C" if isinstance(error, KeyboardInterrupt) else reason_of(error)
    return of_death(config.out, reason, clock.get()().timestamp())
