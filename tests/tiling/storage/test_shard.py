"""Shards made and read without Zarr are what Zarr makes and reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import GzipCodec, ZstdCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from tiling.storage.shard import ShardCodec, ShardFormatError

SHARD, CHUNK = (48, 64), (16, 32)


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_zarr_reads_what_is_written_and_the_other_way_round(dtype: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pixels_YX = (random.integers(1, 200, (70, 90)) * (random.random((70, 90)) > 0.9)).astype(dtype)
    pixels_YX[:16, :32] = 0
    array = zarr.create_array(
        tmp_path / "a",
        shape=(70, 90),
        chunks=CHUNK,
        shards=SHARD,
        dtype=dtype,
        compressors=ZstdCodec(level=3, checksum=True),
    )
    codec = ShardCodec(SHARD, CHUNK, np.dtype(dtype), 1)
    for row, col in np.ndindex(2, 2):
        encoded = codec.encode(pixels_YX[row * 48 : row * 48 + 48, col * 64 : col * 64 + 64])
        assert encoded is not None
        (path := tmp_path / "a" / "c" / str(row) / str(col)).parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded)
    np.testing.assert_array_equal(array[:], pixels_YX)
    array[:] = pixels_YX[::-1, ::-1]
    data = (tmp_path / "a" / "c" / "0" / "0").read_bytes()
    for y0, x0, y1, x1 in ((0, 0, 48, 64), (3, 5, 47, 33), (17, 40, 18, 41)):
        found_YX = np.zeros((y1 - y0, x1 - x0), dtype)
        codec.decode_into(data, (y0, x0), found_YX)
        np.testing.assert_array_equal(found_YX, pixels_YX[::-1, ::-1][y0:y1, x0:x1])


def test_nothing_takes_no_bytes_and_other_bytes_are_refused() -> None:
    codec = ShardCodec(SHARD, CHUNK, np.dtype(np.int32), 1)
    assert codec.encode(np.zeros(SHARD, np.int32)) is None
    encoded = codec.encode(np.ones(SHARD, np.int32))
    assert encoded is not None
    room = np.zeros(SHARD, np.int32)
    for wrong in (b"", encoded[:-3], encoded[:-1] + b"x", b"\0" * 20 + encoded[20:]):
        with pytest.raises(ShardFormatError):
            codec.decode_into(wrong, (0, 0), room)


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_chunks_of_one_label_are_those_of_a_codec_that_has_seen_none(dtype: str) -> None:
    """Also after other labels, after the fill value, beside chunks that differ in one pixel, and at an edge."""
    codec, number = ShardCodec((16, 32), CHUNK, np.dtype(dtype), 3, fill=0), np.dtype(dtype).type
    for label, shape in ((1, CHUNK), (2, CHUNK), (0, CHUNK), (2, CHUNK), (1, (16, 31)), (1, CHUNK)):
        even_YX = np.full(shape, label, number)
        odd_YX = even_YX.copy()
        odd_YX[-1, -1] += 1
        for pixels_YX in (even_YX, odd_YX, even_YX):
            fresh = ShardCodec((16, 32), CHUNK, np.dtype(dtype), 3, fill=0)
            assert codec.encode(pixels_YX) == fresh.encode(pixels_YX)


@settings(max_examples=25, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    channels=st.sampled_from([None, 1]),
    fill=st.sampled_from([0, 255]),
    dtype=st.sampled_from(["uint8", "int32"]),
    cut=st.tuples(st.integers(0, 15), st.integers(0, 31)),
    seed=st.integers(0, 2**32 - 1),
)
def test_bytes_are_those_that_zarr_makes(
    grid: tuple[int, int], channels: int | None, fill: int, dtype: str, cut: tuple[int, int], seed: int
) -> None:
    lead = () if channels is None else (channels,)
    shard = (grid[0] * CHUNK[0], grid[1] * CHUNK[1])
    files: dict[str, Buffer] = {}
    array = zarr.create_array(
        MemoryStore(files),
        shape=(*lead, *shard),
        chunks=(*lead, *CHUNK),
        shards=(*lead, *shard),
        dtype=dtype,
        fill_value=fill,
        compressors=ZstdCodec(level=3, checksum=True),
    )
    random = np.random.default_rng(seed)
    pixels_YX = random.integers(0, 4, (shard[0] - cut[0], shard[1] - cut[1])).astype(dtype)
    for y in range(0, shard[0], CHUNK[0]):
        for x in range(0, shard[1], CHUNK[1]):
            if random.random() < 0.4:
                pixels_YX[y : y + CHUNK[0], x : x + CHUNK[1]] = random.choice([0, 255])
    array[(..., slice(pixels_YX.shape[0]), slice(pixels_YX.shape[1]))] = pixels_YX.reshape(*lead, *pixels_YX.shape)
    codec = ShardCodec.of(array)
    assert codec is not None
    wanted = files.get("/".join(["c", *["0"] * array.ndim]))
    assert codec.encode(pixels_YX) == (None if wanted is None else wanted.to_bytes())


@pytest.mark.parametrize(
    "other",
    [
        {"compressors": ZstdCodec(level=3, checksum=False)},
        {"compressors": GzipCodec()},
        {"compressors": None},
        {"shards": None},
        {"dtype": "float32"},
    ],
)
def test_arrays_by_other_codecs_are_left_to_zarr(other: dict[str, Any]) -> None:
    usual: dict[str, Any] = {"dtype": "uint8", "shards": SHARD, "compressors": ZstdCodec(level=3, checksum=True)}
    array = zarr.create_array(MemoryStore(), shape=SHARD, chunks=CHUNK, fill_value=0, **{**usual, **other})
    assert ShardCodec.of(array) is None
    assert ShardCodec.of(zarr.create_array(MemoryStore(), shape=SHARD, chunks=CHUNK, fill_value=0, **usual)) is not None
