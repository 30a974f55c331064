"""Damaged files and files made by an enemy: an error of one line, soon, and nothing else."""

from __future__ import annotations

import os
import random
import struct
import time
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from source_oracle import SECONDS, assert_refused, imwrite, open_and_read

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.source import open_source
from tiling.sources.tiff.lzw import check_lzw


def tiled(path: Path, **options: Any) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (150, 200, 3), np.uint8)
    imwrite(path, pixels, **{"tile": (64, 64), "photometric": "rgb", "metadata": None, **options})
    return path


def overwrite(path: Path, code: int, value: Any) -> Path:
    """Change a tag's value in place."""
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages.first.tags[code].overwrite(value)
    return path


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.tif").touch()
    (tmp_path / "text.tif").write_text("hello, world: this is no image")
    (tmp_path / "short.tif").write_bytes(b"II*\0")
    os.mkfifo(tmp_path / "pipe.tif")
    assert_refused(tmp_path / "missing.tif", "No such file")
    assert_refused(tmp_path / "empty.tif", "the file is empty (0 bytes)")
    assert_refused(tmp_path / "text.tif", "not a supported image", "use TIFF")
    assert_refused(tmp_path / "short.tif", "not a TIFF file")
    assert_refused(tmp_path / "pipe.tif", "is a device, pipe or socket")
    (tmp_path / "folder").mkdir()
    assert_refused(tmp_path / "folder", "is a folder without an image")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    path = tiled(tmp_path / "image.tif")
    path.chmod(0)
    assert_refused(path, "Permission denied")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", ["tiff", "cog", "png", "jpeg"])
def test_truncated_files_are_refused(kind: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"image.{kind}"
    match kind:
        case "png" | "jpeg":
            Image.fromarray(np.random.default_rng(0).integers(0, 255, (150, 200, 3), np.uint8)).save(path)
        case _:
            tiled(path, compression="deflate" if kind == "cog" else None)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert_refused(path)


def test_a_truncated_jpeg_tile_is_not_filled_with_grey(tmp_path: Path) -> None:
    path = tiled(tmp_path / "image.tif", compression="jpeg")
    with tifffile.TiffFile(path) as tif:
        counts = tif.pages.first.databytecounts
    overwrite(path, 325, (counts[0] // 2, *counts[1:]))
    source = open_source(path)
    with pytest.raises(SourceError, match=r"segment 0 .*end marker is missing"):
        source.read(0, Box(0, 0, 10, 10))
    source.read(0, Box(64, 64, 80, 80))


def test_a_small_file_that_claims_a_huge_image_costs_nothing(tmp_path: Path) -> None:
    path = tiled(tmp_path / "image.tif", compression="deflate")
    overwrite(path, 256, 20_480)
    assert_refused(path, "only 12 of 960 strips or tiles are listed")
    strip = tiled(tmp_path / "strip.tif", tile=None, compression="deflate")
    overwrite(overwrite(strip, 257, 1_000_000_000), 278, 1_000_000_000)
    assert_refused(strip, "must be decoded whole", "convert to a tiled TIFF")
    raw = tiled(tmp_path / "raw.tif", tile=None)
    overwrite(overwrite(raw, 257, 2_000_000_000), 278, 2_000_000_000)
    assert_refused(raw)


def test_a_tile_whose_stream_claims_more_than_the_tile_is_not_decoded(tmp_path: Path) -> None:
    for name, codec in (("jpeg", "jpeg"), ("webp", "webp"), ("jpeg2000", "jpeg2000"), ("png", "png")):
        path = tiled(tmp_path / f"{name}.tif", compression=codec)
        with tifffile.TiffFile(path) as tif:
            offset, count = tif.pages.first.dataoffsets[0], tif.pages.first.databytecounts[0]
        data = bytearray(path.read_bytes())
        claim_huge(data, offset, count, codec)
        path.write_bytes(data)
        assert_refused(path, "segment 0", "its stream claims")


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"\x80\x7f\x20", "its LZW stream names code 508 at bit 9, which is not in its table yet"),
        (b"\x00\x01\x00", "its LZW stream doesn't begin with a clear of the table"),
        (b"\x80\x80\x20", "its LZW stream doesn't begin with a clear of the table"),
    ],
)
def test_lzw_codes_that_would_end_the_process_are_refused(head: bytes, part: str, tmp_path: Path) -> None:
    path = tiled(tmp_path / "lzw.tif", compression="lzw")
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages.first.dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[offset : offset + 3] = head
    path.write_bytes(data)
    assert_refused(path, "segment 0", part)


@pytest.mark.parametrize("values", [1, 2, 60, 256])
def test_every_lzw_stream_of_an_encoder_passes(values: int) -> None:
    for count in (1, 10, 3000, 200_000):
        check_lzw(
            bytes(imagecodecs.lzw_encode(np.random.default_rng(0).integers(0, values, count, np.uint8).tobytes()))
        )


