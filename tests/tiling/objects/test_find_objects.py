"""Objects found block by block are those of the whole image, whatever the blocks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from object_oracle import objects_of

from tiling.geometry import Box
from tiling.objects.blocks import Block, BlockGrid
from tiling.objects.find import Finder, Objects
from tiling.objects.rule import View, builtin_rule
from tiling.objects.spec import ObjectSpec


@dataclass(frozen=True)
class InMemory:
    """Labels and probabilities in arrays."""

    labels: NDArray[np.uint8]
    heights: NDArray[np.uint8] | None = None

    def view(self, box: Box, *, probabilities: bool) -> View:
        heights = self.heights if probabilities else None
        more = None if heights is None else heights[(..., *box.slices)]
        return View(self.labels[box.slices], more)


def found(
    image: InMemory, spec: ObjectSpec, side: tuple[int, int], threads: int = 1
) -> tuple[NDArray[np.int32], Objects]:
    """The objects by blocks of a size."""
    numbers_YX = np.zeros(image.labels.shape, np.int32)

    def write(block: Block, part_YX: NDArray[np.int32]) -> None:
        numbers_YX[block.box.slices] = part_YX

    with TemporaryDirectory() as folder:
        grid = BlockGrid(image.labels.shape, side)
        finder = Finder(image, builtin_rule(spec), spec, grid, Path(folder), threads)
        return numbers_YX, finder.find(write)


def image_of(seed: int, shape: tuple[int, int], share: float) -> InMemory:
    """Two classes, a class of borders and pixels without a class, in areas of several sizes."""
    random = np.random.default_rng(seed)
    shares = [1 - share, share * 0.4, share * 0.2, share * 0.38, share * 0.02]
    labels_YX = random.choice([0, 1, 2, 3, 255], shape, p=shares)
    grain = int(random.integers(1, 4))
    labels_YX = np.kron(labels_YX[::grain, ::grain], np.ones((grain, grain)))[: shape[0], : shape[1]]
    heights = random.integers(0, 4, (2, *shape)) * 85
    return InMemory(labels_YX.astype(np.uint8), heights.astype(np.uint8))


SPECS = st.one_of(
    st.builds(ObjectSpec, least_px=st.just({1: 3}), filled=st.sampled_from([(), (1,), (1, 2, 3)])),
    st.builds(
        ObjectSpec,
        rule=st.just("border"),
        border=st.just(3),
        radius_px=st.integers(1, 5),
        least_px=st.sampled_from([{}, {1: 4, 2: 2}]),
        filled=st.sampled_from([(), (1,), (1, 2)]),
    ),
    st.builds(
        ObjectSpec,
        rule=st.just("distance"),
        channel=st.just(1),
        radius_px=st.integers(1, 5),
        level=st.sampled_from([1, 85, 200]),
        spacing_px=st.integers(1, 3),
        filled=st.sampled_from([(), (1,)]),
    ),
)


@settings(max_examples=60, deadline=None)
@given(
    spec=SPECS,
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(1, 23), st.integers(1, 23)),
    side=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    share=st.floats(0.1, 0.95),
)
def test_any_blocks_give_the_objects_of_the_definition(
    spec: ObjectSpec, seed: int, shape: tuple[int, int], side: tuple[int, int], share: float
) -> None:
    image = image_of(seed, shape, share)
    numbers_YX, objects = found(image, spec, side)
    expected_YX = objects_of(image.labels, spec, image.heights)
    np.testing.assert_array_equal(numbers_YX, expected_YX)
    assert objects.count == expected_YX.max(initial=0)
    np.testing.assert_array_equal(objects.pixels[1:], np.bincount(expected_YX.ravel(), minlength=1)[1:])


def spiral(side: int) -> NDArray[np.uint8]:
    """One line that winds from a corner to the middle."""
    labels_YX = np.zeros((side, side), np.uint8)
    y, x, dy, dx = 0, 0, 0, 1
    labels_YX[0, 0] = 1
    while True:
        for _ in range(2):
            ahead, second = (y + dy, x + dx), (y + 2 * dy, x + 2 * dx)
            inside = 0 <= ahead[0] < side and 0 <= ahead[1] < side
            beyond = 0 <= second[0] < side and 0 <= second[1] < side
            if inside and not (beyond and labels_YX[second]) and not labels_YX[ahead]:
                break
            dy, dx = dx, -dy
        else:
            return labels_YX
        y, x = ahead
        labels_YX[y, x] = 1


def comb(side: int) -> NDArray[np.uint8]:
    """Teeth that only the last row joins."""
    labels_YX = np.zeros((side, side), np.uint8)
    labels_YX[:, ::2] = 1
    labels_YX[-1] = 1
    return labels_YX


@pytest.mark.parametrize("labels_YX", [spiral(23), comb(23), comb(23).T.copy(), np.ones((23, 23), np.uint8)])
@pytest.mark.parametrize("side", [(3, 2), (5, 5), (4, 23), (64, 64)])
@pytest.mark.parametrize("rule", ["components", "border"])
def test_what_reaches_through_all_blocks_is_one_object(
    labels_YX: NDArray[np.uint8], side: tuple[int, int], rule: str
) -> None:
    spec = ObjectSpec() if rule == "components" else ObjectSpec(rule="border", border=2, radius_px=3)
    numbers_YX, objects = found(InMemory(labels_YX), spec, side)
    np.testing.assert_array_equal(numbers_YX, labels_YX)
    assert objects.count == 1
    assert objects.pixels[1] == labels_YX.sum()


def test_touching_objects_part_at_their_border() -> None:
    labels_YX = np.zeros((12, 25), np.uint8)
    labels_YX[2:10, 2:23] = 2
    labels_YX[4:8, 4:11] = labels_YX[4:8, 14:21] = 1
    spec = ObjectSpec(rule="border", border=2, radius_px=6)
    numbers_YX, objects = found(InMemory(labels_YX), spec, (7, 7))
    assert objects.count == 2
    assert (numbers_YX[2:10, 2:13] == 1).all()  # the middle column goes to the lesser number
    assert (numbers_YX[2:10, 13:23] == 2).all()
    assert found(InMemory(labels_YX), ObjectSpec(), (7, 7))[1].classes.tolist() == [0, 2, 1, 1]


def test_a_hole_across_blocks_is_filled_unless_it_holds_something_else() -> None:
    labels_YX = np.zeros((40, 40), np.uint8)
    labels_YX[2:38, 2:38] = 1
    labels_YX[10:30, 10:30] = 0
    spec = ObjectSpec(filled=(1,))
    numbers_YX, objects = found(InMemory(labels_YX), spec, (7, 9))
    assert (numbers_YX[2:38, 2:38] == 1).all()
    assert objects.pixels[1] == 36 * 36
    for inside in (255, 2):
        labels_YX[20, 20] = inside
        numbers_YX, objects = found(InMemory(labels_YX), spec, (7, 9))
        assert objects.pixels[1] == 36 * 36 - 20 * 20
        assert numbers_YX[15, 15] == 0


def test_specks_are_counted_apart_and_take_no_number() -> None:
    labels_YX = np.zeros((9, 30), np.uint8)
    labels_YX[1, 1], labels_YX[3:6, 3:6], labels_YX[2, 20:22], labels_YX[6:8, 12:14] = 1, 1, 2, 2
    numbers_YX, objects = found(InMemory(labels_YX), ObjectSpec(least_px={1: 4, 2: 3}), (4, 4))
    assert objects.classes.tolist() == [0, 1, 2]
    assert objects.specks[:3].tolist() == [0, 1, 1]
    assert numbers_YX.max() == 2


def test_threads_change_nothing() -> None:
    image = image_of(7, (300, 280), 0.6)
    spec = ObjectSpec(rule="border", border=3, radius_px=4, filled=(1,), least_px={1: 4})
    alone, beside = found(image, spec, (32, 48)), found(image, spec, (32, 48), threads=3)
    np.testing.assert_array_equal(alone[0], beside[0])
    np.testing.assert_array_equal(alone[0], found(image, spec, (300, 280))[0])
