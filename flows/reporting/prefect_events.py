"""Best-effort reports to Prefect while a run works: the ledger is the record, Prefect's pages show a copy of it.

A server that dies, hangs or forgets costs a run nothing but that picture. One line says so, and it is tried again now
and then. `install` has Prefect's own engine record the states of flows in this way too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from functools import cache
from typing import Any, TypeVar

import prefect.events.utilities as emitting
import prefect.events.worker as events
import prefect.flow_engine as engine
from prefect.client.schemas.objects import State
from prefect.events.clients import PrefectEventsClient
from prefect.events.schemas.events import Event
from prefect.states import Cancelled

from flows.errors import ERRORS, UnrecordedError

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 20.0
"""For an answer that somebody waits for."""
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 30.0, 480.0

Answer = TypeVar("Answer")


class _Link:
    """State of the link to the server: its last answer, and from when on it is worth asking again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_said = False
        self._pause = PAUSE_SECONDS
        self._again_at = -float("inf")

    @property
    def is_worth_a_try(self) -> bool:
        return time.monotonic() >= self._again_at

    def works(self) -> None:
        with self._lock:
            self._pause, self._again_at = PAUSE_SECONDS, -float("inf")

    def fails(self, why: str) -> None:
        with self._lock:
            is_said, self._is_said = self._is_said, True
            self._again_at = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        if not is_said:
            logger.warning(
                "Prefect's server can't be reached (%s): its pages may miss what this run does from now on; the run "
                "continues without it",
                why,
            )


_link = _Link()


def recorded(
    call: Callable[[], Answer], seconds: float | None = ANSWER_SECONDS, *, always: bool = False
) -> Answer | None:
    """Result of a call to Prefect's server; None where it fails, or has no answer by then.

    A call is left out while the server is known to be away, unless it is `always` worth a try.
    """
    if not (always or _link.is_worth_a_try):
        return None
    call_ = _Call(call)
    call_.begin()
    return call_.answer(seconds)


_awaited: list[_Call] = []


def recorded_by_the_end(call: Callable[[], Any]) -> None:
    """Begin a call to Prefect's server beside the flow's own work; `settle` waits for it."""
    if _link.is_worth_a_try:
        _awaited.append(_Call(call))
        _awaited[-1].begin()


def settle() -> None:
    """Wait for the answers to calls that were begun, as long as for one of them."""
    ends = time.monotonic() + ANSWER_SECONDS
    while _awaited:
        _awaited.pop().answer(max(0.0, ends - time.monotonic()))


class _Call:
    """A call in a thread of its own, which nobody waits for at the end of the process either."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call, self._answer = call, None
        self._failure: str | None = None
        self._thread = threading.Thread(target=copy_context().run, args=(self._make,), name="prefect", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    @property
    def is_under_way(self) -> bool:
        return self._thread.is_alive()

    def answer(self, seconds: float | None) -> Any:
        self._thread.join(seconds)
        if self._thread.is_alive():
            _link.fails(f"no answer within {seconds:g} s")
        return self._answer

    def _make(self) -> None:
        try:
            self._answer = self._call()
        except Exception as error:  # noqa: BLE001 (whatever keeps Prefect from recording must not end the work)
            _link.fails(_reason(error))
        else:
            _link.works()


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


class Artifact:
    """A progress artifact that never keeps the driver waiting: what comes while the last word is under way is dropped.

    Args:
        create: makes it and returns its id.
        update: is called with its id and what is to be shown.
    """

    def __init__(self, create: Callable[[], Any], update: Callable[..., Any]) -> None:
        self._create, self._update = create, update
        self._id: Any = None
        self._last: _Call | None = None
        self._send(self._ensure)

    def show(self, **shown: Any) -> None:
        """Send it, unless the last one is under way or the server is away."""
        self._send(lambda: self._update(self._ensure(), **shown))

    def end(self, **shown: Any) -> None:
        """Send the last word after the one before it; `settle` waits for its answer."""
        before = self._last

        def last() -> None:
            if before is not None:
                before.answer(ANSWER_SECONDS / 4)
            self._update(self._ensure(), **shown)

        recorded_by_the_end(last)

    def _ensure(self) -> Any:
        if self._id is None:
            self._id = self._create()
        return self._id

    def _send(self, call: Callable[[], Any]) -> None:
        if _link.is_worth_a_try and (self._last is None or not self._last.is_under_way):
            self._last = _Call(call)
            self._last.begin()


_propose = engine.propose_state_sync  # the only place where the engine of a flow records its states


def _propose_best_effort(client: Any, state: State[Any], *args: Any, **options: Any) -> State[Any]:
    """The state that the server accepts; the state itself, where it doesn't answer."""
    state.message = cause_first(state.message)
    refusals: list[BaseException] = []

    def proposed() -> State[Any] | None:
        try:
            return _propose(client, state, *args, **options)
        except Exception:
            raise
        except BaseException as refusal:  # noqa: BLE001 (Prefect's word that the run is to end or to pause)
            refusals.append(refusal)
            return None

    # At the begin the server may tell a run to wait for another, for as long as that takes.
    answer = recorded(proposed, ANSWER_SECONDS if state.is_final() else None, always=True)
    if refusals:
        raise refusals[0]
    if answer is not None and answer.is_cancelling() and not state.is_cancelling() and not _has_runner():
        # From there Prefect takes a run to no other state, and its page would wait for one for ever.
        cancelled = Cancelled(message=state.message or "cancelled when its work had ended")
        return _propose_best_effort(client, cancelled, *args, **options)
    return state if answer is None else answer


