"""Means of squares: whole numbers added as such give the bits that adding them as floats gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiling.sources.square_means import FLOAT32_WHOLE, float_means, is_summed_whole, square_means

SIDES = st.integers(1, 40)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(SIDES, SIDES, st.integers(1, 5)),
    factor=st.integers(1, 17),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    seed=st.integers(0, 2**32 - 1),
    is_full=st.booleans(),
    step=st.sampled_from([1, 2, -1]),
)
def test_means_of_whole_numbers_are_those_of_floats_bit_by_bit(
    shape: tuple[int, int, int], factor: int, dtype: type[np.unsignedinteger], seed: int, is_full: bool, step: int
) -> None:
    most = int(np.iinfo(dtype).max)
    low = most if is_full else 0
    pixels = np.random.default_rng(seed).integers(low, most, shape, dtype, endpoint=True)[:, ::step]
    means, defined = square_means(pixels, factor), float_means(pixels, factor)
    assert means.dtype == defined.dtype == np.float32
    assert means.shape == defined.shape
    assert means.tobytes() == defined.tobytes()


@pytest.mark.parametrize(("dtype", "factor"), [(np.uint8, 256), (np.uint8, 255), (np.uint8, 258), (np.uint16, 16)])
def test_large_squares_are_those_of_floats_too(dtype: type[np.unsignedinteger], factor: int) -> None:
    for pixels in (
        np.full((factor + 3, factor + 1, 1), np.iinfo(dtype).max, dtype),
        np.random.default_rng(factor).integers(0, np.iinfo(dtype).max, (2 * factor, factor + 9, 2), dtype),
    ):
        assert square_means(pixels, factor).tobytes() == float_means(pixels, factor).tobytes()


def test_what_a_float32_may_round_is_added_as_floats() -> None:
    assert is_summed_whole(np.dtype(np.uint8), 256)
    assert not is_summed_whole(np.dtype(np.uint8), 257)
    assert not is_summed_whole(np.dtype(np.uint16), 17)
    assert not any(is_summed_whole(np.dtype(kind), 2) for kind in ("uint32", "int8", "int16", "float32", "bool"))
    assert 255 * 256**2 <= FLOAT32_WHOLE < 255 * 257**2


def test_squares_without_a_number_are_none() -> None:
    pixels = np.array([[np.nan, np.nan, 1], [np.nan, np.nan, np.inf]], np.float32)[..., np.newaxis]
    assert np.array_equal(square_means(pixels, 2)[..., 0], [[np.nan, 1]], equal_nan=True)
