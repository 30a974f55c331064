"""Text of an archive in the terminal: how a night ended, what one would do, and how the archive stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flows.commands.facts import archive_facts
from flows.commands.output import console, print_json
from flows.config.archive import ArchiveConfig
from flows.nightly.unended_nights import UnendedNights, unended_nights
from flows.reporting.counting import count
from flows.reporting.escaping import PlainConsole
from flows.reporting.progress import format_seconds
from tiling.archives.flags import flags_by_slide
from tiling.archives.history import shown_time
from tiling.archives.slide_record import SlideRecord, SlideState
from tiling.escaping import some, word
from tiling.storage.place import pasted

if TYPE_CHECKING:
    from flows.nightly.forecast import Forecast
    from flows.nightly.night import NightSummary
    from tiling.archives.history import NightHistory

SHOWN = 20


def print_night(night: NightSummary) -> None:
    """Say in a few lines how the night ended, what is new, what is left, and what to do about it."""
    out = console()
    for warning in night.warnings:
        out.print(f"before: {warning}", soft_wrap=True)
    out.print(f"{night.verdict.value}: {night}", soft_wrap=True)
    _print_records(out, "failed again" if night.is_rerun else "new failures", night.new_failures)
    _print_records(out, "known failures", night.standing)
    _print_records(out, "left to a later night", [*night.of(SlideState.CHANGING), *night.of(SlideState.GONE)])
    if night.missing:
        out.print(f"done and no longer in the source, their masks stay: {some(night.missing, SHOWN)}", soft_wrap=True)
    if night.flags:
        out.print("to look at:")
        for slide, flags in [*night.flags.items()][:SHOWN]:
            out.print(f"  {slide}: {', '.join(flags)}", soft_wrap=True)
    if night.left.slides:
        out.print("the same command resumes", soft_wrap=True)
    for advice in night.advice:
        out.print(advice, soft_wrap=True)
    if night.standing:
        known = word(night.standing[0].slide)
        out.print(f"leave it so: overtile archive --out {pasted(night.archive)} --acknowledge={known}", soft_wrap=True)
    out.print(f"page:    {night.page}", soft_wrap=True)
    out.print(f"table:   {night.archive}/nights/{night.name}.csv", soft_wrap=True)


def _print_records(out: PlainConsole, title: str, records: Sequence[SlideRecord]) -> None:
    if records:
        out.print(f"{title}:")
    for record in records[:SHOWN]:
        out.print(f"  {record.slide}: {record.reason}", soft_wrap=True)
    if len(records) > SHOWN:
        out.print(f"  and {len(records) - SHOWN} more")


def print_forecast(estimate: Forecast, config: ArchiveConfig) -> None:
    """Print a forecast: what would be done, how long it takes and how much space."""
    out, found = console(), estimate.found
    out.print(
        f"to do: {count(len(estimate.slides), 'slide')}, {estimate.pixels / 1e6:,.0f} MPix, "
        f"{_size(found.size_bytes)} of files; {found.unchanged} unchanged, {len(found.settling)} still being written, "
        f"{len(found.refused) + len(estimate.unreadable)} not to be opened, {len(found.known_failures)} failed before, "
        f"{len(found.gone)} gone, {len(found.missing)} done and no longer there",
        soft_wrap=True,
    )
    for name, pixels in estimate.slides[:SHOWN]:
        begun = " of it left" if name in estimate.begun else ""
        out.print(f"  {name}: {pixels / 1e6:,.1f} MPix{begun}", soft_wrap=True)
    if len(estimate.slides) > SHOWN:
        out.print(f"  and {len(estimate.slides) - SHOWN} more")
    refused = [(slide.name, slide.refused or "") for slide in found.refused]
    for name, reason in [*refused, *estimate.unreadable][:SHOWN]:
        out.print(f"  {name}: {reason}", soft_wrap=True)
    unknown = "not known before a first night"
    out.print(f"time:  {format_seconds(estimate.seconds) if estimate.seconds is not None else unknown}")
    expected = _size(estimate.mask_bytes) if estimate.mask_bytes is not None else unknown
    out.print(f"masks: {expected}; at most {_size(estimate.mask_bytes_at_most)}, if nothing compressed")
    if estimate.free_bytes is not None:
        out.print(f"free:  {_size(estimate.free_bytes)} on the disk of {config.out}", soft_wrap=True)


def _size(size_bytes: float) -> str:
    return f"{size_bytes / 1e9:,.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:,.1f} MB"


def print_archive(out_folder: str) -> None:
    """Print an archive's state: slides by state, failures, nights that died or are under way, and what waits."""
    from tiling.archives.archive import Archive
    from tiling.archives.history import NightHistory
    from tiling.storage.place import place_of

    out, archive = console(), Archive.open(place_of(out_folder))
    records = list(archive.ledger)
    counts = Counter(record.state for record in records)
    message = ", ".join(f"{counts[state]} {state.value}" for state in SlideState if counts[state])
    done = sum(record.pixels for record in records if record.state is SlideState.DONE)
    out.print(f"{archive.path}: {count(len(records), 'slide')} with {archive.card.model}", soft_wrap=True)
    out.print(f"{message or 'none looked at yet'}; {done / 1e6:,.0f} MPix done")
    history = NightHistory.of(archive.ledger.events)
    if history.ended:
        out.print(f"night of {shown_time(history.ended[-1].began)}: {history.ended[-1].summary}", soft_wrap=True)
    unended = unended_nights(archive, history)
    _print_unended(out, history, unended)
    failed = sorted((r for r in records if r.is_bad and not r.acknowledged), key=lambda record: record.slide)
    for record in failed[:SHOWN]:
        out.print(f"  {record.slide}: {record.reason}", soft_wrap=True)
    if len(failed) > SHOWN:
        out.print(f"  and {len(failed) - SHOWN} more")
    if seen := sum(record.is_bad and record.acknowledged for record in records):
        out.print(f"  {'and ' if failed else ''}{seen} whose failure is acknowledged")
    flags = flags_by_slide(records)
    if flags:
        out.print(f"{len(flags)} to look at:")
    for slide, why in [*flags.items()][:SHOWN]:
        out.print(f"  {slide}: {', '.join(why)}", soft_wrap=True)
    print_json(archive_facts(archive, records, history, unended))


def _print_unended(out: PlainConsole, history: NightHistory, unended: UnendedNights | None) -> None:
    """Say which nights have not ended, with what the last of them left; or what the last that ended did."""
    if unended is None:
        if history.last is not None and (left := (history.last.facts or {}).get("left")):
            out.print(f"waits for the next night: {left}", soft_wrap=True)
        return
    for death in unended.deaths:
        out.print(f"{death}; the next night resumes", soft_wrap=True)
    if unended.under_way_since is not None:
        out.print(f"a night is under way since {shown_time(unended.under_way_since)}")
    waiting = f"{unended.waiting} wait" if unended.waiting is not None else "how many wait isn't known"
    out.print(f"of its slides {unended.over} are over, {unended.begun} begun, {waiting}")
