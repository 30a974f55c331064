"""Colours of outlines stand out from what is found and from what is around it."""

from __future__ import annotations

import numpy as np
import pytest

from flows.viewer.outline_colors import outline_colors


def distance(color: str, gray: int) -> float:
    return float(np.linalg.norm([int(color[at : at + 2], 16) - gray for at in (1, 3, 5)]))


@pytest.mark.parametrize(("object_gray", "around_gray"), [(235, 12), (60, 225), (120, 120)])
def test_few_objects_count_as_much_as_all_that_is_around_them(object_gray: int, around_gray: int) -> None:
    """Of nuclei in fluorescence nearly all is black, from which white is the farthest, and they are nearly white."""
    picture, labels = np.full((100, 100, 3), around_gray, np.uint8), np.zeros((100, 100), np.uint8)
    picture[10:20, 10:20], labels[10:20, 10:20] = object_gray, 1
    background, color = outline_colors(["#000000", "#56b4e9"], picture, labels)
    assert background == "#000000"
    assert min(distance(color, object_gray), distance(color, around_gray)) > 150


def test_a_mask_of_nothing_or_of_another_size_leaves_the_picture_to_stand_out_from() -> None:
    picture = np.zeros((10, 10, 3), np.uint8)
    for labels in (np.zeros((10, 10), np.uint8), np.ones((9, 10), np.uint8), np.ones((10, 10), np.uint8)):
        assert distance(outline_colors(["#000000", "#56b4e9"], picture, labels)[1], 0) > 300
