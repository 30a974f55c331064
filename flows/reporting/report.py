"""`report.html`: what a person looks at afterwards, in one file that needs no network.

It is made from the run folder alone, so the same folder gives the same page. Everything in it that comes from outside
(names of files and classes, reasons of failures, cards) is text: control characters are written out and markup escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from PIL import Image

from flows.reporting.areas import Areas
from flows.reporting.bottleneck import StageTimes
from flows.reporting.objects import object_figures
from flows.reporting.page import render
from flows.reporting.tile_grid import TileGrid
from tiling.errors import TilingError
from tiling.export.close_ups import close_up_paths
from tiling.export.export_run import EXPORTED
from tiling.runs.ledger import PLANNED, STITCHED, LedgerState, TileState
from tiling.runs.run import Run
from tiling.source import ImageSource
from tiling.storage.place import Place, pasted, place_of, write_atomic
from unet_core.bundles.card import ModelCard, read_card
from unet_core.errors import UnetCoreError

REPORT_NAME = "report.html"
PICTURE_BYTES = 600_000
FAILED_SHOWN = 200
SESSIONS_SHOWN = 12

_WORK = {
    "stage": ("staging", "decoding the image, writing overlapping tiles"),
    "read": ("reading", "loading a tile"),
    "compute": ("computing", "the neural network"),
    "write": ("writing", "labels to the mask"),
}


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage of the tiles' walk."""

    name: str
    meaning: str
    seconds: float
    share: float  # of its workers' time


def write_report(
    run: Run,
    state: LedgerState | None = None,
    source: ImageSource | None = None,
    encoded: Mapping[str, str | None] | None = None,
) -> None:
    """Write the page into the run folder.

    `state` and `source` are the folded ledger and the image as it was segmented, `encoded` what `encoded_pictures`
    gives, where they are at hand.

    Raises:
        DiskError: the disk is full or can't be written.
    """
    write_atomic(run.path / REPORT_NAME, render_report(run, state, source, encoded).encode())


def render_report(
    run: Run,
    state: LedgerState | None = None,
    source: ImageSource | None = None,
    encoded: Mapping[str, str | None] | None = None,
) -> str:
    """The page of the run as it is now."""
    known = run.ledger.fold() if state is None else state
    return render(REPORT_NAME, _facts(run, known, source, encoded_pictures(run) if encoded is None else encoded))


def encoded_pictures(run: Run, drawn: Mapping[str, Image.Image] | None = None) -> dict[str, str | None]:
    """Each picture of the run as the page shows it, by its place; None of one that isn't there.

    `drawn` are all that there are, by their place, where they are at hand.
    """
    places = [str(run.overlay_path), *(str(path) for _, path in close_up_paths(run))]
    if drawn is not None:
        return {place: _encoded(drawn[place]) if place in drawn else None for place in places}
    return {place: _picture(place_of(place)) for place in places}


def _facts(
    run: Run, state: LedgerState, source: ImageSource | None, encoded: Mapping[str, str | None]
) -> dict[str, Any]:
    times = StageTimes.of(state)
    areas = Areas.of(run, state, source)
    close_ups = [(shown, encoded[str(path)]) for shown, path in close_up_paths(run)]
    return {
        "card": run.card,
        "name": run.path.name,
        "path": str(run.path),
        "image_name": run.card.image.path.rstrip("/").rpartition("/")[2],
        "tiles": run.plan.count,
        "mask_shape": run.plan.mask.shape,
        "counts": {kind.name.lower(): state.count(kind) for kind in TileState},
        "headline": _headline(state),
        "picture": encoded[str(run.overlay_path)],
        "close_ups": [(shown, picture) for shown, picture in close_ups if picture],
        "view": f"overtile view {pasted(run.path)}",
        "areas": areas,
        "objects": object_figures(run, state, areas),
        "grid": TileGrid.of(state.states, run.plan.shape),
        "times": times,
        "rate": state.pixels / 1e6 / times.wall if times.wall > 0 else 0.0,
        "stages": list(_stages(times)),
        "around": list(_around(state)),
        "sessions": [event for event in state.events if event.name == "inferred"][-SESSIONS_SHOWN:],
        "foreground": _foreground(state),
        "last_time": state.last_time,
        "failed": [*_failed(run, state)],
        "failed_left_out": max(0, len(state.failed) + len(state.damaged) - FAILED_SHOWN),
        "rerun": f"overtile rerun {pasted(run.path)}",
        "model": _model_card(run),
        "notes": {name: _note(value) for name, value in run.card.notes.items()},
    }


