"""Colours of states and classes, of Okabe and Ito's palette, which stays apart in every kind of colour vision.

https://jfly.uni-koeln.de/color/ (Color Universal Design, M. Okabe and K. Ito).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tiling.runs.ledger import TileState
from tiling.runs.ome_metadata import LabelClass

SKY, ORANGE, GREEN, PURPLE, YELLOW, BLUE, VERMILION = OKABE_ITO = (
    "#56b4e9",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#f0e442",
    "#0072b2",
    "#d55e00",
)

STATE_COLORS = {
    TileState.DONE: GREEN,
    TileState.SKIPPED: "#9aa3ad",
    TileState.FAILED: VERMILION,
    TileState.DAMAGED: ORANGE,
    TileState.PENDING: BLUE,
}

STATE_NAMES = {
    TileState.DONE: "done",
    TileState.SKIPPED: "skipped as empty",
    TileState.FAILED: "failed",
    TileState.DAMAGED: "damaged",
    TileState.PENDING: "to do",
}

SEVERITY = (TileState.FAILED, TileState.DAMAGED, TileState.PENDING, TileState.DONE, TileState.SKIPPED)
"""Which state a square of tiles shows where it stands for several: the first of these that it holds."""

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_UNKNOWN = "#808080"


def safe_color(text: str) -> str:
    """The colour, where it is one: a card from elsewhere may hold anything."""
    return text if _COLOR.fullmatch(text) else _UNKNOWN


def class_colors(classes: Sequence[LabelClass], *, safe: bool = False) -> Iterator[str]:
    """One colour per label: the model's own, or with `safe` those that everybody can tell apart."""
    for label, item in enumerate(classes):
        yield OKABE_ITO[(label - 1) % len(OKABE_ITO)] if safe and label else safe_color(item.color)
