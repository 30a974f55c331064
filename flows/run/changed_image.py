"""The driver's check that a mask is of one image: tiles that were read while the image changed are computed again."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import numpy as np

from tiling.errors import ImageChangedError
from tiling.export.close_ups import close_up_paths
from tiling.runs.ledger import TileRecord, TileState
from tiling.runs.mask import NOT_PREDICTED
from tiling.runs.run import Run
from tiling.source import ImageSource
from tiling.sources.version import is_bracketed
from tiling.storage.place import Place


def expect_same_image(run: Run, read: Sequence[int] = ()) -> None:
    """Check a run's image at the end of a stage that read these tiles of it.

    Where it is another, what was read between two looks that agree stays. Of an image that a look beside each tile
    tells too little of, every tile since the stage began is doubtful, and is computed again.

    Raises:
        ImageChangedError: the image has another content by now, or is gone; says how many tiles there are.
    """
    try:
        run.expect_same_image()
    except ImageChangedError as error:
        raise settled(run, read, error) from error


def settled(run: Run, read: Sequence[int], error: ImageChangedError) -> ImageChangedError:
    """Keep in the ledger only tiles that are surely of the run's image; returns the error to report."""
    if not is_bracketed(run.card.image.path, run.card.image.format):
        _mark_unverified(run, read, str(error))
    return with_consequences(run, error)


@contextmanager
def drawn_of_one_image(run: Run) -> Generator[ImageSource]:
    """The image for pictures of it; they are deleted again where it changed while they were drawn.

    Raises:
        ImageChangedError: the image has another content.
    """
    try:
        with run.open_verified() as steady:
            yield steady.source
            steady.expect_same()
    except ImageChangedError as error:
        close_ups = [path for _, path in close_up_paths(run)]
        for picture in (run.overlay_path, run.skipped_path, *close_ups, *_thumbnails(run)):
            picture.unlink(missing_ok=True)
        raise with_consequences(run, error) from error


def _thumbnails(run: Run) -> list[Place]:
    return [each for each in run.exports.iterdir() if each.name.startswith("thumbnail")] if run.exports.is_dir() else []


def with_consequences(run: Run, error: ImageChangedError) -> ImageChangedError:
    """The error with its consequences for the run, and the remedy."""
    state = run.ledger.fold()
    done = state.count(TileState.DONE) + state.count(TileState.SKIPPED)
    return ImageChangedError(
        f"{error}; {done} of {run.plan.count} tiles are kept and {run.plan.count - done} are to do: put that image "
        f"back and run the same command again, or segment the new one into another --out"
    )


def _mark_unverified(run: Run, tiles: Sequence[int], reason: str) -> None:
    """Mark tiles that were read since the last good check, and their pixels, as to be computed again."""
    run.remove_staged()
    states = run.ledger.fold().states
    doubtful = [int(index) for index in np.asarray(tiles, np.int64) if states[index] == TileState.DONE]
    for index in doubtful:
        run.ledger.append(TileRecord(index, TileState.DAMAGED, reason=reason, time=run.ledger.now()))
    run.ledger.flush()  # before their labels go
    mask, probabilities = run.open_mask(), run.open_probabilities()
    for index in doubtful:
        mask.fill(run.plan.tile(index), NOT_PREDICTED)
        if probabilities is not None:
            probabilities.clear(run.plan.tile(index))
