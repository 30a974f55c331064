"""Detail in blocks of a slide: looking at those that are asked for alone gives what looking at all of them gives."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tiling.selection.extremes import greatest_band, least_band
from tiling.selection.ink import REACH_PX, bends_less, brightness, curvature

BLOCK_PX = 16


def curvature_of_all(bright_YX: NDArray[np.float32]) -> NDArray[np.float32]:
    more = tuple((0, -side % BLOCK_PX) for side in bright_YX.shape)
    padded = np.pad(bright_YX, more, mode="edge")
    rows, cols = padded.shape[0] // BLOCK_PX, padded.shape[1] // BLOCK_PX
    blocks = padded.reshape(rows, BLOCK_PX, cols, BLOCK_PX).swapaxes(1, 2)
    d = REACH_PX
    down = np.abs(2 * blocks[:, :, d:-d] - blocks[:, :, 2 * d :] - blocks[:, :, : -2 * d])
    across = np.abs(2 * blocks[..., d:-d] - blocks[..., 2 * d :] - blocks[..., : -2 * d])
    both = np.concatenate([down.reshape(rows, cols, -1), across.reshape(rows, cols, -1)], axis=-1)
    return np.percentile(both, 25, axis=-1)


@pytest.mark.parametrize("share", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("shape", [(64, 48), (33, 95), (1, 1), (100, 130)])
def test_blocks_that_are_asked_for_bend_as_in_a_look_at_all(shape: tuple[int, int], share: float) -> None:
    random = np.random.default_rng(shape[1])
    pixels_YXC = random.integers(0, 256, (*shape, 3)).astype(np.uint8)
    pixels_YXC[: shape[0] // 2] //= 64
    defined = curvature_of_all(pixels_YXC.astype(np.float32).mean(axis=-1))
    wanted = random.random(defined.shape) < share
    found = curvature(brightness(pixels_YXC, wanted, BLOCK_PX))
    assert found.dtype == defined.dtype
    assert found.tobytes() == defined[wanted].tobytes()


@pytest.mark.parametrize("block_px", [8, 16, 17])
def test_comparing_curvature_gives_what_measuring_it_gives(block_px: int) -> None:
    random = np.random.default_rng(block_px)
    blocks = random.integers(0, 9, (400, block_px, block_px)).astype(np.float32) * random.random((400, 1, 1)).round(1)
    bends = curvature(blocks.astype(np.float32))
    # At the quartile itself, one number beside it, and anywhere.
    near = (bends, np.nextafter(bends, np.float32(np.inf)), np.nextafter(bends, np.float32(-np.inf)))
    for limits in (*near, random.choice(bends, len(bends)), np.full(len(bends), 1.5, np.float32)):
        np.testing.assert_array_equal(bends_less(blocks.astype(np.float32), limits), bends < limits)


@pytest.mark.parametrize("bands", [1, 3, 5])
def test_extremes_band_by_band_are_those_along_the_axis(bands: int) -> None:
    means_YXC = np.random.default_rng(bands).normal(size=(13, 7, bands)).astype(np.float32)
    means_YXC[3, 4, 0] = np.nan
    np.testing.assert_array_equal(least_band(means_YXC), means_YXC.min(axis=-1))
    np.testing.assert_array_equal(greatest_band(means_YXC), means_YXC.max(axis=-1))
