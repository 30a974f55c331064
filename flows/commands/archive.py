"""`overtile archive`: what is new or changed in an archive of slides, night after night."""

from __future__ import annotations

import socket
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from flows.commands.exit_codes import EXIT_BACKLOG, EXIT_LOOK, EXIT_NEW_FAILURES
from flows.commands.options import takes
from flows.config.archive import COLUMNS, ArchiveConfig
from flows.errors import StoppedError
from flows.lifecycle.environment import quiet_environment
from flows.nightly.verdict import Verdict
from flows.reporting.escaping import PlainConsole
from flows.reporting.progress import format_seconds
from tiling.archives.flags import flags_by_slide
from tiling.archives.history import shown_time
from tiling.archives.slide_ledger import SlideRecord, SlideState
from tiling.escaping import word
from tiling.storage.place import Place, is_locked

if TYPE_CHECKING:
    from flows.nightly.forecast import Forecast
    from flows.nightly.night import NightSummary
    from tiling.archives.archive import Archive
    from tiling.archives.history import NightHistory

SHOWN = 20
CLUSTER_SECONDS = 2.0
"""How long the cluster of the last night is tried before a rerun does without it."""

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, how long, how much space.")]
AcknowledgeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--acknowledge",
        metavar="SLIDE",
        help="Leave a failed slide as it is, and begin no night: it is counted and no longer named. May be repeated.",
    ),
]


@takes(ArchiveConfig, optional=["source"])
def archive_command(*, dry_run: DryRunOption = False, acknowledge: AcknowledgeOption = None, **asked: Any) -> None:
    """Segment what is new or changed in an archive of slides; the same command resumes."""
    if acknowledge:
        acknowledge_failures(asked["out"], acknowledge)
        return
    config = ArchiveConfig.model_validate(asked)
    if dry_run:
        quiet_environment()
        from flows.archive import dry_run as foresee

        print_forecast(foresee(config), config)
        return
    run_night(config)


def acknowledge_failures(out_folder: str, slides: Sequence[str]) -> None:
    """Store that somebody has seen why slides failed and leaves them so."""
    from tiling.archives.archive import Archive
    from tiling.storage.place import lock_run, place_of

    place, out = place_of(out_folder), PlainConsole()
    Archive.open(place)  # before a lock is left in what is no archive
    with lock_run(place):
        ledger = Archive.open(place).ledger
        for slide in slides:
            record = ledger.acknowledge(slide)
            out.print(f"acknowledged: {slide}: {record.reason}; named again when its file changes", soft_wrap=True)


def rerun_archive(out_folder: str, **changed: Any) -> None:
    """Try an archive's failed slides again, as its last night was asked for; nothing starts where none failed."""
    from tiling.archives.archive import Archive
    from tiling.storage.place import place_of

    archive, out = Archive.open(place_of(out_folder)), PlainConsole()
    if not any(record.state is SlideState.FAILED for record in archive.ledger):
        out.print(f"no slide of {archive.path} stands failed: nothing to try again", soft_wrap=True)
        return
    again = {"until": None, "budget": None, "failed_only": True}
    run_night(last_config(out_folder, again | changed))


def last_config(out_folder: str, changed: Mapping[str, Any]) -> ArchiveConfig:
    """Options of an archive's last night, with some of them changed, and its cluster where that still answers.

    Raises:
        RunError: no archive there, or it has seen no night, or its slides are no longer where they were.
    """
    from tiling.archives.archive import Archive
    from tiling.errors import RunError
    from tiling.storage.place import place_of

    archive = Archive.open(place_of(out_folder))
    held = [event["facts"]["config"] for event in archive.ledger.events if event["event"] == "night"]
    nights = [config for config in held if not config["failed_only"]]
    if not nights:
        raise RunError(f"{out_folder} has seen no night yet: nothing says where its slides are; run overtile archive")
    options = {**nights[-1], **changed, "out": out_folder}
    if "ray_address" not in changed:
        options["ray_address"] = _cluster_that_answers(nights[-1].get("ray_address"))
    config = ArchiveConfig.model_validate(options)
    _expect_source(config, archive.path)
    return config


