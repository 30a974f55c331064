"""Objects found, invented and missed, against a count of every pair."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from unet_core.training.instances import THRESHOLDS, components, match_labels, match_objects


def by_every_pair(truth: NDArray[np.int_], predicted: NDArray[np.int_], threshold: float) -> tuple[int, int, int]:
    true_objects = [truth == number for number in set(truth.ravel().tolist()) - {0}]
    objects = [predicted == number for number in set(predicted.ravel().tolist()) - {0}]
    found = 0
    for true in true_objects:
        for other in objects:
            found += int((true & other).sum()) > threshold * int((true | other).sum())
    return found, len(objects) - found, len(true_objects) - found


@pytest.mark.parametrize("seed", range(12))
def test_matches_equal_a_count_of_every_pair(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth, predicted = np.zeros((40, 40), int), np.zeros((40, 40), int)
    for number in random.permutation(12) * 7 + 1:  # numbers with gaps, some objects painted over
        y, x, size = random.integers(0, 34), random.integers(0, 34), random.integers(2, 9)
        truth[y : y + size, x : x + size] = number
        dy, dx = random.integers(0, 3, 2)
        if random.random() < 0.8:
            predicted[y + dy : y + dy + size, x + dx : x + dx + size] = number * 3
    if seed == 0:
        truth[truth == 0] = 99  # no ground at all
    matches = match_objects(truth, predicted)
    for index, threshold in enumerate(THRESHOLDS):
        counted = (int(matches.found[index]), int(matches.invented[index]), int(matches.missed[index]))
        assert counted == by_every_pair(truth, predicted, threshold)


def test_average_precision_of_a_case_worked_by_hand() -> None:
    truth = np.zeros((20, 20), np.uint8)
    truth[0:10, 0:10] = 1
    truth[12:16, 12:16] = 1
    predicted = np.zeros((20, 20), np.uint8)
    predicted[0:10, 0:8] = 1  # IoU 0.8 with the first; the second is missed
    predicted[18:, 0:2] = 1  # invented
    matches = match_labels(truth, predicted, 2)
    # An IoU of exactly 0.8 is not above 0.8: found at 0.5, 0.55 … 0.75, that is at six of ten thresholds.
    assert matches.found.tolist() == [1] * 6 + [0] * 4
    assert matches.precision()[0] == pytest.approx(1 / 3)
    assert matches.precision().mean() == pytest.approx(0.6 / 3)


def test_touching_instances_are_told_apart_and_components_are_not() -> None:
    labels = np.zeros((8, 16), np.uint8)
    labels[2:6, 2:14] = 1
    instances = labels.astype(np.uint16)
    instances[2:6, 8:14] = 2
    assert match_labels(labels, labels, 2).precision().tolist() == [1.0] * 10
    merged = match_labels(labels, labels, 2, instances)
    assert (merged.found[0], merged.invented[0], merged.missed[0]) == (0, 1, 2)


def test_objects_match_within_their_class() -> None:
    labels = np.zeros((8, 8), np.uint8)
    labels[1:4, 1:4], labels[5:, 5:] = 1, 2
    swapped = np.where(labels > 0, 3 - labels, 0).astype(np.uint8)
    assert match_labels(labels, labels, 3).found.tolist() == [2] * 10
    assert match_labels(labels, swapped, 3).found.tolist() == [0] * 10


def test_components_touch_along_edges_only() -> None:
    assert components(np.eye(3, dtype=np.uint8), 1).max() == 3


def test_nothing_to_find_has_no_precision() -> None:
    empty = np.zeros((4, 4), int)
    assert np.isnan(match_objects(empty, empty).precision()).all()
    with pytest.raises(ValueError, match=r"at least 0\.5"):
        match_objects(empty, empty, (0.3,))
