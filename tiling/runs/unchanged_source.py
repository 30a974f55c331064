"""A run's image, held to the one content that the run began with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from tiling.errors import ImageChangedError, SourceError, StorageError, TilingError
from tiling.selection.part_map import PartMap
from tiling.source import ImageSource, open_source
from tiling.sources.fingerprint import fingerprint_of
from tiling.sources.present import Fill
from tiling.sources.version import UNKNOWN, ImageFiles, version_of_file
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place, place_of
from tiling.storage.task_map import TaskMap
from tiling.view import View

TRIES = 3

Part = TypeVar("Part")
Read = TypeVar("Read")


class VerifiedSource:
    """A source that returns nothing that was read while the image had another content.

    Every read stands between two looks at its files. Where they differ, the content decides: with the old fingerprint
    (a touch, a copy from a backup) the read is done again, and any other refuses the image. Safe to use from several
    threads.

    Args:
        path: the image's place.
        view: of the image.
        fingerprint: of the content that is wanted.
        version: of the files that had it; None reads them to know.
        fill: what stands in place of values that are no data, one per band.
        source: that view of it where it is open already; it is closed with this.

    Raises:
        ImageChangedError: the content is another, or gone.
        SourceError, StorageError: it can't be opened.
    """

    def __init__(
        self,
        path: str | Place,
        view: View | None,
        fingerprint: str,
        version: str | None,
        fill: Fill | None = None,
        source: ImageSource | None = None,
    ) -> None:
        self._wanted, self._lock = fingerprint, threading.Lock()
        self._again = partial(VerifiedSource, str(path), view, fingerprint, version, fill)
        try:
            self.source = open_source(path, view, fill) if source is None else source
        except SourceError as error:
            raise changed(path, f"can't be opened any more ({error})") from error
        self._files = ImageFiles(self.source.path, self.source.format)
        self._whole = version or UNKNOWN
        self._quick: str | None = None
        try:
            self.expect_same()
        except BaseException:
            self.close()
            raise

    def read(self, reading: Callable[[ImageSource], Read]) -> Read:
        """Return what a function reads of the image.

        Raises:
            ImageChangedError: the image has another content by now.
            SourceError, OSError, StorageError: the read failed, and not for that.
        """
        for _ in range(TRIES):
            seen = self._quick
            try:
                found = reading(self.source)
            except (TilingError, OSError):
                if self._is_as_before(seen):
                    raise
            else:
                if seen is not None and self._looks(seen):
                    return found
            self.expect_same()
        raise changed(self.source.path, "changed again and again while it was read")

    def elsewhere(self, tasks: TaskMap) -> PartMap:
        """A map of reading parts of the image in other processes, each of which holds it to the same content."""

        def read(reading: Callable[[ImageSource, Part], Read], parts: Iterable[Part]) -> Iterator[Read]:
            return tasks(_PartRead(self._again, reading), parts)

        return read

    def expect_same(self) -> None:
        """Refuse an image that has another content by now.

        Raises:
            ImageChangedError: it has, or is gone.
            SourceError, OSError, StorageError: it can't be known.
        """
        with self._lock:
            try:
                self._settle()
            except (FileNotFoundError, NotADirectoryError) as error:
                raise changed(self.source.path, "is gone") from error

    def close(self) -> None:
        """Release the file."""
        self.source.close()

    def __enter__(self) -> VerifiedSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _settle(self) -> None:
        for _ in range(TRIES):
            version = self._files.whole()
            quick = self._files.quick()
            if version != self._whole or version == UNKNOWN:
                self.source.close()  # what it has open or decoded may be of the file that was there before
                self._expect_content()
            if self._files.whole() == version:
                self._whole, self._quick = version, quick
                return
        raise changed(self.source.path, "changed again and again while it was read")

    def _expect_content(self) -> None:
        try:
            found = fingerprint_of(self.source.path, self.source.format)
        except SourceError as error:
            raise changed(self.source.path, f"can't be read any more ({error})") from error
        if found != self._wanted:
            raise changed(self.source.path, "has another content")

    def _looks(self, seen: str) -> bool:
        try:
            return self._files.quick() == seen
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _is_as_before(self, seen: str | None) -> bool:
        """True if a read failed though the image is what it was; what can't be looked at isn't known to be another."""
        try:
            return seen is not None and self._looks(seen) and self._files.whole() == self._whole
        except (FileNotFoundError, NotADirectoryError):
            return False
        except (OSError, StorageError):
            return True


@dataclass(frozen=True, slots=True)
class _PartRead:
    """Opens an image wherever it is, and reads parts of it."""

    opening: Callable[[], VerifiedSource]
    reading: Callable[[ImageSource, Any], Any]

    def __call__(self, part: Any) -> Any:
        with self.opening() as steady:
            return steady.read(lambda source: self.reading(source, part))


def open_with_version(path: str | Place, view: View | None = None) -> tuple[ImageSource, str]:
    """Open an image, and say which version its files have had since before they were opened.

    Raises:
        SourceError, StorageError: it can't be opened.
    """
    before = version_of_file(place_of(path))
    source = open_source(path, view)
    try:
        version = source.current_version()
        if isinstance(source.path, ObjectPath):
            source.fingerprint()  # of the object that is open: nothing is read in between
        elif version != before:  # it changed meanwhile, or is made of several files, which its format names first
            source.close()
            source = open_source(path, view)
    except BaseException:
        source.close()
        raise
    return source, version


def is_unchanged(path: str | Place, kind: str, fingerprint: str, version: str | None) -> bool:
    """True if an image of a format surely is what it was, by its files alone; what can't be known isn't."""
    try:
        place = place_of(path)
        files = ImageFiles(place, kind)
        now = files.whole()
        if now == UNKNOWN:
            return False
        if now == version:
            return True
        return fingerprint_of(place, kind) == fingerprint and files.whole() == now
    except (TilingError, OSError):
        return False


def changed(path: str | Place, how: str) -> ImageChangedError:
    """The error for an image that isn't the run's any more."""
    return ImageChangedError(
        f"image {path} {how}, seen at {time.strftime('%H:%M:%S')}: it is no longer the one that the run began with, "
        f"whose tiles alone are accepted"
    )
