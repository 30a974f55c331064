"""Member of a scene: one file, its facts, and its pixels while it is open."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.sources.facts import FIRST, Georeference, ImageFacts, Reader, Scale, known_scales
from tiling.sources.limits import source_errors
from tiling.sources.present import present
from tiling.sources.shared import SharedReader

Opener = Callable[[Path], tuple[Reader, str]]

OPEN_BYTES = 256 * 1024**2
"""What the files of a scene that are open hold together; others are opened again when they are read."""
MOST_OPEN = 64
"""How many they are at the most."""


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

    path: Path
    facts: ImageFacts
    identity: str

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
        self._open: OrderedDict[Path, SharedReader] = OrderedDict()
        self._held_bytes = 0
        self._lock = threading.Lock()

    def look(self, path: Path) -> Member:
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
            readers = list(self._open.values())
            self._open.clear()
            self._held_bytes = 0
        for reader in readers:
            reader.close()

    def _used(self, member: Member) -> SharedReader:
        """A member's reader for one more use; where too many are open, those used least recently close."""
        with self._lock:
            reader = self._open.pop(member.path, None)
            if reader is None:
                opened, identity = self._opener(member.path)
                reader = SharedReader(opened, FIRST)
                with source_errors(str(member.path)):
                    _expect_same(member, reader, identity)
                self._held_bytes += reader.facts.memory_bytes
            self._open[member.path] = reader
            used, stale = reader.share(), list[SharedReader]()
            while len(self._open) > 1 and (self._held_bytes > OPEN_BYTES or len(self._open) > MOST_OPEN):
                stale.append(self._open.popitem(last=False)[1])
                self._held_bytes -= stale[-1].facts.memory_bytes
        for each in stale:
            each.close()
        return used


def open_bytes(members: list[Member]) -> int:
    """The most that a scene's open files hold: all of them, or the budget and the one that is opened beyond it."""
    held = [member.facts.memory_bytes for member in members]
    return min(sum(held), OPEN_BYTES + max(held))


def _expect_same(member: Member, reader: SharedReader, identity: str) -> None:
    found = Member(member.path, reader.facts, identity).overridden(member.facts.georeference, member.facts.nodata)
    facts = replace(found.facts, scales=member.facts.scales)  # of the same file they are the same
    if identity != member.identity or not facts.is_same(member.facts):
        reader.close()
        raise ValueError("the file changed after the scene was opened; start again")