def claim_huge(data: bytearray, offset: int, count: int, codec: str) -> None:
    """Write 16,000 px and more into the header of a compressed stream."""
    match codec:
        case "jpeg":
            frame = data.index(b"\xff\xc0", offset, offset + count)
            struct.pack_into(">HH", data, frame + 5, 65_000, 65_000)
        case "webp":
            kind = bytes(data[offset + 12 : offset + 16])
            packed = 0x3FFF | 0x3FFF << 14 if kind == b"VP8L" else 0x3FFF | 0x3FFF << 16
            struct.pack_into("<I", data, offset + (21 if kind == b"VP8L" else 26), packed)
        case "jpeg2000":
            size = data.index(b"\xff\x51", offset, offset + count)
            struct.pack_into(">II", data, size + 6, 65_000, 65_000)
        case _:
            struct.pack_into(">II", data, offset + 16, 65_000, 65_000)


def test_whole_image_formats_are_refused_by_their_header(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    data = bytearray(imagecodecs.png_encode(np.zeros((10, 10, 3), np.uint8)))
    struct.pack_into(">II", data, 16, 30_000, 30_000)
    path.write_bytes(data)
    assert_refused(path, "2700000000 bytes to decode whole", "convert to a tiled TIFF")


def test_loops_of_directories_end(tmp_path: Path) -> None:
    path = tiled(tmp_path / "image.tif")
    data = bytearray(path.read_bytes())
    first = struct.unpack_from("<I", data, 4)[0]
    tags = struct.unpack_from("<H", data, first)[0]
    struct.pack_into("<I", data, first + 2 + 12 * tags, first)
    path.write_bytes(data)
    open_and_read(path)


def test_a_long_chain_of_overlapping_directories_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "chain.tif"
    count = 70_000
    data = bytearray(struct.pack("<2sHI", b"II", 42, 8))
    for index in range(count):  # directories of one tag, linked one after the other
        data += struct.pack("<HHHIII", 1, 256, 4, 1, 1, 8 + 18 * (index + 1))
    path.write_bytes(data)
    assert_refused(path, "more than 65536 directories")


@pytest.mark.parametrize(
    ("xml", "part"),
    [
        ('<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><OME>&b;</OME>', "never followed"),
        ('<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><OME>&a;</OME>', "never followed"),
        ("<OME><Image><Pixels SizeC='3'></OME>", "can't be parsed"),
        ("<OME><Image><Pixels SizeC='99999999'/></Image></OME>", "99999999 channels"),
        ("<OME><Image><Pixels SizeC='2' SizeZ='1'/></Image></OME>", "names page 1, the file has 1"),
        ("<OME><Image><Pixels SizeC='1'><TiffData IFD='-4'/></Pixels></Image></OME>", "names page -4"),
        (
            "<OME><Image><Pixels><TiffData><UUID FileName='../../x.tif'>x</UUID></TiffData></Pixels></Image></OME>",
            "keeps pixels in another file",
        ),
    ],
)
def test_hostile_ome_xml_is_refused(xml: str, part: str, tmp_path: Path) -> None:
    path = tmp_path / "image.ome.tif"
    text = f'<?xml version="1.0"?>{xml}'
    pixels = np.zeros((64, 64), np.uint8)
    imwrite(path, pixels, description=text.encode(), metadata=None, photometric="minisblack")
    assert_refused(path, part)


def test_seeded_mutations_read_or_are_refused(tmp_path: Path) -> None:
    good = [
        tiled(tmp_path / f"{name}.tif", compression=name if name != "none" else None).read_bytes()
        for name in ("none", "jpeg", "deflate", "lzw", "zstd", "webp")
    ]
    path = tmp_path / "mutation.tif"
    outcomes = {"read": 0, "refused": 0}
    for seed in range(400):
        chance = random.Random(seed)
        path.write_bytes(mutated(good[seed % len(good)], chance))
        started = time.process_time()
        try:
            open_and_read(path)
            outcomes["read"] += 1
        except SourceError:
            outcomes["refused"] += 1
        assert time.process_time() - started < SECONDS, seed
    assert min(outcomes.values()) > 50, outcomes


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Flip bits and write extremes, mostly in the tables; or cut the file off."""
    result = bytearray(data)
    if chance.random() < 0.1:
        return data[: chance.randrange(len(data))]
    tables = struct.unpack_from("<I", data, 4)[0]
    for _ in range(chance.choice((1, 2, 8))):
        near = chance.random() < 0.7
        place = tables + chance.randrange(250) if near else chance.randrange(len(data))
        place = min(place, len(data) - 4)
        if chance.random() < 0.5:
            result[place] ^= 1 << chance.randrange(8)
        else:
            struct.pack_into("<I", result, place, chance.choice((0, 1, 2**16, 2**31 - 1, 2**32 - 1)))
    return bytes(result)
