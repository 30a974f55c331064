"""`overtile archive`: what is new or changed in an archive of slides, night after night."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from flows.commands.archive_text import print_forecast, print_night
from flows.commands.exit_codes import EXIT_BACKLOG, EXIT_LOOK, EXIT_NEW_FAILURES
from flows.commands.facts import acknowledged_facts, night_facts, night_forecast_facts, none_failed_facts
from flows.commands.options import takes
from flows.commands.output import console, print_json
from flows.config.archive import COLUMNS, ArchiveConfig
from flows.errors import StoppedError
from flows.lifecycle.environment import expect_cluster, quiet_environment
from flows.nightly.verdict import Verdict
from flows.reporting.escaping import PlainConsole
from tiling.archives.slide_record import SlideRecord, SlideState
from tiling.escaping import some, word
from tiling.storage.place import Place, pasted

if TYPE_CHECKING:
    from flows.nightly.night import NightSummary

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
        expect_cluster()
        from flows.archive import dry_run as foresee

        estimate = foresee(config)
        print_forecast(estimate, config)
        print_json(night_forecast_facts(estimate))
        return
    run_night(config)


def acknowledge_failures(out_folder: str, slides: Sequence[str]) -> None:
    """Store that somebody has seen why slides failed and leaves them so."""
    from tiling.archives.acknowledge import acknowledge
    from tiling.storage.place import place_of

    place, out = place_of(out_folder), console()
    records: list[SlideRecord] = []
    for slide in slides:
        (record,) = acknowledge(place, [slide])
        records.append(record)
        out.print(f"acknowledged: {slide}: {record.reason}; named again when its file changes", soft_wrap=True)
    print_json(acknowledged_facts(place, records))


def rerun_archive(out_folder: str, **changed: Any) -> None:
    """Try an archive's failed slides again, as its last night was asked for; nothing starts where none failed."""
    from tiling.archives.archive import Archive
    from tiling.storage.place import place_of

    archive, out = Archive.open(place_of(out_folder)), console()
    if not any(record.state is SlideState.FAILED for record in archive.ledger):
        refused = sorted(record.slide for record in archive.ledger if record.state is SlideState.REFUSED)
        are = "is" if len(refused) == 1 else "are"
        others = f"; {len(refused)} {are} not opened at all ({some(refused)})" if refused else ""
        out.print(f"no slide of {archive.path} stands failed: nothing to try again{others}", soft_wrap=True)
        print_json(none_failed_facts(archive))
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
        raise RunError(
            f"{out_folder} has seen no night yet: nothing says where its slides are; begin one: overtile archive "
            f"SOURCE --out {pasted(archive.path)}"
        )
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
    from tiling.archives.listing import expect_slides
    from tiling.errors import RunError, SourceError

    try:
        expect_slides(config.source, config.out, COLUMNS)
    except SourceError as error:
        command = f"overtile archive NEW-SOURCE --out {pasted(archive)} --model {word(config.model)}"
        raise RunError(
            f"{error}. It is where the last night of {archive} had its slides; if they were moved, one night from "
            f"their new place points the archive there, with the options of its nights: {command}{_label_words(config)}"
        ) from error


def _label_words(config: ArchiveConfig) -> str:
    """Options that change labels as they are typed, without which the archive would be refused as another's."""
    words: list[str] = []
    for name, value in config.label_options().items():
        if value == ArchiveConfig.model_fields[name].get_default(call_default_factory=True):
            continue
        option, _, off = ArchiveConfig.cli(name).flag.partition("/")
        if isinstance(value, bool):
            words.append(option if value else off or f"--no-{option.removeprefix('--')}")
        elif isinstance(value, str | int | float):
            words.append(f"{option} {word(value)}")
    return "".join(f" {each}" for each in words)


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
    expect_cluster()
    from flows.commands.terminal import run_with_progress
    from flows.nightly.notified import notified
    from tiling.archives.listing import expect_slides

    def hold() -> NightSummary:
        # The flow refuses the same: here it is before Ray and Prefect have begun to start.
        expect_slides(config.source, config.out, COLUMNS)
        return run_with_progress(console(), "segment_archive", config)

    try:
        night = notified(config, hold)
    except StoppedError as error:
        if error.outcome is not None:
            print_night(cast("NightSummary", error.outcome))
        raise  # its facts are in the object that says so
    print_night(night)
    print_json(night_facts(night))
    if code := exit_code_of(night, strict=config.strict):
        sys.exit(code)


def exit_code_of(night: NightSummary, *, strict: bool) -> int:
    """Exit code of a night that nobody stopped."""
    look = EXIT_LOOK if strict else 0
    codes = {Verdict.BACKLOG: EXIT_BACKLOG, Verdict.LOOK: look, Verdict.COMPLETE: 0}
    return EXIT_NEW_FAILURES if night.verdict.is_failure else codes[night.verdict]
