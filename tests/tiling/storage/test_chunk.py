"""Staged chunks made and read without Zarr are Zarr's own bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec
from zarr.storage import LocalStore

from tiling.storage.chunk import ChunkCodec, ChunkFormatError

SHAPE = (1, 40, 36, 3)


def array_of(path: Path, dtype: str, codecs: list[Any]) -> zarr.Array[Any]:
    return zarr.create_array(LocalStore(path), shape=(4, *SHAPE[1:]), chunks=SHAPE, dtype=dtype, compressors=codecs)


def staged(path: Path, dtype: str = "uint8", **codec: Any) -> zarr.Array[Any]:
    given: dict[str, Any] = {"cname": "lz4", "clevel": 1, "shuffle": "noshuffle"} | codec
    return array_of(path, dtype, [BloscCodec(**given), Crc32cCodec()])


def plain(path: Path, dtype: str = "uint8") -> zarr.Array[Any]:
    return array_of(path, dtype, [Crc32cCodec()])


def stored_by(codec: ChunkCodec, pixels: np.ndarray[Any, Any]) -> bytes:
    return b"".join(codec.encode(pixels))


def decoded_by(codec: ChunkCodec, data: bytes) -> np.ndarray[Any, Any]:
    return codec.decode(np.frombuffer(data, np.uint8))


def pixels_of(dtype: str, seed: int = 0) -> np.ndarray[Any, Any]:
    values = np.random.default_rng(seed).integers(0, 9, SHAPE[1:])
    values[:20] = 3
    return values.astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize(
    "codec", [None, {}, {"shuffle": "shuffle"}, {"cname": "zstd", "clevel": 3, "shuffle": "bitshuffle"}]
)
def test_the_bytes_are_zarrs_own_both_ways(tmp_path: Path, dtype: str, codec: dict[str, Any] | None) -> None:
    pixels = pixels_of(dtype)
    array = plain(tmp_path, dtype) if codec is None else staged(tmp_path, dtype, **codec)
    chunks = ChunkCodec.of(array)
    assert chunks is not None
    array[2] = pixels
    stored = (tmp_path / "c/2/0/0/0").read_bytes()
    assert stored_by(chunks, pixels) == stored
    assert np.array_equal(decoded_by(chunks, stored)[0], pixels)


def test_what_is_not_stored_like_this_stays_zarrs(tmp_path: Path) -> None:
    both = [BloscCodec(), BloscCodec(), Crc32cCodec()]
    others = [[BloscCodec()], [ZstdCodec()], [GzipCodec(), Crc32cCodec()], [Crc32cCodec(), BloscCodec()], [], both]
    assert [ChunkCodec.of(array_of(tmp_path / str(n), "uint8", each)) for n, each in enumerate(others)] == [None] * 6


def test_pixels_of_another_layout_are_stored_as_they_look(tmp_path: Path) -> None:
    chunks, pixels = ChunkCodec.of(staged(tmp_path)), pixels_of("uint8")
    assert chunks is not None
    turned = np.ascontiguousarray(pixels.transpose(2, 1, 0)).transpose(2, 1, 0)
    assert stored_by(chunks, turned) == stored_by(chunks, pixels)


@pytest.mark.parametrize("cut", ["nothing", "short", "flipped", "smaller", "larger", "no blosc"])
def test_what_is_no_whole_chunk_is_refused(tmp_path: Path, cut: str) -> None:
    chunks = ChunkCodec.of(staged(tmp_path / "a"))
    other = ChunkCodec.of(
        zarr.create_array(
            LocalStore(tmp_path / "b"),
            shape=(1, 80, 80, 3),
            chunks=(1, 80, 80, 3),
            dtype="uint8",
            compressors=[BloscCodec(cname="lz4", shuffle="noshuffle"), Crc32cCodec()],
        )
    )
    assert chunks is not None
    assert other is not None
    whole = stored_by(chunks, pixels_of("uint8"))
    large = stored_by(other, np.zeros((80, 80, 3), np.uint8))
    text = b"no blosc at all, but of some length"
    data = {
        "nothing": b"",
        "short": whole[:-9],
        "flipped": whole[:50] + bytes([whole[50] ^ 1]) + whole[51:],
        "smaller": whole,
        "larger": large,
        "no blosc": text + google_crc32c.value(text).to_bytes(4, "little"),
    }[cut]
    with pytest.raises(ChunkFormatError):
        decoded_by(other if cut == "smaller" else chunks, data)


@pytest.mark.parametrize("cut", ["nothing", "checksum alone", "short", "flipped", "longer"])
def test_what_is_no_whole_plain_chunk_is_refused(tmp_path: Path, cut: str) -> None:
    chunks = ChunkCodec.of(plain(tmp_path, "uint16"))
    assert chunks is not None
    whole = stored_by(chunks, pixels_of("uint16"))
    more = whole[:-4] + b"xy"
    data = {
        "nothing": b"",
        "checksum alone": whole[-4:],
        "short": whole[:4000],
        "flipped": whole[:50] + bytes([whole[50] ^ 1]) + whole[51:],
        "longer": more + google_crc32c.value(more).to_bytes(4, "little"),
    }[cut]
    with pytest.raises(ChunkFormatError):
        decoded_by(chunks, data)
