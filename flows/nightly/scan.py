"""Scan of an archive's source: the slides that a night has to segment, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flows.config.archive import COLUMNS, ArchiveConfig
from tiling.archives.archive import Archive
from tiling.archives.history import NightHistory
from tiling.archives.listing import find_slides, glob_pattern, is_gone, is_manifest
from tiling.archives.slide import Slide
from tiling.archives.slide_record import SlideRecord, SlideState


@dataclass(frozen=True, slots=True)
class ScanResult:
    """Result of scanning the source.

    todo: new, changed or begun, in the order of work. settling: still being written. refused: not to be opened.
    known_failures: failed before, and their files haven't changed. unchanged: done before. gone: not done, and no
    longer in the source. stood: those to do that had failed before, and whose files haven't changed. unreported: known
    failures that no night has reported, since the one that found them died. missing: have their masks, and their images
    are no longer in the source, which no night has said yet. back: are there again.
    """

    todo: tuple[Slide, ...]
    settling: tuple[Slide, ...]
    refused: tuple[Slide, ...]
    known_failures: tuple[SlideRecord, ...]
    unchanged: int
    gone: tuple[str, ...] = ()
    stood: frozenset[str] = frozenset()
    unreported: frozenset[str] = frozenset()
    missing: tuple[str, ...] = ()
    back: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        return sum(slide.file_version.size_bytes for slide in self.todo if slide.file_version)


def scan(config: ArchiveConfig, archive: Archive, slides: Iterable[Slide] | None = None) -> ScanResult:
    """Compare the source, or a listing of it, with the ledger. A slide whose size and times are those of its
    record is not opened; any other is, and then its content decides.
    """
    todo: list[Slide] = []
    settling: list[Slide] = []
    refused: list[Slide] = []
    known: list[SlideRecord] = []
    unchanged = 0
    listed = set[str]()
    for slide in find_slides(config.source, config.out, COLUMNS) if slides is None else slides:
        listed.add(slide.name)
        record = archive.ledger.get(slide.name)
        if config.failed_only and (record is None or record.state is not SlideState.FAILED):
            continue
        if slide.refused is not None or slide.file_version is None:
            if record is not None and record.state is SlideState.REFUSED and record.reason == slide.refused:
                known.append(record)
            else:
                refused.append(slide)
        elif record is not None and not config.reread and _says_the_same(record, slide):
            if record.is_settled and _is_still_there(archive, record):
                unchanged += 1
            elif record.lasting and not config.failed_only:
                known.append(record)
            else:
                todo.append(slide)
        elif not slide.file_version.is_settled(config.settle):
            settling.append(slide)
        else:
            todo.append(slide)
    unseen = [record for record in archive.ledger if record.slide not in listed]
    gone = (each.slide for each in unseen if not each.is_settled and each.state is not SlideState.GONE)
    away = (each.slide for each in unseen if each.is_settled and not each.missing_since)
    history = NightHistory.of(archive.ledger.events)
    return ScanResult(
        todo=in_order(todo, config, archive),
        settling=tuple(settling),
        refused=tuple(refused),
        known_failures=tuple(known),
        unchanged=unchanged,
        gone=tuple(name for name in sorted(gone) if is_gone(config.source, name)),
        stood=frozenset() if config.failed_only else frozenset(_failed_before(archive, todo, history)),
        unreported=frozenset(record.slide for record in known if not _is_reported(record, history)),
        missing=() if is_manifest(config.source) else tuple(n for n in sorted(away) if is_gone(config.source, n)),
        back=tuple(sorted(each.slide for each in archive.ledger if each.missing_since and each.slide in listed)),
    )


def in_order(slides: Sequence[Slide], config: ArchiveConfig, archive: Archive) -> tuple[Slide, ...]:
    """Those asked for first, then those that were begun, then those that have waited longest."""
    first = [glob_pattern(glob) for glob in config.first]

    def rank(slide: Slide) -> tuple[bool, bool, float, str]:
        record = archive.ledger.get(slide.name)
        is_first = any(pattern.fullmatch(slide.name) for pattern in first)
        is_begun = record is not None and record.state is SlideState.BEGUN
        modified = slide.file_version.modified if slide.file_version else None
        return not is_first, not is_begun, modified or 0.0, slide.name

    return tuple(sorted(slides, key=rank))


def unopened_record(slide: Slide, night: str) -> SlideRecord:
    """The record of a slide that is not opened."""
    state = SlideState.REFUSED if slide.refused is not None else SlideState.CHANGING
    reason = slide.refused or "it is still being written; the next night looks again"
    record = SlideRecord(slide.name, state, "", reason=reason, asked=dict(slide.overrides), night=night)
    if slide.file_version is None:
        return record
    return replace(record, size_bytes=slide.file_version.size_bytes)


def _failed_before(archive: Archive, todo: Iterable[Slide], history: NightHistory) -> Iterator[str]:
    """Of what is tried again the slides whose failure is known: each has made a night red already."""
    for slide in todo:
        record = archive.ledger.get(slide.name)
        if (
            record is not None
            and record.stands_failed
            and _says_the_same(record, slide)
            and _is_reported(record, history)
        ):
            yield slide.name


def _is_reported(record: SlideRecord, history: NightHistory) -> bool:
    return history.has_reported(record.failed_since or record.night)


def _says_the_same(record: SlideRecord, slide: Slide) -> bool:
    stamp = slide.file_version
    return stamp is not None and record.is_of(stamp.size_bytes, stamp.version, slide.overrides)


def _is_still_there(archive: Archive, record: SlideRecord) -> bool:
    """True if the mask is where it was; in a bucket this would be a request per slide and night.

    The mask of another slide may have made room for that of another content, which the ledger tells of.
    """
    if record.state is SlideState.SAME and not archive.ledger.vouches_for(record):
        return archive.is_there(record)
    return not isinstance(archive.path, Path) or (archive.run_path(record.folder) / "run.json").is_file()
