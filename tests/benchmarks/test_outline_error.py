"""Where wrong pixels lie is told from what the outlines' place has nothing to do with."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.outline_error import figures_of


def test_outlines_that_are_too_wide_are_right_once_they_are_moved() -> None:
    truth, found = np.zeros((2, 60, 60), np.bool_)
    truth[10:50, 10:50] = True
    found[9:51, 9:51] = True
    figures = figures_of(truth, found)
    assert figures["iou"] == pytest.approx(1600 / 1764)
    assert figures["moved"] == 1
    assert figures["within 1 px"] == pytest.approx(160 / 164), "the corners are further away"
    assert figures["right within 2 px"] == 1


def test_an_object_that_was_missed_is_no_matter_of_outlines() -> None:
    truth, found = np.zeros((2, 60, 90), np.bool_)
    truth[10:50, 10:30] = found[10:50, 10:30] = True
    truth[10:50, 50:70] = True
    figures = figures_of(truth, found)
    assert figures["iou"] == 0.5
    assert figures["moved"] < 0.6
    assert figures["within 1 px"] < 0.2


def test_an_image_without_objects_counts_as_right_where_none_is_found() -> None:
    none = np.zeros((20, 20), np.bool_)
    assert figures_of(none, none)["iou"] == figures_of(none, none)["moved"] == 1
    assert figures_of(none, ~none)["moved"] == 0
