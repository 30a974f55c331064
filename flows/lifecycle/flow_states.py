"""Final states of flows: one that did not finish everything fails in Prefect, and its caller gets what was done."""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Protocol, TypeVar, cast
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal
from prefect.states import Cancelled, Failed

from flows.errors import ERRORS, IncompleteError, StoppedError
from flows.lifecycle.cancellation import own_cancellation
from flows.lifecycle.stopping import is_cancelled, stopped_by
from flows.reporting.escaping import plain
from flows.reporting.prefect_events import install, recorded, settle
from flows.reporting.prefect_names import leave_out_tracebacks

install()  # before any flow runs, each of which comes through here
leave_out_tracebacks()


class FlowResult(Protocol):
    """Result of a flow."""

    @property
    def complete(self) -> bool: ...


ResultT = TypeVar("ResultT", bound=FlowResult)
ConfigT = TypeVar("ConfigT")
OutcomeT = TypeVar("OutcomeT")


def finished(outcome: ResultT, message: str) -> ResultT:
    """The outcome, where all is done.

    Raises:
        IncompleteError: some failed; in Prefect the flow has failed, and a retry of it resumes by the ledger.
    """
    if not outcome.complete:
        raise IncompleteError(message, outcome)
    return outcome


def stoppable(work: Callable[[ConfigT], OutcomeT]) -> Callable[[ConfigT], OutcomeT]:
    """A flow's function that ends truly when it was asked to stop, and whose failure is one sentence in Prefect.

    Under Prefect's runner the flow run is `Cancelled` where that was asked for. Prefect would know it from its own
    handler of SIGTERM, but that raises wherever the flow is, and leaves no tile in flight its end. Where a machine
    was taken away, the flow run is `Crashed`, from which Prefect's automations and retries start. An expected error
    ends it as `Failed` with the error's message alone. A command's own flow run is looked at meanwhile, and is
    `Cancelled` too where somebody cancels it.

    Raises:
        StoppedError: to whoever called the flow himself; of a cancel the command raises it.
        TerminationSignal: to Prefect's runner, where nobody asked for a cancellation.
        FlowError: and the other expected errors, to whoever called the flow himself.
    """

    @wraps(work)
    def until_stopped(config: ConfigT) -> OutcomeT:
        try:
            with _heeded():
                return work(config)
        except TerminationSignal:
            if not is_cancelled():
                raise
            return cast("OutcomeT", _cancelled(stopped_by(signal.SIGTERM)))
        except StoppedError as error:
            if is_cancelled():
                return cast("OutcomeT", _cancelled(error))
            if "PREFECT__FLOW_RUN_ID" not in os.environ:
                raise
            if is_being_cancelled(UUID(os.environ["PREFECT__FLOW_RUN_ID"])):
                return cast("OutcomeT", _cancelled(error))
            raise TerminationSignal(signal=error.signal_number) from error
        except ERRORS as error:
            if not _nobody_catches():
                raise
            return cast("OutcomeT", Failed(message=plain(str(error))))
        finally:
            settle()

    # Prefect would look names of types up where this function is, not where the flow's is.
    until_stopped.__dict__["__signature__"] = inspect.signature(work, eval_str=True)
    return until_stopped


def _heeded() -> AbstractContextManager[None]:
    """Watch of the flow run that this is called in, where it is a command's own."""
    own, context = own_cancellation(), FlowRunContext.get()
    if own is None or context is None or context.flow_run is None:
        return nullcontext()
    return own.heeded(context.flow_run.id)


def _cancelled(error: StoppedError) -> State:
    """The state to return: a state that a flow returns is the state that it ends in, and nobody else sees it."""
    own = own_cancellation()
    if own is not None:
        own.stopped = error
    return Cancelled(message=f"{error}; {error.outcome}" if error.outcome is not None else str(error))


def _nobody_catches() -> bool:
    """True in the flow run that Prefect's runner began, unless it is to be retried: an error brings that about."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow is None or context.flow.retries:
        return False
    return str(context.flow_run.id) == os.environ.get("PREFECT__FLOW_RUN_ID")


def is_being_cancelled(flow_run: UUID) -> bool:
    """True if a flow run is being cancelled in Prefect."""

    def read() -> State | None:
        with get_client(sync_client=True) as client:
            return client.read_flow_run(flow_run).state

    state = recorded(read, always=True)
    return state is not None and (state.is_cancelling() or state.is_cancelled())
