"""Whether a run's mask still is what its ledger says: bit rot, lost files, a pyramid that shows something else."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from tiling.geometry import Box
from tiling.ledger import TileState
from tiling.plan import Tile
from tiling.probabilities import Probabilities
from tiling.pyramid import pixel_digest
from tiling.run import Run
from tiling.stitching import BACKGROUND, NOT_PREDICTED, Mask, majority

THREADS = 2
AHEAD = 64

UNREADABLE = (OSError, ValueError, RuntimeError)
"""What Zarr and its codecs raise for bytes that are not what was written."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look at one tile's shard gave; `fault` is None where it is as it was written."""

    tile: int
    fault: str | None


def check_shards(run: Run) -> Iterator[Finding]:
    """Compare the mask with the ledger, tile by tile, in the plan's order.

    A tile that is done or skipped must have the digest that its record names; a failed one must hold 'not
    predicted' everywhere. Of probabilities no digest is kept: those of a done tile must decode, and be there where it
    holds a class. Tiles to do, and those that are known to be damaged, are left out. Reads every shard once, and
    holds a few at a time.
    """
    state, mask = run.ledger.fold(), run.open_mask(read_only=True)
    probabilities = run.open_probabilities(read_only=True)
    digests = _digests(run)
    known = state.indices(TileState.DONE, TileState.SKIPPED, TileState.FAILED)

    def look(index: int) -> Finding:
        tile = run.plan.tile(index)
        expected = None if state.states[index] == TileState.FAILED else digests.get(index)
        fault = _fault(mask, tile, expected)
        if fault is None and probabilities is not None and state.states[index] == TileState.DONE:
            fault = _fault_in_probabilities(mask, probabilities, tile)
        return Finding(index, fault)

    with ThreadPoolExecutor(THREADS) as threads:
        waiting = iter(known.tolist())
        while batch := list(islice(waiting, AHEAD)):
            yield from threads.map(look, batch)


def check_pyramid(run: Run, damaged: NDArray[np.bool_] | None = None) -> Iterator[tuple[int, Box]]:
    """Shards of the coarser levels that don't show the majority of the level below, as (level, box).

    With `damaged`, a flag per tile, what lies above those tiles is left out: it is built again with them.
    """
    mask = run.open_mask(read_only=True)
    above = [] if damaged is None else [run.plan.tile(int(index)).valid for index in np.flatnonzero(damaged)]
    for level in range(1, len(mask.levels)):
        known_wrong = set(mask.pyramid.shards_above(level, above))
        for box in mask.pyramid.shards(level):
            if box not in known_wrong and not _shows_majority(mask, level, box):
                yield level, box


def _digests(run: Run) -> dict[int, str]:
    """The digest that each tile's last record names."""
    found: dict[int, str] = {}
    for record in run.ledger.records():
        if record.digest is not None:
            found[record.tile] = record.digest
    return found


def _fault(mask: Mask, tile: Tile, expected: str | None) -> str | None:
    try:
        labels = mask.read(tile.valid)
    except UNREADABLE as error:
        return f"its shard can't be read ({_first_line(error)})"
    if expected is None:
        return None if (labels == NOT_PREDICTED).all() else "it failed, and its shard holds labels all the same"
    if pixel_digest(labels) == expected:
        return None
    return "its shard is missing or empty" if (labels == NOT_PREDICTED).all() else "its labels are not those it wrote"


def _fault_in_probabilities(mask: Mask, probabilities: Probabilities, tile: Tile) -> str | None:
    try:
        has_some = probabilities.read(tile.valid).any()
    except UNREADABLE as error:
        return f"its probabilities can't be read ({_first_line(error)})"
    # A shard of zeros alone isn't stored, which is right where no class is near: there the loss of one shows nothing.
    if has_some or not ((labels := mask.read(tile.valid)) != BACKGROUND)[labels != NOT_PREDICTED].any():
        return None
    return "its probabilities are missing or empty"


def _first_line(error: Exception) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"


def _shows_majority(mask: Mask, level: int, box: Box) -> bool:
    try:
        return np.array_equal(mask.read(box, level), majority(mask.read(mask.pyramid.below(level, box), level - 1)))
    except UNREADABLE:
        return False
