"""Crops: lazily read ones equal those of the image in memory, and bending moves labels along."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from discs import CARD
from numpy.typing import NDArray
from pydantic import ValidationError

from unet_core.errors import TrainingError
from unet_core.training.augmentation import CropSampler, draw_crop
from unet_core.training.data import Example, LazyExample, check_examples
from unet_core.training.recipe import TrainingConfig, Variation
from unet_core.training.synthetic import tissue
from unet_core.training.warping import draw_square

SIDES = (420, 500)


def an_example() -> Example:
    image_HWN, instances_HW = tissue(*SIDES, np.random.default_rng(5))
    return Example("tissue", image_HWN, (instances_HW > 0).astype(np.uint8))


def lazily(example: Example, reads: list[tuple[int, int]]) -> LazyExample:
    def read(y0: int, x0: int, y1: int, x1: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        height, width, _ = example.shape
        assert 0 <= y0 < y1 <= height
        assert 0 <= x0 < x1 <= width
        reads.append((y1 - y0, x1 - x0))
        return example.image_HWN[y0:y1, x0:x1], example.labels_HW[y0:y1, x0:x1]

    return LazyExample(example.name, (*SIDES, 3), example.dtype, 2, read)


@pytest.mark.parametrize(
    ("variation", "apart"),
    [
        (Variation(), 0.01),
        (Variation(scale=(1.0, 2.0), elastic_px=6), 0.01),
        # The image is smoothed on a grid of whole pixels, which starts elsewhere in a part of it.
        (Variation(scale=(0.4, 0.9), elastic_px=6), 2),
    ],
)
def test_lazily_read_crops_are_those_of_the_image_in_memory(variation: Variation, apart: float) -> None:
    example, reads = an_example(), list[tuple[int, int]]()
    lazy = lazily(example, reads)
    for seed in range(25):
        here = draw_crop(example, 64, 255.0, variation, np.random.default_rng(seed))
        there = draw_crop(lazy, 64, 255.0, variation, np.random.default_rng(seed))
        assert (here.image_NHW - there.image_NHW).abs().mean() < apart
        assert (here.labels_HW != there.labels_HW).float().mean() < 0.001
    assert len(reads) == 25
    reach = 64 / variation.scale[0] * (2**0.5 + 0.8) + 14
    assert max(max(read) for read in reads) < reach < 400


def test_image_smaller_than_a_crop_is_read_whole_and_mirrored() -> None:
    example, reads = an_example(), list[tuple[int, int]]()
    lazy = lazily(example, reads)
    here = draw_crop(example, 640, 255.0, Variation(), np.random.default_rng(0))
    there = draw_crop(lazy, 640, 255.0, Variation(), np.random.default_rng(0))
    assert reads == [SIDES]
    assert torch.equal(here.image_NHW, there.image_NHW)
    assert torch.equal(here.labels_HW, there.labels_HW)


def test_bent_crop_keeps_labels_and_weights_on_their_pixels() -> None:
    labels_HW = an_example().labels_HW
    example = Example("masks", (labels_HW * 255)[..., None], labels_HW, "all", None, labels_HW.astype(np.float32))
    for seed in range(10):
        variation = Variation(scale=(1.0, 2.0), elastic_px=10)
        crop = draw_crop(example, 128, 255.0, variation, np.random.default_rng(seed))
        assert ((crop.image_NHW[0] > 127.5).long() != crop.labels_HW).float().mean() < 0.02
        assert crop.weights_HW is not None
        assert torch.allclose(crop.weights_HW * 255, crop.image_NHW[0], atol=0.01)


def test_displacements_are_those_of_the_u_net_paper() -> None:
    variation = Variation(rotate=False, elastic_px=10)
    squares = [draw_square(900, 900, 256, variation, np.random.default_rng(seed)) for seed in range(200)]
    bends_px = torch.cat([square.bend_1HW2 for square in squares if square.bend_1HW2 is not None]) * 128
    assert bends_px.shape == (200, 256, 256, 2)
    for y, x in ((0, 0), (0, 255), (255, 255)):  # at the coarse grid's corners the vectors themselves stand
        assert bends_px[:, y, x].std().item() == pytest.approx(10, rel=0.15)
        assert abs(bends_px[:, y, x].mean().item()) < 1.5
    # Smooth: neighbouring pixels move together, and none overtakes its neighbour.
    assert (bends_px[:, :, 1:, 0] - bends_px[:, :, :-1, 0]).min() > -1
    straight = draw_square(900, 900, 256, Variation(rotate=False), np.random.default_rng(0))
    assert straight.bend_1HW2 is None
    assert (straight.y, straight.x) == (squares[0].y, squares[0].x)


def test_bending_that_folds_crops_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"groups.all.elastic_px 10 is more than a tenth of tile_px 64.*use 6.4"):
        TrainingConfig(steps=1, tile_px=64, groups={"all": Variation(elastic_px=10)})


def test_batches_of_lazy_examples_follow_from_seed_and_step() -> None:
    config = TrainingConfig(steps=9, batch=4, tile_px=64, groups={"all": Variation(elastic_px=5, noise=0.1)})
    samplers = [CropSampler(config, [lazily(an_example(), [])], 255.0) for _ in range(2)]
    samplers[0].batch(2)
    one, other = (sampler.batch(7) for sampler in samplers)
    assert torch.equal(one.image_NHW, other.image_NHW)
    assert torch.equal(one.labels_HW, other.labels_HW)
    assert not torch.equal(one.image_NHW, samplers[0].batch(8).image_NHW)


def test_lazy_labels_are_held_against_the_card_when_they_are_read() -> None:
    def read(y0: int, x0: int, y1: int, x1: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        labels_HW = np.full((y1 - y0, x1 - x0), 2, np.uint8)
        return labels_HW[..., None], labels_HW

    lazy = LazyExample("slide", (90, 80, 1), np.dtype(np.uint8), 2, read)
    check_examples([lazy], CARD)
    with pytest.raises(TrainingError, match="slide hold class 2, the card ends at 1"):
        draw_crop(lazy, 32, 255.0, Variation(), np.random.default_rng(0))
    with pytest.raises(TrainingError, match=r"slide is uint8 \(90, 80, 3\), the card wants uint8"):
        check_examples([LazyExample("slide", (90, 80, 3), np.dtype(np.uint8), 2, read)], CARD)
