"""Tiles between staging and inference: a bounded hand-over between two threads of the driver."""

from __future__ import annotations

import threading
from collections import deque

from flows.result import TileResult


class Backlog:
    """Holds indices of tiles that are ready, and bounds how far staging runs ahead of inference.

    Args:
        limit: tiles that may be staged or being staged, and not yet inferred.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ready: deque[TileResult] = deque()
        self._ahead = 0
        self._closed = False
        self._failure: BaseException | None = None
        self._changed = threading.Condition()

    def reserve(self, count: int) -> bool:
        """Wait until `count` more tiles may be staged; False when nobody will infer them any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._ahead == 0 or self._ahead + count <= self._limit)
            self._ahead += count
            return not self._closed

    def offer(self, staged: TileResult) -> None:
        """Hand over a tile that is staged, or whose staging failed with a reason."""
        with self._changed:
            self._ready.append(staged)
            self._changed.notify_all()

    def take(self, timeout: float) -> TileResult | None:
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

    def release(self, count: int = 1) -> None:
        """Say that a tile has been inferred and its place is free."""
        with self._changed:
            self._ahead -= count
            self._changed.notify_all()

    def close(self, failure: BaseException | None = None) -> None:
        """Say that no more tiles come, and why, if it is a failure."""
        with self._changed:
            self._closed = True
            self._failure = self._failure or failure
            self._changed.notify_all()

    @property
    def exhausted(self) -> bool:
        """Nothing ready and nothing to come."""
        with self._changed:
            return self._closed and not self._ready and self._failure is None
