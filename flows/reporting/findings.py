"""Findings of a run in one line for each class: area, share, objects, and specks that were left out."""

from __future__ import annotations

from flows.reporting.areas import Area, known_areas
from tiling.errors import TilingError
from tiling.objects.record import built_objects
from tiling.runs.ledger import LedgerState
from tiling.runs.mask import BACKGROUND
from tiling.runs.run import Run


def findings(run: Run, state: LedgerState) -> tuple[str, ...]:
    """Of every class but the background, from the exported statistics; none where those aren't of this mask."""
    try:
        areas = known_areas(run, state)
        built = built_objects(run, state) if areas else None
    except (OSError, ValueError, KeyError, TilingError):
        return ()
    specks = built.specks if built is not None else {}
    classes = (area for area in areas if BACKGROUND < area.label < len(run.classes))
    return tuple(_line(area, specks.get(area.label, 0)) for area in classes)


def _line(area: Area, specks: int) -> str:
    share = f" ({area.share:.2%} of what was computed)" if area.share is not None else ""
    objects = "" if area.objects is None else f", {area.objects:,} object{'' if area.objects == 1 else 's'}"
    left_out = f", {specks:,} speck{'' if specks == 1 else 's'} left out" if specks else ""
    return f"{area.name}: {area.text}{share}{objects}{left_out}"
