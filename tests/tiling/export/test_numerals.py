"""Numbers as text, many at once."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiling.export.features import positions


@given(
    st.lists(st.tuples(*[st.floats(-1e7, 1e7, allow_nan=False)] * 2), max_size=8),
    st.integers(0, 8),
)
def test_every_number_is_the_nearest_of_that_many_decimals(points: list[tuple[float, float]], decimals: int) -> None:
    given_points = np.array(points, np.float64).reshape(-1, 2)
    text, starts = positions(given_points, decimals)
    assert len(starts) == len(points) + 1
    read = json.loads(f"[{text.decode().removesuffix(',')}]")
    assert np.array(read).reshape(-1, 2) == pytest.approx(given_points, abs=0.51 * 10.0**-decimals, rel=1e-15)
    for start, end in pairwise(starts):
        number = text[start:end].decode().strip("[],").split(",")[0]
        assert len(number.partition(".")[2]) == decimals


def test_whole_numbers_are_written_as_such() -> None:
    text, starts = positions(np.array([[0, 7], [16384, -20], [100, 100]], np.int32), 0)
    assert text == b"[0,7],[16384,-20],[100,100],"
    assert starts.tolist() == [0, 6, 18, 28]
    assert positions(np.empty((0, 2), np.int32), 0)[0] == b""