def cause_first(message: str | None) -> str | None:
    """A state's message without what Prefect's engine puts before that of an expected error, of which it says all.

    >>> cause_first("Flow run encountered an exception: IncompleteError: slides: 3 done, 1 failed")
    'slides: 3 done, 1 failed'
    """
    found = re.match(r"Flow run encountered an exception: (\w+): ", message or "")
    if message is None or found is None or found[1] not in _expected():
        return message
    return message[found.end() :]


@cache
def _expected() -> frozenset[str]:
    """Names of all kinds of errors that are expected."""
    kinds = list[type[BaseException]](ERRORS)
    for kind in kinds:  # grows by the kinds below each
        kinds += kind.__subclasses__()
    return frozenset(kind.__name__ for kind in kinds)


def _has_runner() -> bool:
    """True under Prefect's runner, which says by itself how a run that it cancels has ended."""
    return "PREFECT__FLOW_RUN_ID" in os.environ


_create = engine.FlowRunEngine.create_flow_run


def _created(self: Any, client: Any) -> Any:
    """The record of a flow run that begins: without one there is none, and nothing is lost yet.

    Raises:
        UnrecordedError: the server, which was there a moment ago, gives none.
    """
    try:
        return _create(self, client)
    except Exception as error:
        raise UnrecordedError(
            f"Prefect's server at {client.api_url} doesn't record that a flow begins ({_reason(error)}): nothing has "
            f"begun; see what its log says, then run the same command again, or name another by PREFECT_API_URL"
        ) from error


class _BestEffortEvents(PrefectEventsClient):
    """Sends the outcomes of tasks, unless the server is away: Prefect waits for each event at the end of a process."""

    def __init__(self) -> None:
        super().__init__(reconnection_attempts=1)

    async def emit(self, event: Event) -> None:
        if not _link.is_worth_a_try:
            return
        try:
            await asyncio.wait_for(super().emit(event), ANSWER_SECONDS)
        except Exception as error:  # noqa: BLE001 (as above)
            _link.fails(_reason(error))
        else:
            _link.works()


def install() -> None:
    """Have Prefect's engine record the outcome of flows and tasks in this way."""
    engine.propose_state_sync = _propose_best_effort
    engine.FlowRunEngine.create_flow_run = _created
    events.PrefectEventsClient = _BestEffortEvents
    emitting.PrefectEventsClient = _BestEffortEvents  # one not known here emits nothing
    logging.getLogger("EventsWorker").setLevel(logging.ERROR)  # it counts what it has yet to send
