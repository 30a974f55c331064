"""Shards made and read without Zarr are what Zarr makes and reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import ZstdCodec

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