def _headline(state: LedgerState) -> tuple[str, str]:
    """The run in a few words, and the kind of mark that goes with them."""
    failed, damaged, pending = len(state.failed), len(state.damaged), state.count(TileState.PENDING)
    if failed or damaged:
        parts = [f"{count} {name}" for count, name in ((failed, "failed"), (damaged, "damaged")) if count]
        return f"{' and '.join(parts)} {'tile' if failed + damaged == 1 else 'tiles'}", "failed"
    if pending:
        return f"{pending:,} tiles to do", "pending"
    return ("complete", "done") if state.is_complete else (state.missing, "pending")


def _picture(path: Place) -> str | None:
    """A picture of the run as a data URI of bounded size; None where there is none that can be read."""
    try:
        with Image.open(BytesIO(path.read_bytes())) as overlay:
            return _encoded(overlay)
    except (OSError, ValueError, TilingError, Image.DecompressionBombError):
        return None


def _encoded(picture: Image.Image) -> str:
    shown, encoded = picture.convert("RGB"), b""
    for quality in (82, 65, 45, 20):
        buffer = BytesIO()
        shown.save(buffer, "JPEG", quality=quality)  # WebP takes eight times as long for a seventh less
        encoded = buffer.getvalue()
        if len(encoded) <= PICTURE_BYTES:
            break
    return f"data:image/jpeg;base64,{base64.b64encode(encoded).decode()}"


def _stages(times: StageTimes) -> Iterator[StageRow]:
    for stage, (name, meaning) in _WORK.items():
        if stage in times.seconds:
            yield StageRow(name, meaning, times.seconds[stage], times.share(stage))


def _around(state: LedgerState) -> Iterator[tuple[str, float]]:
    """Stages before the first tile and after the last one, with their seconds; each as it was done last."""
    seen = ((PLANNED, "planning"), (STITCHED, "pyramid of the mask"))
    found = [(name, event) for kind, name in seen if (event := state.last_event(kind)) is not None]
    exported = {event.facts["format"]: event for event in state.events if event.name == EXPORTED}
    found += [(f"export as {kind}", event) for kind, event in exported.items()]
    # Earlier versions didn't record how long it took.
    yield from ((name, event.facts["seconds"]) for name, event in found if "seconds" in event.facts)


def _failed(run: Run, state: LedgerState) -> Iterator[dict[str, object]]:
    """The first failed and damaged tiles, in the grid's order."""
    named = {**state.failed, **state.damaged}
    for index in sorted(named)[:FAILED_SHOWN]:
        record = named[index]
        yield {
            "tile": run.plan.tile(index).name,
            "state": record.state.name.lower(),
            "reason": record.reason or "",
            "attempts": record.attempts,
        }


def _foreground(state: LedgerState) -> str:
    planned = state.last_event(PLANNED)
    return str(planned.facts.get("foreground", "")) if planned else ""


def _model_card(run: Run) -> ModelCard | None:
    """The bundle's own card, where it still lies where the run found it."""
    reference = run.card.model.reference
    try:
        if not reference.startswith(".") and "://" not in reference:
            return read_card(reference)
        # It lies in the run folder or in an object store. This loads torch, which all else here does without.
        from flows.worker.model import local_bundle, model_of

        with local_bundle(model_of(run)) as folder:
            return read_card(folder)
    except (UnetCoreError, TilingError, OSError):
        return None


def _note(value: object) -> str:
    return f"{value:.3%} of labels" if isinstance(value, float) else str(value)
