"""Generated images: any size, seeded, and labels that say what was drawn."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import label, regionprops

from unet_core.training.synthetic import ellipses, tissue


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (130, 61)])
def test_images_of_any_size_follow_from_the_generator(shape: tuple[int, int]) -> None:
    for make in (ellipses, tissue):
        image, labels = make(*shape, np.random.default_rng(3))
        again, _ = make(*shape, np.random.default_rng(3))
        other, _ = make(*shape, np.random.default_rng(4))
        assert image.dtype == np.uint8
        assert image.shape[:2] == labels.shape == shape
        np.testing.assert_array_equal(image, again)
        assert (image != other).any()
    with pytest.raises(ValueError, match="0 x 5 px has no pixels"):
        tissue(0, 5, np.random.default_rng(0))


def test_only_ellipses_are_labelled_and_grey_alone_tells_nothing() -> None:
    solidities: list[float] = []
    greys: list[list[float]] = [[], []]
    for seed in range(12):
        image_HW, labels_HW = ellipses(256, 256, np.random.default_rng(seed))
        assert 0.01 < labels_HW.mean() < 0.35
        assert set(np.unique(labels_HW)) == {0, 1}
        shapes_HW = image_HW > np.median(image_HW) + 35  # all are brighter than the ground
        for here in (0, 1):
            greys[here].append(float(image_HW[shapes_HW & (labels_HW == here)].mean()))
        for region in regionprops(label(labels_HW)):
            y0, x0, y1, x1 = region.bbox
            if region.area > 80 and min(y0, x0) > 0 and max(y1, x1) < 256:
                # An ellipse covers pi/4 of the rectangle around its axes.
                solidities.append(region.area / (np.pi / 4 * region.axis_major_length * region.axis_minor_length))
    assert np.median(solidities) == pytest.approx(1, abs=0.02)
    assert abs(np.mean(greys[0]) - np.mean(greys[1])) < 25


def test_nuclei_are_darker_bluer_and_numbered_without_gaps() -> None:
    image_HWN, instances_HW = tissue(400, 400, np.random.default_rng(8))
    numbers = np.unique(instances_HW)
    np.testing.assert_array_equal(numbers, np.arange(len(numbers)))
    assert len(numbers) > 40
    red, green, blue = (image_HWN[instances_HW > 0].mean(axis=0)).tolist()
    ground = image_HWN[instances_HW == 0].mean(axis=0)
    assert ground[0] - red > 60
    assert blue > red > green
    areas = np.bincount(instances_HW.ravel())[1:]
    assert 60 < np.median(areas) < 320
    touching = [number for number in numbers[1:] if len(np.unique(instances_HW[grown(instances_HW == number)])) > 2]
    assert touching


def grown(mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    padded = np.pad(mask, 1)
    return padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:] | mask
