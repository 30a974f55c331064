"""The checksum of a written file: size and digest, by which a later look tells whether it still is what was written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place

BYTES_AT_ONCE = 2**23


@dataclass(frozen=True, slots=True)
class Checksum:
    """Size and digest (blake2b-128) of a file."""

    bytes: int
    digest: str

    @classmethod
    def of(cls, place: Place) -> Checksum:
        """Raises FileNotFoundError where there is no file; holds a part of it at a time."""
        digest, count = hashlib.blake2b(digest_size=16), 0
        for part in _parts(place):
            digest.update(part)
            count += len(part)
        return cls(count, digest.hexdigest())

    @classmethod
    def parse(cls, facts: object) -> Checksum | None:
        """The checksum that an event of the ledger holds; None in one of before there were any."""
        if not isinstance(facts, dict):
            return None
        found: dict[str, Any] = {str(key): value for key, value in facts.items()}
        return cls(int(found["bytes"]), str(found["digest"])) if {"bytes", "digest"} <= found.keys() else None

    def facts(self) -> dict[str, Any]:
        """For an event."""
        return asdict(self)

    def fault(self, place: Place) -> str | None:
        """The fault of the file; None where it is what was written."""
        try:
            if size_of(place) == self.bytes and Checksum.of(place) == self:
                return None
        except FileNotFoundError:
            return "it is missing"
        except OSError as error:
            return f"it can't be read ({error.strerror or error})"
        return "it isn't what was written"


def size_of(place: Place) -> int:
    """Of a file; FileNotFoundError where there is none."""
    return place.facts().size_bytes if isinstance(place, ObjectPath) else place.stat().st_size


def _parts(place: Place) -> Iterator[bytes]:
    if isinstance(place, Path):
        with place.open("rb") as file:
            while part := file.read(BYTES_AT_ONCE):
                yield part
        return
    facts = place.facts()
    for start in range(0, facts.size_bytes, BYTES_AT_ONCE):
        yield place.read_range(start, min(BYTES_AT_ONCE, facts.size_bytes - start), facts.tag.e_tag)
