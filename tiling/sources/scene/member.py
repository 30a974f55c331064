"""Member of a scene: one file, its facts, and its pixels while it is open."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.sources.facts import FIRST, Georeference, ImageFacts, Reader, Scale, known_scales
from tiling.sources.gdal.formats import NAMES as READ_BY_GDAL
from tiling.sources.limits import source_errors
from tiling.sources.present import present
from tiling.sources.shared import SharedReader
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place

Opener = Callable[[Place], tuple[Reader, str]]

OPEN_BYTES = 256 * 1024**2
"""What the files of a scene that are open hold together; others are opened again when they are read."""
MOST_OPEN = 64
"""How many they are at the most."""
SLOW_OPEN = 4
"""How many files that are slow to open, on the web or in a process of GDAL's, stay open whatever they hold."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Pixels `(y, x, band)` of a member.

    `inside` is where the member has pixels at all, `held` where they are data, both `(y, x, band or 1)`.
    """

    pixels: npt.NDArray[np.generic]
    inside: npt.NDArray[np.bool_]
    held: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a scene."""

    path: Place
    facts: ImageFacts
    identity: str

    @property
    def is_slow(self) -> bool:
        """True if to open it takes requests over the network, or another process."""
        return isinstance(self.path, ObjectPath) or self.facts.format in READ_BY_GDAL

    def overridden(
        self, georeference: Georeference | None, nodata: float | None, scales: tuple[Scale, ...] = ()
    ) -> Member:
        """The same where something else says where it lies, what is no data and its scale, and it doesn't itself."""
        facts = self.facts
        if facts.georeference is None:
            facts = replace(facts, georeference=georeference)
        if facts.nodata is None and not facts.has_mask:
            facts = replace(facts, nodata=nodata)
        if not facts.scales and scales:
            if len(scales) != len(facts.bands):
                raise SourceError(
                    f"{self.path.name} has {len(facts.bands)} bands, and {len(scales)} scales are given; correct them"
                )
            facts = replace(facts, scales=known_scales(list(scales)))
        return replace(self, facts=facts)


class OpenMembers:
    """The files of a scene, a few of them open. Safe to use from several threads."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._quick: OrderedDict[Place, SharedReader] = OrderedDict()
        self._slow: OrderedDict[Place, SharedReader] = OrderedDict()
        self._held_bytes = 0
        self._lock = threading.Lock()

    def look(self, path: Place) -> Member:
        """Description of a file, without its pixels."""
        reader, identity = self._opener(path)
        try:
            return Member(path, reader.facts, identity)
        finally:
            reader.close()

    def read(self, member: Member, box: Box) -> Seen:
        """A box of a member's pixels.

        Raises:
            SourceError: it can't be read, or is another file by now.
        """
        reader = self._used(member)
        try:
            with source_errors(str(member.path)):
                pixels = reader.read(0, box)
                mask = reader.read_mask(0, box) if member.facts.has_mask else None
        finally:
            reader.close()
        whole = np.ones((*box.shape, 1), np.bool_)
        held = present(pixels, member.facts.nodata, mask)
        return Seen(pixels, whole if mask is None else mask[..., np.newaxis], whole if held is None else held)

    def close(self) -> None:
        with self._lock:
            readers = [*self._quick.values(), *self._slow.values()]
            self._quick.clear()
            self._slow.clear()
            self._held_bytes = 0
        for reader in readers:
            reader.close()

    def _used(self, member: Member) -> SharedReader:
        """A member's reader for one more use; where too many are open, those used least recently close."""
        with self._lock:
            held = self._slow if member.is_slow else self._quick
            reader = held.pop(member.path, None)
            if reader is None:
                opened, identity = self._opener(member.path)
                reader = SharedReader(opened, FIRST)
                with source_errors(str(member.path)):
                    _expect_same(member, reader, identity)
                self._held_bytes += 0 if member.is_slow else reader.facts.memory_bytes
            held[member.path] = reader
            used, stale = reader.share(), list(self._surplus())
        for each in stale:
            each.close()
        return used

    def _surplus(self) -> Iterator[SharedReader]:
        """Readers beyond what may be open, those used least recently; caller holds the lock."""
        while len(self._slow) > SLOW_OPEN:
            yield self._slow.popitem(last=False)[1]
        while len(self._quick) > 1 and (self._held_bytes > OPEN_BYTES or len(self._quick) > MOST_OPEN):
            reader = self._quick.popitem(last=False)[1]
            self._held_bytes -= reader.facts.memory_bytes
            yield reader


def open_bytes(members: list[Member]) -> int:
    """The most that a scene's open files hold: all of them, or the budget and the one that is opened beyond it.

    Of those that are slow to open, it is that of the largest that are open at once.
    """
    quick = [member.facts.memory_bytes for member in members if not member.is_slow]
    slow = sorted((member.facts.memory_bytes for member in members if member.is_slow), reverse=True)
    return min(sum(quick), OPEN_BYTES + max(quick, default=0)) + sum(slow[: SLOW_OPEN + 1])


def _expect_same(member: Member, reader: SharedReader, identity: str) -> None:
    found = Member(member.path, reader.facts, identity).overridden(member.facts.georeference, member.facts.nodata)
    facts = replace(found.facts, scales=member.facts.scales)  # of the same file they are the same
    if identity != member.identity or not facts.is_same(member.facts):
        reader.close()
        raise ValueError("the file changed after the scene was opened; start again")
