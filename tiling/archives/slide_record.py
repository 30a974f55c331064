"""Record of a slide in an archive: its last known state, and what is known of its run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from math import isfinite
from typing import Any


class SlideState(StrEnum):
    """The last known state of a slide.

    DONE: its mask is complete. FAILED: it could not be planned or closed, or some of its tiles failed. BEGUN: some
    of its tiles are done. SAME: its content is that of another slide, whose mask is its own. CHANGING: it was written
    while it was looked at. REFUSED: it is not opened, for its name or place. GONE: nothing came of it, or not all, and
    its source holds it no longer; what there is of its run stays.
    """

    DONE = "done"
    FAILED = "failed"
    BEGUN = "begun"
    SAME = "same"
    CHANGING = "changing"
    REFUSED = "refused"
    GONE = "gone"


BAD = (SlideState.FAILED, SlideState.REFUSED)
"""States of slides that stand failed."""


@dataclass(frozen=True, slots=True)
class SlideRecord:
    """One line of an archive's ledger.

    Attributes:
        slide: its name.
        folder: its run's, below the archive.
        size_bytes, version: the listing's stamp of the content that this is about.
        fingerprint: of that content; None where it wasn't read.
        asked: what a manifest asked for this slide alone.
        reason: why it failed, or of which slide it is the same.
        lasting: a failure that the same content would have again.
        tiles, failed_tiles: of its run. unreadable_tiles: of the failed ones, those whose part of the image isn't read.
        pixels: of the level that is segmented. seconds: from its first tile to its last. mask_bytes: on disk.
        pixel_size: y, x and unit of that level's pixels; None where neither the image nor an option says them.
        night: when it was looked at. time: when this was written.
        acknowledged: a failure that somebody has seen and leaves as it is, for as long as the file stays the same.
        failed_before: of a slide that is begun, whether the same file has failed in an earlier night.
        failed_since: of a slide that stands failed, or is begun and failed before, the night in which it first failed.
        left_tiles: of a slide that is begun, those that are still to be computed.
        measures: what is known of image and mask by name, as `tiling.archives.measures` has it.
        stage_seconds: of work per stage, summed over all workers.
        missing_since: of a slide that has its mask, the night since which the source no longer holds the image.
    """

    slide: str
    state: SlideState
    folder: str
    size_bytes: int = 0
    version: str = ""
    fingerprint: str | None = None
    asked: Mapping[str, str] = field(default_factory=dict[str, str])
    reason: str | None = None
    lasting: bool = False
    tiles: int = 0
    failed_tiles: int = 0
    pixels: int = 0
    seconds: float = 0.0
    mask_bytes: int = 0
    pixel_size: tuple[float, float, str] | None = None
    night: str = ""
    time: float = 0.0
    acknowledged: bool = False
    failed_before: bool = False
    failed_since: str = ""
    left_tiles: int = 0
    measures: Mapping[str, Any] = field(default_factory=dict[str, Any])
    stage_seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    missing_since: str = ""
    unreadable_tiles: int = 0

    @property
    def is_bad(self) -> bool:
        """True if the slide stands failed."""
        return self.state in BAD

    @property
    def stands_failed(self) -> bool:
        """True if it failed, or is being tried again after it did."""
        return self.is_bad or self.failed_before

    @property
    def share_left(self) -> float:
        """Share of the slide's tiles that is still to be computed, as far as its record says."""
        is_begun = self.state is SlideState.BEGUN and self.tiles > 0
        return min(1.0, self.left_tiles / self.tiles) if is_begun and self.left_tiles else 1.0

    def is_of(self, size_bytes: int, version: str, asked: Mapping[str, str]) -> bool:
        """True if it is about that listing of the file, with the same asked for it."""
        return (self.size_bytes, self.version) == (size_bytes, version) and dict(self.asked) == dict(asked)

    @property
    def is_settled(self) -> bool:
        """True if the same content needs no further look."""
        return self.state in {SlideState.DONE, SlideState.SAME}

    @classmethod
    def of_entry(cls, entry: Mapping[str, Any]) -> SlideRecord:
        """The record of a line of the ledger.

        Raises:
            ValueError, KeyError, TypeError: it is none.
        """
        fields: dict[str, Any] = {**entry, "state": SlideState(entry["state"])}
        if fields.get("pixel_size") is not None:
            fields["pixel_size"] = tuple(fields["pixel_size"])  # JSON has no tuples
        record = cls(**fields)
        numbers = (record.time, record.seconds, record.tiles, record.failed_tiles, record.pixels)
        names = (fields["slide"], fields["folder"])
        if not all(isinstance(each, str) for each in names) or not all(map(isfinite, numbers)):
            raise TypeError("a name that is no text, or a number that is none")
        if record.folder.startswith("/") or ".." in record.folder.split("/"):
            raise ValueError(f"the folder {record.folder!r} lies outside of the archive")
        return record

    def entry(self) -> dict[str, Any]:
        """Its line in the ledger, in JSON's types."""
        return {**asdict(self), "state": self.state.value}
