"""Objects measured block by block: the same bits for any partition, and what scikit-image finds in one array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.measure import regionprops

from tiling.objects.hull import leftmost
from tiling.objects.measure import Channels, Measured, Measurement, measured
from tiling.objects.object_block import MARGIN, ObjectBlock

Labels = NDArray[np.int32]


def cut(
    labels: Labels, ys: Sequence[int] = (), xs: Sequence[int] = (), **under: NDArray[Any] | None
) -> list[ObjectBlock]:
    """The blocks between some rows and columns."""
    padded = np.pad(labels, MARGIN)
    height, width = labels.shape
    bands, probabilities, missing = (under.get(name) for name in ("bands", "probabilities", "missing"))
    return [
        ObjectBlock(
            (y0, x0),
            padded[y0 : y1 + 2 * MARGIN, x0 : x1 + 2 * MARGIN],
            None if bands is None else bands[y0:y1, x0:x1],
            None if probabilities is None else probabilities[:, y0:y1, x0:x1],
            None if missing is None else np.pad(missing, MARGIN)[y0 : y1 + 2 * MARGIN, x0 : x1 + 2 * MARGIN],
        )
        for y0, y1 in pairwise([0, *sorted(set(ys)), height])
        for x0, x1 in pairwise([0, *sorted(set(xs)), width])
    ]


def bits(found: Sequence[Measured]) -> dict[str, bytes]:
    """All that was measured, bit by bit."""
    (only,) = found
    values = {each.name: getattr(only, each.name) for each in fields(only) if each.name != "shape"}
    values |= {name: getattr(only.shape, name) for name in ("centroid", "axes", "orientation", "eccentricity")}
    return {name: np.ascontiguousarray(value).tobytes() for name, value in values.items() if value is not None}


def expect_regionprops(found: Measured, labels: Labels, bands: NDArray[Any]) -> None:
    regions = regionprops(labels, bands)
    assert found.ids.tolist() == [region.label for region in regions]
    assert found.pixels.tolist() == [region.area for region in regions]
    assert found.box.tolist() == [[*region.bbox] for region in regions]
    assert found.convex_pixels.tolist() == [region.area_convex for region in regions]
    assert np.array_equal(found.least, [np.atleast_1d(region.intensity_min) for region in regions])
    assert np.array_equal(found.most, [np.atleast_1d(region.intensity_max) for region in regions])
    near: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-11}
    np.testing.assert_allclose(found.perimeter, [region.perimeter for region in regions], **near)
    np.testing.assert_allclose(found.solidity, [region.solidity for region in regions], rtol=1e-15)
    np.testing.assert_allclose(found.means, [np.atleast_1d(region.intensity_mean) for region in regions], **near)
    np.testing.assert_allclose(found.deviations, [np.atleast_1d(region.intensity_std) for region in regions], **near)
    np.testing.assert_allclose(found.shape.centroid, [region.centroid for region in regions], **near)
    # A root of what is zero but for its rounding isn't zero: axes are compared by their squares.
    axes = np.array([[region.axis_major_length, region.axis_minor_length] for region in regions])
    scale = 1 + axes[:, :1] ** 2
    assert np.all(np.abs(found.shape.axes**2 - axes**2) <= 1e-12 * scale)
    eccentricity = np.array([region.eccentricity for region in regions])
    assert np.all(np.abs(found.shape.eccentricity**2 - eccentricity**2) <= 1e-12)
    turned = np.abs(found.shape.orientation - [region.orientation for region in regions])
    # An angle modulo half a turn, which a round object doesn't have.
    assert np.all((np.minimum(turned, np.abs(np.pi - turned)) < 1e-7) | (eccentricity < 1e-3))


@st.composite
def images(draw: st.DrawFn) -> tuple[Labels, NDArray[np.uint8], list[int], list[int], int]:
    """Labels of many kinds with two bands under them, and where they are cut."""
    height, width = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["noise", "blobs", "nested", "thin", "whole", "sparse"]))
    labels = np.zeros((height, width), np.int32)
    if kind == "noise":
        labels[:] = random.integers(0, 4, labels.shape)
    elif kind == "blobs":
        side = draw(st.integers(2, 7))
        coarse = random.integers(0, 5, (-(-height // side), -(-width // side)))
        labels[:] = np.kron(coarse, np.ones((side, side), np.int64))[:height, :width]
    elif kind == "nested":
        for number in range(min(height, width) // 2):
            labels[number : height - number, number : width - number] = number + 1
    elif kind == "thin":
        labels[random.integers(height)] = 7
        labels[:, random.integers(width)] = 9
        np.fill_diagonal(labels, 4)
    elif kind == "whole":
        labels[:] = 3
    else:
        labels[random.integers(height, size=5), random.integers(width, size=5)] = [2, 3, 5, 8, 100_000]
    ys = draw(st.lists(st.integers(1, max(1, height - 1)), max_size=3)) if height > 1 else []
    xs = draw(st.lists(st.integers(1, max(1, width - 1)), max_size=3)) if width > 1 else []
    return labels, random.integers(0, 256, (height, width, 2), np.uint8), ys, xs, draw(st.integers(0, 2**32))


@settings(max_examples=120, deadline=None)
@given(images())
def test_any_partition_in_any_order_gives_the_same_bits_and_scikit_images_figures(
    image: tuple[Labels, NDArray[np.uint8], list[int], list[int], int],
) -> None:
    labels, bands, ys, xs, seed = image
    whole = measured(cut(labels, bands=bands), labels.shape)
    if not labels.any():
        assert not whole
        return
    expect_regionprops(whole[0], labels, bands)
    blocks = cut(labels, ys, xs, bands=bands)
    order = np.random.default_rng(seed).permutation(len(blocks))
    assert bits(measured([blocks[at] for at in order], labels.shape)) == bits(whole)


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.int32, np.float32, np.float64])
def test_other_types_of_bands_keep_every_bit_too(kind: type[np.generic]) -> None:
    random = np.random.default_rng(2)
    labels = np.kron(random.integers(0, 30, (6, 5)), np.ones((5, 7), np.int64)).astype(np.int32)
    real = random.normal(0, 1, (*labels.shape, 3)) * 10.0 ** random.integers(-9, 9, (*labels.shape, 1))
    bands = real.astype(kind) if np.dtype(kind).kind == "f" else (random.integers(0, 2**15, real.shape)).astype(kind)
    whole = measured(cut(labels, bands=bands), labels.shape)
    blocks = cut(labels, [3, 11, 12, 29], [1, 8, 20], bands=bands)
    assert bits(measured(blocks[::-1], labels.shape)) == bits(whole)
    each = [bands[labels == number].astype(np.float64) for number in whole[0].ids]
    np.testing.assert_allclose(whole[0].means, [values.mean(axis=0) for values in each], rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(whole[0].deviations, [values.std(axis=0) for values in each], rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize(
    ("offset", "kind"), [(1e9, np.float64), (-3e12, np.float64), (4e9, np.uint32), (2e9, np.int32)]
)
def test_values_far_from_nought_keep_their_deviation(offset: float, kind: type[np.generic]) -> None:
    """A square takes twice the digits of a value: what is rounded off may be more than the deviation."""
    random = np.random.default_rng(4)
    labels = np.kron(np.arange(1, 13).reshape(3, 4), np.ones((4, 4), np.int64)).astype(np.int32)
    labels[0, 0] = 13
    bands = (offset + random.integers(0, 9, (*labels.shape, 1)) / (8 if kind is np.float64 else 1)).astype(kind)
    (found,) = measured(cut(labels, bands=bands), labels.shape)
    near = bands.astype(np.float64) - offset
    expected = [near[labels == number].std() for number in found.ids]
    np.testing.assert_allclose(found.deviations[:, 0], expected, rtol=1e-12)
    assert found.deviations[12, 0] == 0, "a single pixel"
    (again,) = measured(cut(labels, [1, 5], [3, 7], bands=bands)[::-1], labels.shape)
    assert bits([again]) == bits([found])


def test_a_value_that_is_no_number_makes_its_own_objects_mean_none() -> None:
    labels = np.array([[1, 1, 2, 2]], np.int32)
    bands = np.array([[[1.0], [np.nan], [3.0], [4.0]]], np.float32)
    for ys in ([], [2]):
        (found,) = measured(cut(labels, xs=ys, bands=bands), labels.shape)
        assert np.isnan(found.means[0, 0])
        assert found.means[1, 0] == 3.5
        assert found.deviations[1, 0] == 0.5


def test_what_lies_far_from_the_corner_keeps_its_digits() -> None:
    far = (1_900_000, 1_700_001)
    labels = np.zeros((40, 60), np.int32)
    yy, xx = np.mgrid[:40, :60]
    labels[(yy - 20) ** 2 + (xx - yy - 10) ** 2 < 150] = 5
    (here,) = measured(cut(labels), (40, 60))
    blocks = [
        ObjectBlock((block.origin[0] + far[0], block.origin[1] + far[1]), block.labels)
        for block in cut(labels, [17], [22, 30])
    ]
    (there,) = measured(blocks, (2_000_000, 2_000_000))
    assert np.array_equal(there.shape.axes, here.shape.axes)
    assert np.array_equal(there.shape.orientation, here.shape.orientation)
    assert np.array_equal(there.convex_pixels, here.convex_pixels)
    np.testing.assert_allclose(there.shape.centroid - far, here.shape.centroid, atol=1e-9)


def test_second_moments_outgrow_no_integer() -> None:
    """Four small corners, two million pixels apart, are one object."""
    labels = np.ones((4, 4), np.int32)
    corners = [(0, 0), (0, 2_000_000), (2_000_000, 0), (2_000_000, 2_000_000)]
    blocks = [ObjectBlock(corner, np.pad(labels, MARGIN)) for corner in corners]
    (found,) = measured(blocks, (2_000_004, 2_000_004))
    mean = 1_000_001.5
    assert found.shape.centroid.tolist() == [[mean, mean]]
    variance = (1_000_000**2) + (4**2 - 1) / 12
    np.testing.assert_allclose(found.shape.axes, [[4 * variance**0.5] * 2], rtol=1e-15)
    assert found.convex_pixels[0] <= 2_000_004**2
    assert found.convex_pixels[0] > 2_000_003**2


def test_it_knows_the_border_and_what_is_not_known() -> None:
    labels = np.zeros((12, 12), np.int32)
    labels[0, 3], labels[4:6, 4:6], labels[9, 9], labels[11, 11] = 1, 2, 3, 4
    missing = np.zeros(labels.shape, np.bool_)
    missing[5, 6] = missing[8, 8] = True  # beside 2; at a corner only of 3
    for ys, xs in (([], []), ([5, 9], [6, 9])):
        (found,) = measured(cut(labels, ys, xs, missing=missing), labels.shape)
        assert found.touches_border.tolist() == [True, False, False, True]
        assert found.touches_missing.tolist() == [False, True, False, False]


def test_the_probability_is_that_of_the_objects_own_class() -> None:
    labels = np.array([[1, 1, 2], [0, 3, 3]], np.int32)
    probabilities = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    channels = Channels(np.array([0, 1, 2, 3], np.uint8), np.array([-1, 1, 0, -1]))
    for xs in ([], [1, 2]):
        (found,) = measured(cut(labels, xs=xs, probabilities=probabilities), labels.shape, channels)
        assert found.probability is not None
        assert found.probability[:2].tolist() == [6.5 / 255, 2 / 255]
        assert np.isnan(found.probability[2])


def test_finished_objects_are_given_once_and_forgotten() -> None:
    labels = np.zeros((30, 10), np.int32)
    labels[1:4, 2:5], labels[8:25, 1], labels[9:12, 5:8], labels[28, 3] = 1, 2, 3, 4
    whole = measured(cut(labels), labels.shape)[0]
    measurement, parts = Measurement(labels.shape), list[Measured]()
    for block in cut(labels, [6, 12, 18, 24]):
        measurement.add(block)
        parts += measurement.finished(block.origin[0] + block.shape[0])
    parts += measurement.rest()
    assert [part.ids.tolist() for part in parts] == [[1], [3], [2, 4]]
    kept = {int(number): int(n) for part in parts for number, n in zip(part.ids, part.convex_pixels, strict=True)}
    assert kept == dict(zip(whole.ids.tolist(), whole.convex_pixels.tolist(), strict=True))


def test_a_spiral_ends() -> None:
    """Its corners go one at a time."""
    side = 400
    x = np.sqrt(np.arange(side) * 10.0).astype(np.int64)
    labels = np.zeros((side, int(x.max()) + 1), np.int32)
    labels[np.arange(side), x] = labels[np.arange(side), 0] = 1
    (found,) = measured(cut(labels, range(1, side, 7)), labels.shape)
    (region,) = regionprops(labels)
    assert found.convex_pixels.tolist() == [region.area_convex]


@pytest.mark.parametrize("reach", [1, 1 << 30])
def test_corners_are_sorted_however_far_apart_they_are(reach: int) -> None:
    """Far apart they don't fit one key of 64 bits."""
    random = np.random.default_rng(0)
    ids = random.integers(1, 5, 200).astype(np.int32)
    y, x = reach * random.integers(-9, 9, (2, 200))
    rows = sorted(
        {(i, v, min(x[(ids == i) & (y == v)].tolist())) for i, v in zip(ids.tolist(), y.tolist(), strict=True)}
    )
    assert [*zip(*(each.tolist() for each in leftmost(ids, y, x)), strict=True)] == rows
