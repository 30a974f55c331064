"""Clock of nights: the system's, or one that is given."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from contextvars import ContextVar


def _local_now() -> dt.datetime:
    return dt.datetime.now().astimezone()


clock: ContextVar[Callable[[], dt.datetime]] = ContextVar("clock", default=_local_now)
"""What time it is where the night is held, with its offset. Durations are measured, never read from it."""
