"""Tiles between staging and inference: a bounded hand-over between two threads of the driver."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType

from flows.result import Ready


class Backlog:
    """Holds tiles that are ready, of one run or of several in turn, and bounds how far staging runs ahead of inference.

    Used as a context by whoever fills it, it closes at the end, with the error that ended filling, if any did.

    Args:
        limit: tiles that may be staged or being staged, and not yet inferred.
        budget_bytes: what those may take where they are staged; None for any. A batch larger than that passes alone.
    """

    def __init__(self, limit: int, budget_bytes: int | None = None) -> None:
        self._limit, self._budget_bytes = limit, budget_bytes
        self._ready: deque[Ready] = deque()
        self._ahead = self._ahead_bytes = 0
        self._closed = False
        self._failure: BaseException | None = None
        self._changed = threading.Condition()

    def __enter__(self) -> Backlog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(error)

    def has_room(self, count: int, tile_bytes: int = 0) -> bool:
        """Whether `reserve` would not have to wait."""
        with self._changed:
            return self._closed or self._has_room(count, count * tile_bytes)

    def reserve(self, count: int, tile_bytes: int = 0) -> bool:
        """Wait until `count` more tiles may be staged; False when nobody will infer them any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_room(count, count * tile_bytes))
            self._ahead += count
            self._ahead_bytes += count * tile_bytes
            return not self._closed

    def offer(self, ready: Ready) -> None:
        """Hand over a tile that is staged, or whose staging failed with a reason."""
        with self._changed:
            self._ready.append(ready)
            self._changed.notify_all()

    def take(self, timeout: float) -> Ready | None:
        """The next ready tile; None when there is none within `timeout` seconds.

        Raises:
            BaseException: what ended staging, if anything did.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._closed, timeout)
            if self._ready:
                return self._ready.popleft()
            if self._failure is not None:
                raise self._failure
            return None

    def release(self, count: int = 1, tile_bytes: int = 0) -> None:
        """Say that tiles have been inferred, or never will be, and their places are free."""
        with self._changed:
            self._ahead -= count
            self._ahead_bytes -= count * tile_bytes
            self._changed.notify_all()

    def close(self, failure: BaseException | None = None) -> None:
        """Say that no more tiles come, and why, if it is a failure."""
        with self._changed:
            self._closed = True
            self._failure = self._failure or failure
            self._changed.notify_all()

    @property
    def ready(self) -> int:
        """How many tiles wait to be taken."""
        with self._changed:
            return len(self._ready)

    @property
    def is_closed(self) -> bool:
        """Whether no more tiles come, or nobody takes any."""
        with self._changed:
            return self._closed

    @property
    def exhausted(self) -> bool:
        """Nothing ready and nothing to come."""
        with self._changed:
            return self._closed and not self._ready and self._failure is None

    def _has_room(self, count: int, size_bytes: int) -> bool:
        if self._ahead == 0:
            return True
        fits = self._budget_bytes is None or self._ahead_bytes + size_bytes <= self._budget_bytes
        return fits and self._ahead + count <= self._limit
