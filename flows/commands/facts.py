"""Facts of `--json`, one function per object. docs/json.md names every field; a test holds the two together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flows.errors import StoppedError
from tiling.archives.flags import flags_by_slide
from tiling.archives.slide_record import SlideRecord, SlideState
from tiling.runs.ledger import TileState

if TYPE_CHECKING:
    from flows.nightly.forecast import Forecast as NightForecast
    from flows.nightly.night import NightSummary
    from flows.nightly.unended_nights import UnendedNights
    from flows.run.forecast import Forecast
    from flows.run.steps import Outcome
    from flows.run.verification_report import VerificationReport
    from tiling.archives.archive import Archive
    from tiling.archives.history import NightHistory, PastNight
    from tiling.runs.run import Run
    from tiling.storage.place import Place
    from unet_core.bundles.card import ModelCard

Facts = dict[str, Any]


def outcome_facts(outcome: Outcome) -> Facts:
    """Of `segment` and `rerun`."""
    return {
        "run": outcome.run,
        "complete": outcome.complete,
        "tiles": {
            "total": outcome.tiles,
            "done": outcome.done,
            "skipped": outcome.skipped,
            "failed": len(outcome.failed),
        },
        "failed": outcome.failed,
        "missing": outcome.missing,
        "remedy": outcome.remedy,
        "seconds": outcome.seconds,
        "megapixels_per_second": outcome.megapixels_per_second,
        "seconds_per_stage": outcome.seconds_per_stage,
        "limit": outcome.limit,
        "mask": f"{outcome.run}/mask.ome.zarr",
        "picture": f"{outcome.run}/overlay.png",
        "exports": f"{outcome.run}/exports",
    }


def run_facts(run: Run) -> Facts:
    """Of `status`, for a run."""
    state, card = run.ledger.fold(), run.card
    counts = {kind.name.lower(): state.count(kind) for kind in TileState}
    height, width = run.plan.mask.shape
    return {
        "run": run.path,
        "image": card.image.path,
        "model": card.model.name,
        "classes": [item.name for item in run.classes],
        "complete": state.is_complete,
        "tiles": {"total": run.plan.count, **counts},
        "grid": list(run.plan.shape),
        "core_px": run.plan.core_px,
        "mask_px": [height, width],
        "pixel_size": card.image.pixel_size,
        "failed": {run.plan.tile(index).name: record.reason or "" for index, record in state.failed.items()},
        "damaged": {run.plan.tile(index).name: record.reason or "" for index, record in state.damaged.items()},
        "missing": state.missing,
        "remedy": "" if state.is_complete else state.remedy(run.path),
        "megapixels_per_second": state.pixels / 1e6 / state.elapsed if state.elapsed > 0 else 0.0,
        "notes": card.notes,
    }


def archive_facts(
    archive: Archive, records: Sequence[SlideRecord], history: NightHistory, unended: UnendedNights | None
) -> Facts:
    """Of `status`, for an archive."""
    counts = Counter(record.state for record in records)
    last = history.ended[-1] if history.ended else None
    return {
        "archive": archive.path,
        "model": archive.card.model,
        "slides": {"total": len(records), **{state.value: counts[state] for state in SlideState}},
        "pixels": sum(record.pixels for record in records if record.state is SlideState.DONE),
        "failed": _reasons(record for record in records if record.is_bad and not record.acknowledged),
        "acknowledged": _reasons(record for record in records if record.is_bad and record.acknowledged),
        "to_look_at": _listed(flags_by_slide(records)),
        "last_night": None if last is None else _last_night_facts(last),
        "unended": None if unended is None else asdict(unended),
    }


def _last_night_facts(night: PastNight) -> Facts:
    facts = night.facts or {}
    return {
        "name": night.name,
        "summary": night.summary,
        "verdict": facts.get("verdict"),
        "left": facts.get("left") or None,
    }


def none_failed_facts(archive: Archive) -> Facts:
    """Of `rerun` for an archive of which no slide stands failed: no night began."""
    return {"archive": archive.path, "night": None, "new_failures": {}, "failed": {}}


def acknowledged_facts(archive: Place, records: Sequence[SlideRecord]) -> Facts:
    """Of `archive --acknowledge`."""
    return {"archive": archive, "acknowledged": _reasons(records)}


def night_facts(night: NightSummary) -> Facts:
    """Of `archive`, and of `rerun` for an archive."""
    return {
        "archive": night.archive,
        "night": night.name,
        "complete": night.complete,
        "verdict": night.verdict,
        "slides": {
            **{state.value: len(night.of(state)) for state in SlideState},
            "failed": len(night.failed),
            "unchanged": night.unchanged,
            "waiting": night.waiting,
        },
        "failed": _reasons(night.failed),
        "new_failures": _reasons(night.new_failures),
        "known_failures": _reasons(night.standing),
        "acknowledged": _reasons(night.acknowledged),
        "later": _reasons([*night.of(SlideState.CHANGING), *night.of(SlideState.GONE)]),
        "no_longer_in_the_source": list(night.missing),
        "to_look_at": _listed(night.flags),
        "left": asdict(night.left),
        "advice": list(night.advice),
        "warnings": list(night.warnings),
        "ended_by": night.ended_by,
        "seconds": night.seconds,
        "pixels": night.pixels,
        "megapixels_per_second": night.megapixels_per_second,
        "busy_share": night.busy_share,
        "left_seconds": night.left_seconds,
        "page": night.page,
        "table": f"{night.archive}/nights/{night.name}.csv",
    }


def night_forecast_facts(estimate: NightForecast) -> Facts:
    """Of `archive --dry-run`."""
    found = estimate.found
    return {
        "slides": [{"slide": name, "pixels": pixels} for name, pixels in estimate.slides],
        "unreadable": dict(estimate.unreadable),
        "unchanged": found.unchanged,
        "settling": len(found.settling),
        "refused": {slide.name: slide.refused or "" for slide in found.refused},
        "begun": sorted(estimate.begun),
        "known_failures": len(found.known_failures),
        "gone": len(found.gone),
        "no_longer_in_the_source": list(found.missing),
        "pixels": estimate.pixels,
        "seconds": estimate.seconds,
        "mask_bytes": estimate.mask_bytes,
        "mask_bytes_at_most": estimate.mask_bytes_at_most,
        "free_bytes": estimate.free_bytes,
    }


def forecast_facts(forecast: Forecast) -> Facts:
    """Of `segment --dry-run`."""
    return asdict(forecast)


def verification_facts(report: VerificationReport) -> Facts:
    """Of `verify`: what the run's `verification.json` holds."""
    return {**asdict(report), "sound": report.is_sound, "differing": report.differing}


def model_facts(card: ModelCard) -> Facts:
    """A bundle's line of `models list`."""
    return {
        "name": card.name,
        "kind": "model",
        "description": card.description,
        "classes": [item.name for item in card.classes],
        "bands": list(card.bands),
        "dtype": card.dtype,
        "pixel_size_um": card.pixel_size_um,
        "license": card.license,
    }


def facts_at_stop(error: Exception) -> Facts:
    """Facts of a night that somebody stopped: what it had done until then."""
    if not isinstance(error, StoppedError) or error.outcome is None:
        return {}
    from flows.nightly.night import NightSummary

    return night_facts(error.outcome) if isinstance(error.outcome, NightSummary) else {}


def _reasons(records: Iterable[SlideRecord]) -> dict[str, str]:
    return {record.slide: record.reason or "" for record in records}


def _listed(flags: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    return {slide: list(why) for slide, why in flags.items()}
