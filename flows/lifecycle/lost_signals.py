"""Signals whose error Python drops: they are sent again, until one is raised where it ends something."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

AGAIN_SECONDS = 0.05


@contextmanager
def sent_again(raised: type[BaseException]) -> Generator[None]:
    """While inside, an error of a signal that is raised in a finaliser or a callback ends more than that one.

    A handler's error is raised wherever the main thread is. In a `__del__`, or a callback of a weak reference, nobody
    can catch it: Python prints it, and works on as if no signal had come.

    Args:
        raised: what handlers of this project raise, with the signal as `number`; Ctrl-C's and Prefect's are known.
    """
    before = sys.unraisablehook

    def dropped(message: UnraisableHookArgs) -> None:
        number = _number(message.exc_value, raised)
        if number is None:
            before(message)
        else:
            # By a thread and a little later: here it would be dropped too. Not one of `threading`, which may hold a
            # lock of its own in this very moment.
            _thread.start_new_thread(_send, (number,))

    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = before


def _number(error: BaseException | None, raised: type[BaseException]) -> int | None:
    """The signal that an error was raised for; None of any other."""
    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT
    if isinstance(error, raised):
        return int(vars(error)["number"])
    prefect = sys.modules.get("prefect.exceptions")
    if prefect is not None and isinstance(error, prefect.TerminationSignal):
        return int(vars(error)["signal"])
    return None


def _send(number: int) -> None:
    time.sleep(AGAIN_SECONDS)
    os.kill(os.getpid(), number)
