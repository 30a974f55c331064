"""A night whose end is notified, whatever its end: its work, a stop, or an error that it dies of."""

from __future__ import annotations

from collections.abc import Callable

from flows.config.archive import ArchiveConfig
from flows.errors import IncompleteError, StoppedError
from flows.nightly.clock import clock
from flows.nightly.failures import reason_of
from flows.nightly.night import NightSummary
from flows.nightly.notification import Notification, of_death, of_night, of_refusal, send, wanted
from tiling.archives.archive import Archive
from tiling.archives.history import NightHistory
from tiling.errors import TilingError


def notified(config: ArchiveConfig, work: Callable[[], NightSummary]) -> NightSummary:
    """Hold a night, and send its line wherever it was asked for."""
    to, since = wanted(config.notify), clock.get()().timestamp()
    try:
        night = work()
    except BaseException as error:
        send(_of_end(config, error, since), to)
        raise
    send(of_night(night), to)
    return night


def _of_end(config: ArchiveConfig, error: BaseException, since: float) -> Notification:
    outcome = error.outcome if isinstance(error, IncompleteError | StoppedError) else None
    if isinstance(outcome, NightSummary):
        return of_night(outcome)
    # Only signals raise what is no Exception; Ctrl-C is one.
    by = "Ctrl-C" if isinstance(error, KeyboardInterrupt) else "a signal"
    reason = reason_of(error) if isinstance(error, Exception) else f"stopped at once by {by}"
    if isinstance(error, StoppedError):  # in what comes before the first tile; what follows is said of any night
        reason = reason.partition(";")[0]
    end = of_death if _has_begun(config, since) else of_refusal
    return end(config.out, reason, clock.get()().timestamp())


def _has_begun(config: ArchiveConfig, since: float) -> bool:
    """True if the archive's ledger records a night since then: one that has begun is resumed by the next."""
    try:
        nights = NightHistory.of(Archive.open(config.out).ledger.events).nights
    except (TilingError, OSError):  # a refused night leaves no archive behind
        return False
    return bool(nights) and nights[-1].began >= since