def _expect_source(config: ArchiveConfig, archive: Place) -> None:
    """Refuse a source that is gone, before anything starts; a moved archive, or moved slides, are pointed anew.

    Raises:
        RunError: the last night's source holds nothing to segment any more.
    """
    from tiling.archives.listing import find_slides
    from tiling.errors import RunError, SourceError

    try:
        next(find_slides(config.source, config.out, COLUMNS))
    except SourceError as error:
        command = f"overtile archive NEW-SOURCE --out {word(archive)} --model {word(config.model)}"
        raise RunError(
            f"{error}. It is where the last night of {archive} had its slides; if they were moved, one night from "
            f"their new place points the archive there, with the options of its nights: {command}"
        ) from error


def _cluster_that_answers(address: str | None) -> str | None:
    """The last night's Ray cluster, tried briefly: one that a batch job had started went with the job."""
    if address is None:
        return None
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CLUSTER_SECONDS):
            return address
    except (OSError, ValueError):
        PlainConsole(stderr=True).print(
            f"the last night's Ray cluster {address} is gone: this machine computes; --ray-address names another",
            soft_wrap=True,
        )
        return None


def run_night(config: ArchiveConfig) -> None:
    """Run a night with live progress, notify its end and print its summary."""
    quiet_environment()
    from flows.commands.terminal import run_with_progress
    from flows.nightly.notified import notified

    try:
        night = notified(config, partial(run_with_progress, PlainConsole(), "segment_archive", config))
    except StoppedError as error:
        if error.outcome is not None:
            print_night(cast("NightSummary", error.outcome))
        raise
    print_night(night)
    if code := exit_code_of(night, strict=config.strict):
        sys.exit(code)


def exit_code_of(night: NightSummary, *, strict: bool) -> int:
    """Exit code of a night that nobody stopped."""
    look = EXIT_LOOK if strict else 0
    codes = {Verdict.FAILED: EXIT_NEW_FAILURES, Verdict.BACKLOG: EXIT_BACKLOG, Verdict.LOOK: look, Verdict.COMPLETE: 0}
    return codes[night.verdict]


def print_night(night: NightSummary) -> None:
    """Say in a few lines how the night ended, what is new, what is left, and what to do about it."""
    out = PlainConsole()
    for warning in night.warnings:
        out.print(f"before: {warning}", soft_wrap=True)
    out.print(f"{night.verdict.value}: {night}", soft_wrap=True)
    _print_records(out, "new failures", night.new_failures)
    _print_records(out, "known failures", night.standing)
    _print_records(out, "left to a later night", [*night.of(SlideState.CHANGING), *night.of(SlideState.GONE)])
    if night.flags:
        out.print("to look at:")
        for slide, flags in [*night.flags.items()][:SHOWN]:
            out.print(f"  {slide}: {', '.join(flags)}", soft_wrap=True)
    if night.left.slides:
        out.print(f"{night.left}; the same command resumes", soft_wrap=True)
    for advice in night.advice:
        out.print(advice, soft_wrap=True)
    if night.standing:
        known = word(night.standing[0].slide)
        out.print(f"leave it so: overtile archive --out {word(night.archive)} --acknowledge {known}", soft_wrap=True)
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
    out, found = PlainConsole(), estimate.found
    out.print(
        f"to do: {len(estimate.slides)} slides, {estimate.pixels / 1e6:,.0f} MPix, {found.size_bytes / 1e9:.2f} GB "
        f"of files; {found.unchanged} unchanged, {len(found.settling)} still being written, "
        f"{len(found.refused) + len(estimate.unreadable)} not to be opened, {len(found.known_failures)} failed before, "
        f"{len(found.gone)} gone",
        soft_wrap=True,
    )
    for name, pixels in estimate.slides[:SHOWN]:
        begun = " left of it" if name in estimate.begun else ""
        out.print(f"  {name}: {pixels / 1e6:,.1f} MPix{begun}", soft_wrap=True)
    if len(estimate.slides) > SHOWN:
        out.print(f"  and {len(estimate.slides) - SHOWN} more")
    refused = [(slide.name, slide.refused or "") for slide in found.refused]
    for name, reason in [*refused, *estimate.unreadable][:SHOWN]:
        out.print(f"  {name}: {reason}", soft_wrap=True)
    unknown = "not known before a first night"
    out.print(f"time:  {format_seconds(estimate.seconds) if estimate.seconds is not None else unknown}")
    expected = f"{estimate.mask_bytes / 1e9:.2f} GB" if estimate.mask_bytes is not None else unknown
    out.print(f"masks: {expected}; at most {estimate.mask_bytes_at_most / 1e9:.2f} GB, if nothing compressed")
    if estimate.free_bytes is not None:
        out.print(f"free:  {estimate.free_bytes / 1e9:.1f} GB on the disk of {config.out}", soft_wrap=True)


