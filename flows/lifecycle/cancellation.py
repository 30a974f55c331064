"""Cancel in Prefect of a flow run that a command began: Prefect holds no process of it, so the command asks itself."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from uuid import UUID

from flows.errors import StoppedError
from flows.lifecycle.stopping import forget_cancel, stop_as_cancelled

ASKING_SECONDS = 3.0
"""Between two looks at the flow run's state: a request of some milliseconds each, on a connection that is kept."""


class Cancellation:
    """Watch of a command's own flow run, of which a cancel in Prefect ends the command as SIGTERM does.

    Attributes:
        stopped: error that the flow ended with: to its caller Prefect raises another one of a run that is cancelled.
    """

    def __init__(self) -> None:
        self.stopped: StoppedError | None = None
        self._lock, self._ended = threading.Lock(), threading.Event()

    @contextmanager
    def heeded(self, flow_run: UUID) -> Generator[None]:
        """While inside, the state of a flow run is asked for now and then, in a thread that nobody waits for."""
        ask = threading.Thread(target=copy_context().run, args=(self._ask, flow_run), name="cancel", daemon=True)
        ask.start()
        try:
            yield
        finally:
            with self._lock:  # whatever comes later stops what this process does next
                self._ended.set()

    def _ask(self, flow_run: UUID) -> None:
        is_cancelled = False
        while not (is_cancelled or self._ended.wait(ASKING_SECONDS)):
            with suppress(Exception):  # a server that is away costs no run; other calls to it say so
                is_cancelled = self._follow(flow_run)
        with self._lock:
            if not self._ended.is_set():
                stop_as_cancelled()

    def _follow(self, flow_run: UUID) -> bool:
        """True as soon as the flow run is cancelled, False once it has ended; asked for on one connection."""
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            while not self._ended.is_set():
                state = client.read_flow_run(flow_run).state
                if state is not None and (state.is_cancelling() or state.is_cancelled()):
                    return True
                self._ended.wait(ASKING_SECONDS)
        return False


_own: ContextVar[Cancellation | None] = ContextVar("cancellation", default=None)


def own_cancellation() -> Cancellation | None:
    """Watch of the flow run that is this command's own; None where others hold its process, or nobody can cancel it."""
    return _own.get()


@contextmanager
def cancellable(*, is_reachable: bool) -> Generator[Cancellation]:
    """While inside, the flow that begins is this command's own.

    Args:
        is_reachable: False of a server that only this command has the password of.
    """
    found = Cancellation()
    forget_cancel()
    # Signals are delivered to the main thread: a flow elsewhere would not be the one that is stopped.
    is_heeded = is_reachable and threading.current_thread() is threading.main_thread()
    token = _own.set(found if is_heeded else None)
    try:
        yield found
    finally:
        _own.reset(token)
