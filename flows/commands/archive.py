"""`overtile archive`: what is new or changed in an archive of slides, night after night."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.facts import archive_facts, night_facts, night_forecast_facts
from flows.commands.options import (
    takes,
)
from flows.commands.output import console, print_json
from flows.config.archive import ArchiveConfig
from flows.lifecycle.environment import expect_cluster, quiet_environment
from flows.reporting.progress import format_seconds
from tiling.archives.slide_ledger import SlideState

if TYPE_CHECKING:
    from flows.nightly.forecast import Forecast
    from flows.nightly.night import NightSummary

EXIT_FAILED_SLIDES = 3
SHOWN = 20

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, how long, how much space.")]


@takes(ArchiveConfig)
def archive_command(*, dry_run: DryRunOption = False, **asked: Any) -> None:
    """Segment what is new or changed in an archive of slides; the same command resumes."""
    config = ArchiveConfig.model_validate(asked)
    if dry_run:
        quiet_environment()
        expect_cluster()
        from flows.archive import dry_run as foresee

        estimate = foresee(config)
        print_forecast(estimate, config)
        print_json(night_forecast_facts(estimate))
        return
    run_night(config)


def rerun_archive(out_folder: str, **changed: Any) -> None:
    """Try an archive's failed slides again, as its last night was asked for."""
    again = {"until": None, "budget": None, "failed_only": True}
    run_night(last_config(out_folder, again | changed))


def last_config(out_folder: str, changed: Mapping[str, Any]) -> ArchiveConfig:
    """Options of an archive's last night, with some of them changed.

    Raises:
        RunError: no archive there, or it has seen no night.
    """
    from tiling.archives.archive import Archive
    from tiling.errors import RunError
    from tiling.storage.place import place_of

    archive = Archive.open(place_of(out_folder))
    held = [event["facts"]["config"] for event in archive.ledger.events if event["event"] == "night"]
    nights = [config for config in held if not config["failed_only"]]
    if not nights:
        raise RunError(f"{out_folder} has seen no night yet: nothing says where its slides are; run overtile archive")
    return ArchiveConfig.model_validate({**nights[-1], **changed, "out": out_folder})


def run_night(config: ArchiveConfig) -> None:
    """Run a night with live progress and print its summary."""
    quiet_environment()
    from flows.commands.terminal import run_with_progress

    night: NightSummary = run_with_progress(console(), "segment_archive", config)
    print_night(night)
    print_json(night_facts(night))
    if not night.complete:
        sys.exit(EXIT_FAILED_SLIDES)


def print_night(night: NightSummary) -> None:
    """Say in a few lines how the night ended, and what to do about failed slides."""
    out = console()
    out.print(str(night), soft_wrap=True)
    for record in night.failed[:SHOWN]:
        out.print(f"  {record.slide}: {record.reason}", soft_wrap=True)
    if len(night.failed) > SHOWN:
        out.print(f"  and {len(night.failed) - SHOWN} more")
    for record in [*night.of(SlideState.CHANGING)[:SHOWN], *night.of(SlideState.GONE)[:SHOWN]]:
        out.print(f"  {record.slide}: {record.reason}", soft_wrap=True)
    if night.waiting or night.of(SlideState.BEGUN):
        out.print(f"the rest takes about {format_seconds(night.left_seconds)}; the same command resumes")
    if night.failed:
        out.print(f"try them again with: {night.rerun_command}", soft_wrap=True)
    out.print(f"page:    {night.archive}/nights/{night.name}.html", soft_wrap=True)
    out.print(f"table:   {night.archive}/nights/{night.name}.csv", soft_wrap=True)


def print_forecast(estimate: Forecast, config: ArchiveConfig) -> None:
    """Print a forecast: what would be done, how long it takes and how much space."""
    out, found = console(), estimate.found
    out.print(
        f"to do: {len(estimate.slides)} slides, {estimate.pixels / 1e6:,.0f} MPix, {found.size_bytes / 1e9:.2f} GB "
        f"of files; {found.unchanged} unchanged, {len(found.settling)} still being written, "
        f"{len(found.refused) + len(estimate.unreadable)} not to be opened, {len(found.known_failures)} failed before, "
        f"{len(found.gone)} gone",
        soft_wrap=True,
    )
    for name, pixels in estimate.slides[:SHOWN]:
        out.print(f"  {name}: {pixels / 1e6:,.1f} MPix", soft_wrap=True)
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
    """Print an archive's state: how many slides are in which state, which failed, and how the last night ended."""
    from tiling.archives.archive import Archive
    from tiling.storage.place import place_of

    out, archive = console(), Archive.open(place_of(out_folder))
    records = list(archive.ledger)
    counts = Counter(record.state for record in records)
    message = ", ".join(f"{counts[state]} {state.value}" for state in SlideState if counts[state])
    done = sum(record.pixels for record in records if record.state is SlideState.DONE)
    out.print(f"{archive.path}: {len(records)} slides with {archive.card.model}", soft_wrap=True)
    out.print(f"{message or 'none looked at yet'}; {done / 1e6:,.0f} MPix done")
    mornings = [event["facts"] for event in archive.ledger.events if event["event"] == "morning"]
    if mornings:
        out.print(f"night of {mornings[-1]['night']}: {mornings[-1]['told']}", soft_wrap=True)
    failed = sorted((r for r in records if r.state is SlideState.FAILED), key=lambda record: record.slide)
    for record in failed[:SHOWN]:
        out.print(f"  {record.slide}: {record.reason}", soft_wrap=True)
    print_json(archive_facts(archive, records, mornings))
