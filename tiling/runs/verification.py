"""Verification of a run's mask against its ledger: bit rot, lost files, a pyramid that shows something else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from tiling.geometry import Box
from tiling.plan import Tile
from tiling.runs.label_counts import tile_counts
from tiling.runs.ledger import LedgerState, TileState
from tiling.runs.mask import BACKGROUND, NOT_PREDICTED, Mask
from tiling.runs.probabilities import Probabilities
from tiling.runs.pyramid import Pyramid, pixel_digest
from tiling.runs.run import Run
from tiling.storage.generator_threads import GeneratorThreads

THREADS = 2
AHEAD = 64

UNREADABLE = (OSError, ValueError, RuntimeError)
"""What Zarr and its codecs raise for bytes that are not what was written."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of checking one tile's shards.

    `fault` is None where they are as they were written; `unchecked` names what has no digest to check it by.
    """

    tile: int
    fault: str | None
    unchecked: str | None = None


def check_shards(run: Run, state: LedgerState | None = None) -> Iterator[Finding]:
    """Compare the mask and the probabilities with the ledger, tile by tile, in the plan's order.

    A done tile and a skipped one must have the digests that their records name, and a done one the counts; a failed one
    'not predicted' everywhere, and neither of the last two a probability. Where a record names none, which runs of
    earlier versions do of probabilities, these must decode, and be there where the tile holds a class. Tiles to do, and
    those that are known to be damaged, are left out. Reads every shard once, and holds a few at a time. `state` is the
    ledger, folded with what tiles hold; None folds it.
    """
    state = run.ledger.fold(held=True) if state is None else state
    mask = run.open_mask(read_only=True)
    probabilities = run.open_probabilities(read_only=True)
    known = state.indices(TileState.DONE, TileState.SKIPPED, TileState.FAILED)

    def look(index: int) -> Finding:
        tile, kind = run.plan.tile(index), TileState(state.states[index])
        of_labels, of_probabilities = _digests(state, index)
        fault, unchecked = _fault(mask, tile, kind, of_labels, _counts(state, index))
        if fault is None and probabilities is not None:
            fault, more = _fault_in_probabilities(mask, probabilities, tile, kind, of_probabilities)
            unchecked = unchecked or more
        return Finding(index, fault, unchecked)

    with GeneratorThreads(THREADS) as threads:
        waiting = iter(known.tolist())
        while batch := list(islice(waiting, AHEAD)):
            yield from threads.map(look, batch)


def check_pyramid(run: Run, damaged: NDArray[np.bool_] | None = None) -> Iterator[tuple[int, Box]]:
    """Shards of the mask's coarser levels that don't show the majority of the level below, as (level, box).

    With `damaged`, a flag per tile, what lies above those tiles is left out: it is built again with them.
    """
    return _not_shown(run, run.open_mask(read_only=True).pyramid, damaged)


def check_probability_pyramid(run: Run, damaged: NDArray[np.bool_] | None = None) -> Iterator[tuple[int, Box]]:
    """The same for the probabilities' means; nothing where the run keeps none."""
    kept = run.open_probabilities(read_only=True)
    return iter(()) if kept is None else _not_shown(run, kept.pyramid, damaged)


def _not_shown(run: Run, pyramid: Pyramid, damaged: NDArray[np.bool_] | None) -> Iterator[tuple[int, Box]]:
    above = [] if damaged is None else [run.plan.tile(int(index)).valid for index in np.flatnonzero(damaged)]
    for level in range(1, len(pyramid.levels)):
        known_wrong = set(pyramid.shards_above(level, above))
        for box in pyramid.shards(level):
            if box not in known_wrong and not _shows_below(pyramid, level, box):
                yield level, box


def _shows_below(pyramid: Pyramid, level: int, box: Box) -> bool:
    try:
        return pyramid.shows_below(level, box)
    except UNREADABLE:
        return False


def _digests(state: LedgerState, index: int) -> tuple[str | None, str | None]:
    """The digests of labels and probabilities that a tile's record names; of a failed tile none."""
    assert state.held is not None
    labels, probabilities = (state.held[index, part].tobytes() for part in (slice(1, 17), slice(17, 33)))
    if not any(labels) or state.states[index] == TileState.FAILED:
        return None, None
    return labels.hex(), probabilities.hex() if any(probabilities) else None


def _counts(state: LedgerState, index: int) -> dict[int, int] | None:
    """Pixels by label that a done tile's record names; None where it names none."""
    if state.counts is None or state.states[index] != TileState.DONE:
        return None
    return {label: int(counts[index]) for label, counts in state.counts.items() if counts[index]} or None


def _fault(
    mask: Mask, tile: Tile, kind: TileState, expected: str | None, counts: dict[int, int] | None
) -> tuple[str | None, str | None]:
    """The fault of a tile's labels, and what could not be checked."""
    try:
        labels = mask.read(tile.valid)
    except UNREADABLE as error:
        return f"its shard can't be read ({_first_line(error)})", None
    is_empty = bool((labels == NOT_PREDICTED).all())
    if kind is TileState.FAILED:
        return (None if is_empty else "it failed, and its shard holds labels all the same"), None
    if kind is TileState.SKIPPED and expected is None:
        is_right = bool((labels == BACKGROUND).all())
    elif expected is None:
        return ("its shard is missing or empty", None) if is_empty else (None, "labels")
    else:
        is_right = pixel_digest(labels) == expected
    if is_right:
        differs = counts is not None and counts != tile_counts(labels)
        return ("its record counts other labels than it has" if differs else None), None
    return "its shard is missing or empty" if is_empty else "its labels are not those it wrote", None


def _fault_in_probabilities(
    mask: Mask, probabilities: Probabilities, tile: Tile, kind: TileState, expected: str | None
) -> tuple[str | None, str | None]:
    """The same of its probabilities. A shard of zeros alone isn't stored, and reads as what it is."""
    try:
        found = probabilities.read(tile.valid)
    except UNREADABLE as error:
        return f"its probabilities can't be read ({_first_line(error)})", None
    if kind is not TileState.DONE:
        return ("it has probabilities and was not computed" if found.any() else None), None
    if expected is not None:
        if pixel_digest(found) == expected:
            return None, None
        return ("its probabilities are not those it wrote" if found.any() else _LOST), None
    if found.any() or not ((labels := mask.read(tile.valid)) != BACKGROUND)[labels != NOT_PREDICTED].any():
        return None, "probabilities"
    return _LOST, None


_LOST = "its probabilities are missing or empty"


def _first_line(error: Exception) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"
