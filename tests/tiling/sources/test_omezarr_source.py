"""OME-Zarr 0.4 and 0.5 in folders, zip files and buckets reads as Zarr reads it, or is refused on one line."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import ome_zarr.writer
import pytest
import zarr
from numcodecs import GZip as Gzip2
from object_store import BUCKET, boto_client, place
from ome_zarrs import write
from source_oracle import assert_reads_like, assert_refused, picture
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from tiling.errors import SourceError
from tiling.geometry import Box, PixelSize
from tiling.source import open_source
from tiling.sources.claims import claimed_bytes
from tiling.sources.omezarr import arrays
from tiling.view import View

MIB = 1024**2


def bands_last(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.moveaxis(array, 0, -1) if array.ndim == 3 else array[..., np.newaxis]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("letters", ["yx", "cyx"])
def test_levels_read_as_zarr_reads_them(version: str, letters: str, tmp_path: Path) -> None:
    arrays = write(tmp_path / "image.zarr", letters, version)
    with open_source(tmp_path / "image.zarr") as source:
        assert source.format == f"ome-zarr-{version}"
        assert source.bands == (("red", "green", "blue") if letters == "cyx" else ("gray",))
        assert source.levels[0].pixel_size == PixelSize(0.25, 0.5, "um")
        assert [round(level.downsample) for level in source.levels] == [1, 2, 4]
        for level, array in enumerate(arrays):
            assert_reads_like(source, level, bands_last(array), boxes=4)
        copy = pickle.loads(pickle.dumps(source))
        np.testing.assert_array_equal(copy.read(1, Box(3, 5, 60, 99)), bands_last(arrays[1])[3:60, 5:99])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_one_z_and_one_t_are_read(version: str, tmp_path: Path) -> None:
    arrays = write(tmp_path / "image.zarr", "tczyx", version, levels=2, dtype="uint16")
    with open_source(tmp_path / "image.zarr") as source:
        assert (source.focal_planes, source.times) == (4, 2)
        assert_reads_like(source, 0, np.moveaxis(arrays[0][0, :, 0], 0, -1), boxes=2)
    with open_source(tmp_path / "image.zarr", View(z=3, t=1)) as source:
        assert_reads_like(source, 1, np.moveaxis(arrays[1][1, :, 3], 0, -1), boxes=2)
    with pytest.raises(SourceError, match=r"there is no z 4 at t 0: .*--z 0 to 3 and --t 0 to 1"):
        open_source(tmp_path / "image.zarr", View(z=4))


@pytest.mark.parametrize(
    "options",
    [
        {"compressors": BloscCodec(cname="lz4")},
        {"compressors": ZstdCodec()},
        {"compressors": GzipCodec()},
        {"compressors": None},
        {"chunks": (1, 32, 32), "shards": (1, 96, 128)},
        {"chunks": (3, 150, 211)},
    ],
    ids=["blosc", "zstd", "gzip", "none", "sharded", "one chunk"],
)
def test_every_codec_and_layout_that_is_read(options: dict[str, Any], tmp_path: Path) -> None:
    arrays = write(tmp_path / "image.zarr", levels=1, **options)
    with open_source(tmp_path / "image.zarr") as source:
        assert_reads_like(source, 0, bands_last(arrays[0]), boxes=3)


def test_what_the_public_writer_writes(tmp_path: Path) -> None:
    pixels = np.moveaxis(picture(3), -1, 0)
    for number, zarr_format in enumerate((2, 3)):
        folder = tmp_path / f"{number}.zarr"
        group = zarr.open_group(folder, mode="w", zarr_format=zarr_format)
        ome_zarr.writer.write_image(pixels, group, axes="cyx")
        with open_source(folder) as source:
            assert source.format == ("ome-zarr-0.4" if zarr_format == 2 else "ome-zarr-0.5")
            assert len(source.levels) > 1
            assert source.levels[0].pixel_size is None
            assert_reads_like(source, 0, np.moveaxis(pixels, 0, -1), boxes=2)


def test_the_image_inside_other_layouts(tmp_path: Path) -> None:
    arrays = write(tmp_path / "raw.zarr" / "0", "yx", "0.4", levels=1)
    (tmp_path / "raw.zarr" / ".zattrs").write_text(json.dumps({"bioformats2raw.layout": 3}))
    (tmp_path / "raw.zarr" / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
    with open_source(tmp_path / "raw.zarr") as source:
        assert_reads_like(source, 0, arrays[0][..., np.newaxis], boxes=1)
        assert len(source.fingerprint()) == 64
    zarr.open_group(tmp_path / "plate.zarr", mode="w", attributes={"ome": {"version": "0.5", "plate": {}}})
    assert_refused(tmp_path / "plate.zarr", "is a plate of many images")
    zarr.open_group(tmp_path / "plain.zarr", mode="w")
    assert_refused(tmp_path / "plain.zarr", "have no multiscales")


def test_a_zip_file_reads_like_the_folder(tmp_path: Path) -> None:
    arrays = write(tmp_path / "image.zarr")
    shutil.make_archive(str(tmp_path / "image.zarr"), "zip", tmp_path / "image.zarr")
    with open_source(tmp_path / "image.zarr.zip") as source:
        assert_reads_like(source, 0, bands_last(arrays[0]), boxes=3)
        copy = pickle.loads(pickle.dumps(source))
        assert copy.fingerprint() == source.fingerprint()
    (tmp_path / "other.zip").write_bytes(b"PK\3\4 no archive")
    assert_refused(tmp_path / "other.zip", "cut or damaged (File is not a zip file); download or copy it again")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("a.txt", "hello")
    assert_refused(tmp_path / "photos.zip", "holds a.txt, and nothing says which is meant")


def test_a_bucket_and_the_web_read_like_the_folder(s3: str, tmp_path: Path) -> None:
    folder = tmp_path / "image.zarr"
    arrays = write(folder)
    for file in folder.rglob("*"):
        if file.is_file():
            key = f"image.zarr/{file.relative_to(folder)}"
            boto_client(s3).put_object(Bucket=BUCKET, Key=key, Body=file.read_bytes(), ACL="public-read")
    with open_source(folder) as here:
        for url in (f"s3://{BUCKET}/image.zarr", f"{s3}/{BUCKET}/image.zarr"):
            with open_source(url) as there:
                assert there.describe() == here.describe()
                assert_reads_like(there, 1, bands_last(arrays[1]), boxes=2)
                first = there.fingerprint()
                assert first.startswith("objects ")
            with open_source(url) as there:
                assert there.fingerprint() == first
    place("image.zarr/0/c/0/0/0").write_bytes((folder / "0/c/0/0/1").read_bytes())
    with open_source(f"s3://{BUCKET}/image.zarr") as changed, open_source(folder) as here:
        assert changed.fingerprint() not in (first, here.fingerprint())
    with pytest.raises(SourceError, match="no such object"):
        open_source(f"s3://{BUCKET}/nothing.zarr")


def test_the_fingerprint_is_of_every_chunk_and_of_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "image.zarr"
    write(folder)
    with open_source(folder) as source:
        first = source.fingerprint()
    (folder / "labels").mkdir()
    (folder / "labels" / "zarr.json").write_text("{}")
    with open_source(folder) as source:
        assert source.fingerprint() == first
    chunk = folder / "0" / "c" / "0" / "1" / "1"
    chunk.write_bytes((folder / "0" / "c" / "0" / "1" / "2").read_bytes())
    with open_source(folder) as source:
        assert source.fingerprint() != first


def edit(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    document = json.loads(path.read_text())
    document.update(changes)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("name", "changes", "part"),
    [
        ("0/zarr.json", {"shape": [3, 10**12, 10**12]}, "has shape"),
        ("0/zarr.json", {"shape": [3, -1, 5]}, "has shape"),
        ("0/zarr.json", {"shape": [10**9]}, "has shape"),
        (
            "0/zarr.json",
            {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [3, 10**6, 10**6]}}},
            "a chunk of level '0' holds",
        ),
        ("0/zarr.json", {"codecs": [{"name": "bytes"}, {"name": "pickle"}]}, "is stored with codec pickle"),
        ("0/zarr.json", {"data_type": "complex64"}, "damaged or not supported"),
        ("0/zarr.json", {"codecs": "x"}, "damaged or not supported"),
        ("zarr.json", {"attributes": {"ome": {"multiscales": []}}}, "multiscales are empty"),
        ("zarr.json", {"attributes": {"ome": {"multiscales": [{"datasets": [{"path": "../x"}]}]}}}, "lie outside"),
        ("zarr.json", {"attributes": {"ome": {"multiscales": [{"axes": ["y", "y"], "datasets": []}]}}}, "has axes"),
        ("zarr.json", {"attributes": []}, "holds list where an object must stand"),
    ],
)
def test_hostile_metadata_is_refused(name: str, changes: dict[str, Any], part: str, tmp_path: Path) -> None:
    folder = tmp_path / "image.zarr"
    write(folder)
    edit(folder, name, **changes)
    assert_refused(folder, part)


def test_broken_files_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "image.zarr"
    write(folder)
    (folder / "1" / "zarr.json").unlink()
    assert_refused(folder, "its level '1' is missing")
    (folder / "zarr.json").write_text("{" * 100_000)
    assert_refused(folder, "zarr.json is no JSON")


@pytest.mark.parametrize("codec", ["gzip", "zstd", "blosc", "gzip of Zarr 2"])
def test_a_chunk_that_bursts_is_refused_before_it_is_unpacked(
    codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "MAX_DECODED_BYTES", 32 * MIB)
    folder = tmp_path / "image.zarr"
    if codec == "gzip of Zarr 2":
        write(folder, "yx", "0.4", levels=1, compressors=Gzip2())
        chunk = folder / "0" / "0" / "0"
    else:
        kinds: dict[str, Any] = {"gzip": GzipCodec(), "zstd": ZstdCodec(), "blosc": BloscCodec()}
        write(folder, "yx", levels=1, compressors=kinds[codec])
        chunk = folder / "0" / "c" / "0" / "0"
    assert chunk.is_file()
    if codec == "blosc":
        data = bytearray(chunk.read_bytes())
        struct.pack_into("<I", data, 4, 2**31 - 1)
        chunk.write_bytes(data)
    elif codec == "zstd":
        chunk.write_bytes(b"\x28\xb5\x2f\xfd" + bytes([0xE0]) + struct.pack("<Q", 2**40) + b"\1\0\0")
    else:
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        chunk.write_bytes(packer.compress(b"\0" * (40 * MIB)) + packer.flush())
    assert_refused(folder, "unpacks to more than")


def test_claims_are_upper_limits_of_what_codecs_unpack_to() -> None:
    data = np.random.default_rng(0).integers(0, 4, 300_000, np.uint8).tobytes()
    for packed in (imagecodecs.zstd_encode(data), imagecodecs.blosc_encode(data)):
        assert claimed_bytes(bytes(packed), 512 * MIB) == len(data)
    assert claimed_bytes(zlib.compress(data), 1000) > 1000
    streamed = b"\x28\xb5\x2f\xfd\x00\x58" + (128 * 1024 << 3 | 2).to_bytes(3, "little") + b"\0" + b"\3\0\0\0"
    assert claimed_bytes(streamed, 512 * MIB) >= 128 * 1024