def print_archive(out_folder: str) -> None:
    """Print an archive's state: slides by state, failures, nights that died or are under way, and what waits."""
    from tiling.archives.archive import Archive
    from tiling.archives.history import NightHistory
    from tiling.storage.place import place_of

    out, archive = PlainConsole(), Archive.open(place_of(out_folder))
    records = list(archive.ledger)
    counts = Counter(record.state for record in records)
    message = ", ".join(f"{counts[state]} {state.value}" for state in SlideState if counts[state])
    done = sum(record.pixels for record in records if record.state is SlideState.DONE)
    out.print(f"{archive.path}: {len(records)} slides with {archive.card.model}", soft_wrap=True)
    out.print(f"{message or 'none looked at yet'}; {done / 1e6:,.0f} MPix done")
    history = NightHistory.of(archive.ledger.events)
    if history.ended:
        out.print(f"night of {history.ended[-1].name}: {history.ended[-1].told}", soft_wrap=True)
    _print_open_nights(out, archive, history)
    failed = sorted((r for r in records if r.is_bad and not r.acknowledged), key=lambda record: record.slide)
    for record in failed[:SHOWN]:
        out.print(f"  {record.slide}: {record.reason}", soft_wrap=True)
    flags = flags_by_slide(records)
    if flags:
        out.print(f"{len(flags)} to look at:")
    for slide, why in [*flags.items()][:SHOWN]:
        out.print(f"  {slide}: {', '.join(why)}", soft_wrap=True)
    if seen := sum(record.is_bad and record.acknowledged for record in records):
        out.print(f"  and {seen} whose failure is acknowledged")


def _print_open_nights(out: PlainConsole, archive: Archive, history: NightHistory) -> None:
    """Nights that have not ended: one that is under way, and those that died, with what the last of them left."""
    open_ones = history.recent_deaths
    if not open_ones:
        if history.last is not None and (left := (history.last.facts or {}).get("left")):
            out.print(f"waits for the next night: {left}", soft_wrap=True)
        return
    last = open_ones[-1]
    is_running = not last.died_of and is_locked(archive.path)
    for night in open_ones[:-1] if is_running else open_ones:
        out.print(f"{night.death}; the next night resumes", soft_wrap=True)
    if is_running:
        out.print(f"a night is under way since {shown_time(last.began)}")
    mine = [record for record in archive.ledger if record.night == last.name]
    begun = sum(record.state is SlideState.BEGUN for record in mine)
    waiting = f"{max(0, last.todo - len(mine))} wait" if last.todo is not None else "how many wait isn't known"
    out.print(f"of its slides {len(mine) - begun} are over, {begun} begun, {waiting}")
