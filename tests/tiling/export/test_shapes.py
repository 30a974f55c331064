"""Objects as polygons: rasterised again they are the labels, whatever bands they were found in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from rasterio import features
from skimage.measure import label as connected

from tiling.geometry import Box
from tiling.selection.polygons import Polygon, Polygons
from tiling.shapes import Shapes, in_larger_batches, polygonize, subdivided
from tiling.shapes.spool import Spool

Labels = NDArray[np.uint8]

RINGS = """
1111111
1000001
1011101
1010101
1011101
1000001
1111111
"""
COMB = """
1010101
1010101
1010101
1111111
"""
SPIRAL = """
11111111
00000001
11111101
10000101
10110101
10100101
10111101
10000001
11111111
"""
PINCHED = """
0110110
1001001
1001001
0110110
0001000
"""
LATE = """
0100010
1011101
0100010
0111110
"""


def picture(text: str) -> Labels:
    return np.array([[int(digit) for digit in line] for line in text.split()], np.uint8)


def in_bands(labels: Labels, cuts: list[int]) -> Iterator[Labels]:
    places = sorted({0, labels.shape[0], *(cut for cut in cuts if 0 < cut < labels.shape[0])})
    for start, stop in pairwise(places):
        yield labels[start:stop]


def rasterised(batches: list[Shapes], shape: tuple[int, int]) -> Labels:
    """By GDAL: a pixel belongs to the polygon that its centre lies in."""
    pairs = [
        (polygon, int(label))
        for shapes in batches
        for polygon, label in zip(shapes.polygons(), shapes.labels, strict=True)
    ]
    return features.rasterize(pairs, shape, dtype="uint8") if pairs else np.zeros(shape, np.uint8)


def drawn(batches: list[Shapes], shape: tuple[int, int]) -> Labels:
    """By the rasteriser that training uses."""
    polygons = [
        Polygon.from_rings(label, [ring[:, ::-1].astype(float) for ring in rings])
        for shapes in batches
        for label, rings in shapes
    ]
    return Polygons(polygons).labels(Box(0, 0, *shape))


def by_gdal(labels: Labels) -> set[str]:
    found = features.shapes(labels, mask=labels > 0, connectivity=4)
    polygons = np.array([shapely.geometry.shape(polygon) for polygon, _ in found])
    return {shape.wkt for shape in shapely.normalize(shapely.simplify(polygons, 0))}


def check(labels: Labels, cuts: list[int]) -> list[Shapes]:
    batches = list(polygonize(in_bands(labels, cuts)))
    np.testing.assert_array_equal(rasterised(batches, labels.shape), labels)
    objects = np.asarray(connected(labels, background=0, connectivity=1))
    assert sum(map(len, batches)) == objects.max()
    sizes = sorted(np.bincount(objects.ravel())[1:].tolist())
    assert sorted(size for shapes in batches for size in shapes.pixels.tolist()) == sizes
    for shapes in batches:
        polygons = shapes.polygons()
        assert shapely.is_valid(polygons).all()
        np.testing.assert_array_equal(shapely.area(polygons), shapes.pixels)
        # y grows downwards: clockwise on the screen is anticlockwise in numbers.
        assert shapely.is_ccw(shapely.get_exterior_ring(polygons)).all()
        holes = shapely.get_rings(polygons[shapely.get_num_interior_rings(polygons) > 0])
        assert holes.size == 0 or not shapely.is_ccw(holes).all()
    return batches


@pytest.mark.parametrize("text", [RINGS, COMB, SPIRAL, PINCHED, LATE])
def test_every_band_height_gives_whole_valid_polygons(text: str) -> None:
    labels = picture(text)
    for turn in range(4):
        turned = np.rot90(labels, turn).copy()
        for tall in range(1, turned.shape[0] + 1):
            check(turned, list(range(0, turned.shape[0], tall)))


@given(
    hnp.arrays(
        np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.sampled_from([0, 1, 2, 255])
    ),
    st.lists(st.integers(1, 11), max_size=4),
)
def test_any_labels_come_back_exactly(labels: Labels, cuts: list[int]) -> None:
    batches = check(labels, cuts)
    np.testing.assert_array_equal(drawn(batches, labels.shape), labels)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.7])
def test_noise_comes_back_exactly_and_is_cut_as_gdal_cuts_it(share: float) -> None:
    labels = (np.random.default_rng(5).random((60, 47)) < share).astype(np.uint8)
    mine = np.concatenate([shapes.polygons() for shapes in check(labels, [7, 8, 30])])
    assert {shape.wkt for shape in shapely.normalize(shapely.simplify(mine, 0))} == by_gdal(labels)


def test_an_object_of_the_whole_image_is_one_square() -> None:
    (shapes,) = polygonize(iter([np.ones((4, 9), np.uint8)] * 5))
    assert shapes.points.tolist() == [[0, 0], [9, 0], [9, 20], [0, 20], [0, 0]] or len(shapes.points) == 5
    assert shapes.pixels.tolist() == [180]


def test_an_image_of_background_has_no_objects() -> None:
    assert list(polygonize(iter([np.zeros((4, 9), np.uint8)] * 2))) == []


def test_what_is_remembered_between_bands_is_what_they_cut() -> None:
    """A column of separate objects, many bands long: batches come as objects end, not at the end."""
    dots = np.zeros((6, 40), np.uint8)
    dots[1:4, 2:38:6] = 1
    sizes = [len(shapes) for shapes in polygonize(iter([dots] * 50))]
    assert sizes == [6] * 50


def test_shapes_are_kept_for_several_readers(tmp_path: Any) -> None:
    labels = picture(RINGS)
    spool = Spool(tmp_path / "spool")
    first = list(spool.extend(polygonize(in_bands(labels, [3]))))
    for _ in range(2):
        again = list(spool)
        assert [shapes.points.tolist() for shapes in again] == [shapes.points.tolist() for shapes in first]
        np.testing.assert_array_equal(rasterised(again, labels.shape), labels)


@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 2)),
    st.integers(1, 5),
)
def test_subdivided_edges_are_short_and_meet_at_the_same_points(labels: Labels, every: int) -> None:
    for shapes in polygonize([labels]):
        finer = subdivided(shapes, every)
        polygons = finer.polygons()
        assert shapely.equals(polygons, shapes.polygons()).all()
        for (_, rings), (_, coarse) in zip(finer, shapes, strict=True):
            for ring, before in zip(rings, coarse, strict=True):
                assert np.abs(np.diff(ring, axis=0)).max() <= every
                corners = {tuple(point) for point in before.tolist()}
                added = [point for point in ring.tolist() if tuple(point) not in corners]
                assert all(x % every == 0 or y % every == 0 for x, y in added)
                assert (ring[0] == ring[-1]).all()


@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 2)),
    st.integers(1, 40),
)
def test_larger_batches_hold_the_same_shapes_in_the_same_order(labels: Labels, points: int) -> None:
    batches = [replace(each, ids=each.pixels.astype(np.int32)) for each in polygonize(in_bands(labels, [2]))]
    larger = [*in_larger_batches(batches, points)]
    assert all(len(each.points) <= points or each in batches for each in larger)
    for field in ("labels", "pixels", "ids"):
        parts = ([getattr(each, field) for each in some] for some in (batches, larger))
        assert len({np.concatenate([np.empty(0), *some]).tobytes() for some in parts}) == 1
    rings = ([[ring.tolist() for _, rings in each for ring in rings] for each in some] for some in (batches, larger))
    assert len({str([ring for each in some for ring in each]) for some in rings}) == 1
