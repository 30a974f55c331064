"""The time of day without the jumps that a clock makes when it is set."""

from __future__ import annotations

import time


class SteadyClock:
    """Seconds since 1970 as the system's clock had them when this was made; from then on only time that passes counts.

    A clock that is set, or that jumps on a machine without a battery for it, would otherwise put an earlier tile after
    a later one and give negative rates.
    """

    def __init__(self) -> None:
        self._start = time.time() - time.monotonic()

    def now(self) -> float:
        """Never less than before."""
        return self._start + time.monotonic()
