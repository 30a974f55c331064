"""Numbers as text, many at once."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiling.export.features import positions
from tiling.export.numerals import joined, numerals


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


def as_python_writes(values: list[float]) -> list[str | None]:
    return [json.dumps(float(f"{value:.8g}")) if math.isfinite(value) else None for value in values]


@given(st.lists(st.floats() | st.floats(-1e9, 1e9) | st.integers(-(10**17), 10**17).map(float), max_size=8))
def test_floats_are_written_as_python_writes_them_rounded(values: list[float]) -> None:
    assert numerals(np.array(values, np.float64)).to_pylist() == as_python_writes(values)


def test_floats_are_rounded_right_where_a_decimal_number_is_halfway_or_a_power_of_ten_is_near() -> None:
    random = np.random.default_rng(0)
    ties = (random.integers(10**7, 10**8, 2000) + 0.5) / 10.0 ** random.integers(0, 12, 2000)
    powers = 10.0 ** np.arange(-20, 20)
    near = np.concatenate([powers, np.nextafter(powers, 0), np.nextafter(powers, np.inf)])
    spread = random.random(20_000) * 10.0 ** random.integers(-8, 12, 20_000)
    for values in (ties, np.nextafter(ties, 0), np.nextafter(ties, np.inf), near, spread, -spread, spread.round()):
        assert numerals(values).to_pylist() == as_python_writes(values.tolist())
    assert numerals(np.array([3, -4, 2**40])).to_pylist() == ["3", "-4", str(2**40)]


def test_texts_are_joined_row_by_row_with_or_without_those_that_are_not_there() -> None:
    known, unknown = numerals(np.array([1.5, 2.0])), numerals(np.array([np.nan, 3.0]))
    assert joined("a", unknown).to_pylist() == [None, "a3.0"]
    assert joined(known, unknown, between=",", without=True).to_pylist() == ["1.5", "2.0,3.0"]
