"""Threads for steps that nothing records: a thread for each, with the caller's context."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context


def in_thread(name: str, work: Callable[[], None]) -> Future[None]:
    """Begin work in a thread of its own; the process doesn't end before it has ended."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    threading.Thread(target=copy_context().run, args=(_run, future, work), name=name).start()
    return future


def _run(future: Future[None], work: Callable[[], None]) -> None:
    try:
        work()
    except BaseException as error:  # noqa: BLE001 (whoever waits for it has it)
        future.set_exception(error)
    else:
        future.set_result(None)
