"""Arrays of every kind become an image that is read like any other: piece by piece, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import dask.array as da
import numpy as np
import pytest
import xarray
import zarr
from numpy.typing import NDArray

from tiling.errors import SourceError
from tiling.runs.array_image import ARRAY_NAME, write_array
from tiling.source import open_source


def chunked(pixels: NDArray[Any], *chunks: int) -> da.Array:
    return da.from_array(pixels, chunks=cast("Any", chunks[: pixels.ndim]))


def waves(shape: tuple[int, ...], dtype: str = "uint16") -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


KINDS: list[tuple[str, Callable[[NDArray[Any]], object]]] = [
    ("numpy", lambda pixels: pixels),
    ("one large chunk", lambda pixels: chunked(pixels, -1, -1, -1)),
    (
        "uneven chunks",
        lambda pixels: chunked(pixels, 130, 170, -1)[20:, 45:],
    ),
    ("rows", lambda pixels: chunked(pixels, 64, -1, -1)),
    ("xarray", lambda pixels: xarray.DataArray(pixels, dims=("y", "x", "band")[: pixels.ndim])),
    ("zarr", lambda pixels: zarr.array(pixels, chunks=(100, 90, 3)[: pixels.ndim])),
    ("big-endian", lambda pixels: pixels.astype(pixels.dtype.newbyteorder(">"))),
]


@pytest.mark.parametrize(("kind", "made"), KINDS, ids=[kind for kind, _ in KINDS])
@pytest.mark.parametrize("bands", [0, 3])
def test_every_kind_of_array_is_read_back_as_it_was(
    kind: str, made: Callable[[NDArray[Any]], object], bands: int, tmp_path: Path
) -> None:
    pixels = waves((500, 399, bands) if bands else (500, 399))
    array = made(pixels)
    given = np.asarray(array).astype("uint16")
    reports: list[tuple[int, int]] = []
    write_array(array, tmp_path / ARRAY_NAME, lambda done, total: reports.append((done, total)))
    assert reports[0][0] == 0
    assert reports[-1][0] == reports[-1][1] > 0
    with open_source(tmp_path / ARRAY_NAME) as source:
        read = source.read(0, source.levels[0].box)
        assert source.dtype == np.dtype("uint16")
    np.testing.assert_array_equal(read, given.reshape(*given.shape[:2], -1), strict=True)
    write_array(array, tmp_path / ARRAY_NAME, lambda done, total: None)


def test_a_dask_array_is_computed_once_and_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiling.runs.array_image._AT_ONCE_BYTES", 2 * 256 * 256 * 4)
    computed: list[tuple[int, ...]] = []
    seen: list[tuple[int, int]] = []

    def make(block_info: Any = None) -> NDArray[np.float32]:
        place = block_info[None]["array-location"]
        computed.append(tuple(start for start, _ in place))
        return np.full([stop - start for start, stop in place], np.nan, np.float32)

    chunks, empty = ((256,) * 3, (256,) * 3, (1,)), np.empty((0, 0, 0), np.float32)
    lazy = da.map_blocks(make, chunks=chunks, dtype=np.float32, meta=empty)
    write_array(lazy, tmp_path / ARRAY_NAME, lambda done, total: seen.append((done, len(computed))))
    assert seen == [(count, count) for count in (0, 2, 3, 5, 6, 8, 9)], "two chunks of a row at a time, none ahead"
    assert len({*computed}) == 9
    write_array(lazy, tmp_path / ARRAY_NAME, lambda done, total: None)


def test_an_image_that_was_cut_off_is_written_again(tmp_path: Path) -> None:
    pixels = waves((300, 200, 3), "uint8")

    def die(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_array(pixels + 1, tmp_path / ARRAY_NAME, die)
    with pytest.raises(SourceError):
        open_source(tmp_path / ARRAY_NAME)
    write_array(pixels, tmp_path / ARRAY_NAME, lambda done, total: None)
    with open_source(tmp_path / ARRAY_NAME) as source:
        np.testing.assert_array_equal(source.read(0, source.levels[0].box), pixels)
