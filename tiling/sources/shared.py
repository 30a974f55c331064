"""Open file that several sources read from: of one file as it is, and of views of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tiling.geometry import Box
from tiling.sources.facts import ImageFacts, Moment, Reader
from tiling.view import View


class SharedReader:
    """A reader that closes with the last source that it serves. Safe to use from several threads.

    `release` is what is done then besides.
    """

    def __init__(self, reader: Reader, moment: Moment, release: Callable[[], None] | None = None) -> None:
        self._reader, self._moment, self._release = reader, moment, release
        self._users, self._lock = 1, threading.Lock()

    @property
    def facts(self) -> ImageFacts:
        return self._reader.facts

    def read(self, level: int, box: Box) -> npt.NDArray[np.generic]:
        return self._reader.read(level, box)

    def read_mask(self, level: int, box: Box) -> npt.NDArray[np.bool_] | None:
        return self._reader.read_mask(level, box)

    def chunk_px(self, level: int) -> tuple[int, int]:
        return self._reader.chunk_px(level)

    @property
    def file(self) -> Reader:
        """The reader itself."""
        return self._reader

    def serves(self, view: View | None) -> bool:
        """True if opening the file for a view would give what is open."""
        asked = moment_of(view)
        if (
            self._moment.alpha
            or needs_alpha(self.facts, view)
            or replace(asked, series=self._moment.series) != self._moment
        ):
            return False
        is_numbered = bool(self.facts.images) and asked.series == self.facts.series
        return asked.series == self._moment.series or is_numbered

    def share(self) -> SharedReader:
        """The same for one more source."""
        with self._lock:
            self._users += 1
        return self

    def close(self) -> None:
        """Release the file, where nothing else uses it."""
        with self._lock:
            self._users -= 1
            is_last = self._users == 0
        if is_last:
            self._reader.close()
            if self._release is not None:
                self._release()


def moment_of(view: View | None) -> Moment:
    """Image, focal plane and time that a view is of."""
    if view is None:
        return Moment()
    return Moment(view.z, view.t, view.series, damaged=view.damaged, crs=view.crs, resampling=view.resampling)


def needs_alpha(facts: ImageFacts, view: View | None) -> bool:
    """True if a view takes alpha channels as bands."""
    return (
        bool(facts.alpha)
        and view is not None
        and view.bands is not None
        and max(view.bands, default=0) >= len(facts.bands)
    )
