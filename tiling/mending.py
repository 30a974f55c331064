"""What goes from a run's images with their metadata is put back: lost tiles are computed or filled again."""

from __future__ import annotations

from functools import partial

from tiling.ledger import PYRAMID_DAMAGED, TileRecord, TileState
from tiling.probabilities import Probabilities
from tiling.run import Run
from tiling.stitching import BACKGROUND, Mask


def create_images(run: Run) -> None:
    """Make the mask and the probabilities, or what is lost of their metadata; no shard that is there is touched.

    Whether shards are lost as well is looked at then alone: it takes a listing of them all.
    """
    run.create_mask(partial(_put_back, run))
    run.create_probabilities(partial(_put_back, run))


def _put_back(run: Run, image: Mask | Probabilities) -> None:
    """Mark what is lost before the metadata is there: a driver that is killed in between begins with it again."""
    state = run.ledger.fold()
    known = state.indices(TileState.DONE, TileState.SKIPPED).tolist()
    for tile in image.pyramid.lost(run.plan.tile(index) for index in known):
        if state.states[tile.index] == TileState.DONE:
            reason = f"its shard was lost with metadata of {image.path.name}"
            run.ledger.append(TileRecord(tile.index, TileState.DAMAGED, reason=reason, time=run.ledger.now()))
        elif isinstance(image, Mask):
            image.fill(tile, BACKGROUND)
    run.ledger.flush()
    if state.pyramid_stands:
        run.ledger.announce(PYRAMID_DAMAGED, {"lost": f"metadata of {image.path.name}"})
