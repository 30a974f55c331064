"""Facts of one object: its size, and what tells its content from another."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from obstore import ObjectMeta


@dataclass(frozen=True, slots=True)
class Tag:
    """Identity of an object's content in its store, such as its ETag, for conditional requests."""

    e_tag: str | None
    version: str | None


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """Facts of one object, without its bytes."""

    size_bytes: int
    modified: datetime
    tag: Tag

    @classmethod
    def of(cls, meta: ObjectMeta) -> ObjectFacts:
        return cls(meta["size"], meta["last_modified"], Tag(meta["e_tag"], meta["version"]))
