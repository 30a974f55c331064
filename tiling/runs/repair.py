"""Repair of a run's images whose metadata was lost: the tiles that went with it are computed or filled again."""

from __future__ import annotations

from functools import partial

from tiling.errors import TilingError
from tiling.plan import Tile
from tiling.runs.ledger import PYRAMID_DAMAGED, LedgerState, TileRecord, TileState
from tiling.runs.mask import BACKGROUND, Mask
from tiling.runs.probabilities import Probabilities
from tiling.runs.run import Run
from tiling.runs.skipped import Skipped


def fill_skipped(run: Run, mask: Mask, tile: Tile, state: LedgerState) -> bool:
    """Write again what a skipped tile holds; False where that can't be known, since the image can't be read."""
    if not state.empty_of(tile.index).no_data:
        mask.fill(tile, BACKGROUND)
        return True
    try:
        with run.open_verified() as source:
            mask.write(tile, source.read(lambda image: Skipped.of(run, image, tile)).labels)
    except (TilingError, OSError):
        return False
    return True


def create_images(run: Run, state: LedgerState) -> None:
    """Make the mask and the probabilities, or what is lost of their metadata; no shard that is there is touched.

    Whether shards are lost as well is looked at then alone: it takes a listing of them all. `state` is the folded
    ledger, which takes in what is marked.
    """
    run.create_mask(partial(_put_back, run, state))
    run.create_probabilities(partial(_put_back, run, state))


def _put_back(run: Run, state: LedgerState, image: Mask | Probabilities) -> None:
    """Mark what is lost before the metadata is there: a driver that is killed in between begins with it again."""
    known = state.indices(TileState.DONE, TileState.SKIPPED).tolist()
    for tile in image.pyramid.lost(run.plan.tile(index) for index in known):
        if state.empty_of(tile.index).no_data == tile.valid.area:
            continue  # it never had a shard
        is_done = state.states[tile.index] == TileState.DONE
        if not is_done and isinstance(image, Mask) and fill_skipped(run, image, tile, state):
            continue
        if is_done or isinstance(image, Mask):
            reason = f"its shard was lost with metadata of {image.path.name}"
            record = TileRecord(tile.index, TileState.DAMAGED, reason=reason, time=run.ledger.now())
            run.ledger.append(record)
            state.add(record)
    run.ledger.flush()
    if state.pyramid_stands:
        state.add(run.ledger.announce(PYRAMID_DAMAGED, {"lost": f"metadata of {image.path.name}"}))
