"""How a flow ends that did not do all: Prefect is told so, and whoever called it gets what was done."""

from __future__ import annotations

import os
import signal
from typing import Protocol, TypeVar

from prefect.exceptions import TerminationSignal

from flows.errors import IncompleteError, StoppedError


class Ending(Protocol):
    """What a flow gives back."""

    @property
    def complete(self) -> bool: ...


Any_ = TypeVar("Any_", bound=Ending)


def finished(outcome: Any_, told: str) -> Any_:
    """The outcome, where all is done.

    Raises:
        IncompleteError: some failed; in Prefect the flow has failed, and a retry of it goes on by the ledger.
    """
    if not outcome.complete:
        raise IncompleteError(told, outcome)
    return outcome


def stopped(by: signal.Signals) -> BaseException:
    """What to raise when somebody asked to stop and all is in order.

    Under Prefect's runner it is what its own handler of the signal would have raised: from it the flow run becomes
    cancelled where that was asked for, and crashed where its machine was taken away.
    """
    if "PREFECT__FLOW_RUN_ID" in os.environ:
        return TerminationSignal(signal=by)
    return StoppedError.by(by)
