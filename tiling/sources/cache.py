"""Decoded segments that neighbouring reads share, bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable

import numpy as np
import numpy.typing as npt

DEFAULT_CACHE_BYTES = 32 * 1024**2


class SegmentCache:
    """Least-recently-used decoded strips and tiles of one image.

    The newest segment stays even when it alone is over the limit: an image that is one big strip would
    otherwise be decoded again for every tile. Such giants are decoded by one thread at a time.
    """

    def __init__(self, limit_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.decoded = 0  # how many segments were decoded so far
        self._held_bytes = 0
        self._segments: OrderedDict[Hashable, npt.NDArray[np.generic]] = OrderedDict()
        self._lock = threading.Lock()
        self._giant_lock = threading.Lock()

    def get(
        self, key: Hashable, expected_bytes: int, decode: Callable[[], npt.NDArray[np.generic]]
    ) -> npt.NDArray[np.generic]:
        """The segment under `key`, decoded now unless it is held; never to be written to."""
        segment = self.find(key)
        if segment is not None:
            return segment
        if expected_bytes <= self.limit_bytes:
            return self._store(key, decode())
        with self._giant_lock:
            segment = self.find(key)
            return self._store(key, decode()) if segment is None else segment

    def holds(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._segments

    def clear(self) -> None:
        with self._lock:
            self._segments.clear()
            self._held_bytes = 0

    def find(self, key: Hashable) -> npt.NDArray[np.generic] | None:
        """The segment under `key`, where it is held; never to be written to."""
        with self._lock:
            segment = self._segments.get(key)
            if segment is not None:
                self._segments.move_to_end(key)
            return segment

    def evict(self, keys: Iterable[Hashable]) -> None:
        """Drop segments that nothing will ask for soon, so that they take no room from those that something will."""
        with self._lock:
            for key in keys:
                segment = self._segments.pop(key, None)
                if segment is not None:
                    self._held_bytes -= segment.nbytes

    def _store(self, key: Hashable, segment: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        segment.flags.writeable = False
        with self._lock:
            self.decoded += 1
            previous = self._segments.pop(key, None)
            self._held_bytes += segment.nbytes - (0 if previous is None else previous.nbytes)
            self._segments[key] = segment
            while self._held_bytes > self.limit_bytes and len(self._segments) > 1:
                self._held_bytes -= self._segments.popitem(last=False)[1].nbytes
        return segment
