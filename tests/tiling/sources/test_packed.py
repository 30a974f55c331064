"""Images in zip, tar and gzip files: those that are unpacked, and what is refused on one line."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from refusals import expect_refused
from scenes import cut, scene_pixels, write_landsat, write_raster, write_sentinel2

from tiling.archives.listing import find_slides
from tiling.errors import ImageChangedError
from tiling.export.stac_item import acquired_in
from tiling.runs.unchanged_source import VerifiedSource, is_unchanged, open_with_version
from tiling.source import ImageSource, open_source
from tiling.sources.omezarr import arrays
from tiling.sources.packed import unpacked as room
from tiling.view import View

FINE, COARSE = scene_pixels(120, 120, 2), scene_pixels(60, 60, 2)
REAL, LINK = 0o100644 << 16, 0o120777 << 16


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder / f"overtile-unpacked-{os.getuid()}"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "image.tif", FINE, nodata=0)


def zipped(path: Path, members: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", how) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def tarred(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as file:  # pyright: ignore[reportCallIssue, reportArgumentType, reportUnknownVariableType]
        for info, data in members:
            info.size = len(data) if info.isreg() else 0
            file.addfile(info, io.BytesIO(data))
    return path


def tar_info(name: str, kind: bytes = tarfile.REGTYPE, leads_to: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, leads_to
    return info


def patched(path: Path, *changes: tuple[bytes, int, bytes]) -> Path:
    """Bytes at an offset behind a mark, of every place where that stands."""
    data = bytearray(path.read_bytes())
    for mark, at, new in changes:
        start = data.find(mark)
        while start >= 0:
            data[start + at : start + at + len(new)] = new
            start = data.find(mark, start + 1)
    path.write_bytes(data)
    return path


def whole(source: ImageSource) -> np.ndarray:
    return source.read(0, source.levels[0].box)


def expect_same(plain: str | Path, packed: str | Path, view: View | None = None) -> None:
    with open_source(plain, view) as one, open_source(packed, view) as other:
        assert other.format == one.format
        assert (other.bands, other.levels, other.georeference) == (one.bands, one.levels, one.georeference)
        assert (other.nodata, other.scales, other.dtype) == (one.nodata, one.scales, one.dtype)
        assert np.array_equal(whole(other), whole(one))


def test_a_packed_scene_is_the_folder(tmp_path: Path) -> None:
    safe = write_sentinel2(tmp_path / "s2", {"B04": (10, FINE[..., 0]), "B11": (20, COARSE[..., 0])})
    landsat = write_landsat(tmp_path / "landsat", {"SR_B4": FINE[..., 0], "SR_B5": FINE[..., 1]})
    cut(tmp_path / "parts", scene_pixels())
    delivered = Path(shutil.make_archive(str(tmp_path / "S2"), "zip", tmp_path / "s2"))
    expect_same(safe, delivered)
    expect_same(safe / "MTD_MSIL2A.xml", f"/vsizip/{delivered}/{safe.name}/MTD_MSIL2A.xml")
    expect_same(landsat, shutil.make_archive(str(tmp_path / "L"), "tar", landsat))
    expect_same(landsat, shutil.make_archive(str(tmp_path / "L"), "gztar", tmp_path / "landsat"))
    mosaic = shutil.make_archive(str(tmp_path / "m"), "zip", tmp_path / "parts")
    expect_same(tmp_path / "parts", mosaic)
    expect_same(tmp_path / "parts", mosaic, View(crs="EPSG:3857"))
    bands = "red={0}*_SR_B4.TIF,nir={0}*_SR_B5.TIF"
    for inside in (f"{tmp_path}/L.tar!/", f"{tmp_path}/?.tar.gz!/*/", f"/vsitar/{tmp_path}/L.tar/"):
        expect_same(bands.format(f"{landsat}/"), bands.format(inside))
    assert acquired_in(delivered) == acquired_in(safe)


def test_a_packed_file_is_the_file(tmp_path: Path, image: Path) -> None:
    data = image.read_bytes()
    (tmp_path / "one.tif.gz").write_bytes(gzip.compress(data))
    zipped(
        tmp_path / "stored.zip", {"__MACOSX/._a.tif": b"x", "a/a.tif": data, "a/read me.txt": b"x"}, zipfile.ZIP_STORED
    )
    tarred(tmp_path / "one.tar", (tar_info("./a.tif"), data), (tar_info("./folder", tarfile.DIRTYPE), b""))
    for name in ("one.tif.gz", "stored.zip", "stored.zip!/a/a.tif", "stored.zip!a/a.tif", "one.tar", "one.tar!/a.tif"):
        expect_same(image, tmp_path / name)
    expect_same(image, f"zip://{tmp_path}/stored.zip!/a/a.tif")
    expect_same(image, f"/vsigzip/{tmp_path}/one.tif.gz")
    expect_same(image, f"/vsizip/{{{tmp_path}/stored.zip}}/a/a.tif")
    (tmp_path / "odd!name.tif").write_bytes(data)
    expect_same(image, tmp_path / "odd!name.tif")


def test_a_file_in_a_zip_may_be_larger_than_a_chunk(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "MAX_ENCODED_BYTES", 1000)
    expect_same(image, zipped(tmp_path / "a.zip", {"a.tif": image.read_bytes()}))
    zarr = zipped(tmp_path / "b.zip", {"zarr.json": b"{}", "c/0": bytes(2000)})
    expect_refused(lambda: open_source(zarr), "a file in it unpacks to 2000 bytes")


def test_it_is_unpacked_once_and_known_by_the_packed_file(tmp_path: Path, image: Path, scratch: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"a.tif": image.read_bytes()})
    with open_source(archive) as source:
        folders = [each for each in scratch.iterdir() if each.is_dir()]
        made = next(folders[0].rglob("a.tif")).stat().st_mtime_ns
        again = pickle.loads(pickle.dumps(source))
        with again, open_source(archive) as third:
            assert np.array_equal(whole(again), whole(third))
            assert third.fingerprint() == source.fingerprint() != open_source(image).fingerprint()
        assert next(folders[0].rglob("a.tif")).stat().st_mtime_ns == made
    opened, version = open_with_version(archive)
    with opened:
        assert is_unchanged(archive, opened.format, opened.fingerprint(), version)
        verified = VerifiedSource(archive, None, opened.fingerprint(), version)
        with verified:
            verified.read(whole)
            zipped(archive, {"a.tif": write_raster(tmp_path / "b.tif", FINE + 1, nodata=0).read_bytes()})
            with pytest.raises(ImageChangedError):
                verified.read(whole)
        assert not is_unchanged(archive, opened.format, opened.fingerprint(), version)


def test_what_nothing_has_open_is_kept_within_bounds(tmp_path: Path, image: Path, scratch: Path) -> None:
    data = image.read_bytes()
    held = open_source(zipped(tmp_path / "held.zip", {"a.tif": data}))
    for number in range(room.KEPT + 2):
        open_source(zipped(tmp_path / f"{number}.zip", {"a.tif": data})).close()
    assert len(list(scratch.glob("*/*.zip!"))) == room.KEPT + 1
    assert list(scratch.glob("*/held.zip!"))
    held.close()
    for lock in scratch.glob("*.lock"):
        os.utime(lock, (0, time.time() - room.KEPT_SECONDS - 1))
    room.tidy()
    assert not list(scratch.iterdir())


def test_a_folder_of_deliveries_and_a_manifest_hold_packed_ones(tmp_path: Path, image: Path) -> None:
    name = "S2A_MSIL2A_20200601T101031_N0500_R022_T32UQD_20200601T120000"
    source = tmp_path / "in"
    for each in (f"{name}.SAFE.zip", f"{name}.zip", "LC08_L2SP_193026_20200601_20200824_02_T1.tar", "letters.zip"):
        zipped(source / each, {"a.tif": image.read_bytes()})
    listed = list(find_slides(str(source), tmp_path / "out"))
    assert [slide.name[:4] for slide in listed] == ["LC08", "S2A_", "S2A_"]
    assert len(list(find_slides(f"{source}/*.zip", tmp_path / "out"))) == 3
    manifest = source / "slides.csv"
    manifest.write_text(
        f"slide,name\nletters.zip\nletters.zip!/a.tif\n/vsizip/{source}/letters.zip/a.tif\nzip://letters.zip!/a.tif,2\n"
    )
    with manifest.open("a") as file:
        file.write("/vsizip/no.zip/a.tif\nzip+https://example.org/canary.zip!/a.tif\n")
    *found, gone, remote = find_slides(str(manifest), tmp_path / "out")
    assert [slide.refused for slide in found] == [None] * 4
    assert "line 6 of the manifest: /vsizip/no.zip/a.tif: leads to no file" in f"{gone.refused}"
    assert "read from disks" in f"{remote.refused}"
    for slide in found:
        expect_same(image, str(slide.place))


def bomb(folder: Path) -> Path:
    return zipped(folder / "x.zip", {"a.tif": bytes(3_000_000)})


def lies_over(folder: Path) -> Path:
    path = zipped(folder / "x.zip", {"a.tif": b"1" * 50, "b.tif": b"1" * 50}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    second = data.rfind(b"PK\x01\x02")
    data[second + 42 : second + 46] = struct.pack("<I", 0)
    path.write_bytes(data)
    return path


def in_zip(info: zipfile.ZipInfo, data: bytes = b"1", how: int = zipfile.ZIP_STORED) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "x.zip", "w", how) as file:
            file.writestr(info, data, how)
        return folder / "x.zip"

    return write


def linked(mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("a.tif")
    info.create_system, info.external_attr = 3, mode
    return info


def gzipped(path: Path, data: bytes, count: int | None = None) -> Path:
    path.write_bytes(gzip.compress(data)[:count])
    return path


def cut_to(path: Path, count: int) -> Path:
    os.truncate(path, path.stat().st_size + count if count < 0 else count)
    return path


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "climbs": (in_zip(zipfile.ZipInfo("../a.tif")), "'../a.tif' leads out of it"),
    "from the root": (in_zip(zipfile.ZipInfo("/etc/a.tif")), "'/etc/a.tif' leads out of it"),
    "backslash": (in_zip(zipfile.ZipInfo("a\\b.tif")), "has a name with a backslash"),
    "bell": (in_zip(zipfile.ZipInfo("a\x07.tif")), "that can't be shown"),
    "long": (in_zip(zipfile.ZipInfo("a" * 300)), "has a name that no disk holds"),
    "deep": (in_zip(zipfile.ZipInfo("a/" * 40 + "a")), "has a name that no disk holds"),
    "link": (in_zip(linked(LINK), b"/etc/passwd"), "'a.tif' is a link"),
    "twice": (lambda at: zipped(at / "x.zip", {"a.tif": b"1", "./a.tif": b"2"}), "'./a.tif' stands twice"),
    "file and folder": (lambda at: zipped(at / "x.zip", {"a": b"1", "a/b": b"2"}), "'a/b' stands twice"),
    "encrypted": (
        lambda at: patched(zipped(at / "x.zip", {"a.tif": b"1"}), (b"PK\1\2", 8, b"\1"), (b"PK\3\4", 6, b"\1")),
        "'a.tif' is encrypted",
    ),
    "bzip2": (in_zip(zipfile.ZipInfo("a.tif"), how=zipfile.ZIP_BZIP2), "is compressed by bzip2"),
    "overlapping": (lies_over, "lies over another"),
    "bomb": (bomb, "it unpacks to 0.0 GB and more"),
    "bomb that lies": (lambda at: patched(bomb(at), (b"PK\1\2", 24, struct.pack("<I", 999))), "download it again"),
    "gzip bomb": (
        lambda at: gzipped(at / "x.tif.gz", bytes(3_000_000)),
        "it unpacks to 0.0 GB and more",
    ),
    "many": (lambda at: zipped(at / "x.zip", {f"{n}.tif": b"" for n in range(9)}), "holds more than 8 files"),
    "empty": (lambda at: zipped(at / "x.zip", {}), "it holds no file"),
    "cut zip": (lambda at: cut_to(zipped(at / "x.zip", {"a.tif": bytes(99)}), -30), "File is not a zip file"),
    "damaged": (lambda at: patched(zipped(at / "x.zip", {"a.tif": b"12"}, 0), (b"a.tif12", 5, b"0")), "Bad CRC-32"),
    "tar link": (lambda at: tarred(at / "x.tar", (tar_info("a.tif", tarfile.SYMTYPE, "/b"), b"")), "is a link"),
    "hard link": (lambda at: tarred(at / "x.tar", (tar_info("a.tif", tarfile.LNKTYPE, "b"), b"")), "is a link"),
    "pipe": (lambda at: tarred(at / "x.tar", (tar_info("a.tif", tarfile.FIFOTYPE), b"")), "is no plain file"),
    "tar climbs": (lambda at: tarred(at / "x.tar", (tar_info("b/../../a.tif"), b"1")), "leads out of it"),
    "tar twice": (lambda at: tarred(at / "x.tar", *[(tar_info("a.tif"), b"1")] * 2), "stands twice"),
    "tar without end": (
        lambda at: cut_to(tarred(at / "x.tar", (tar_info("a"), bytes(512))), 1024),
        "its end is missing",
    ),
    "tar cut in a file": (
        lambda at: cut_to(tarred(at / "x.tar", (tar_info("a"), bytes(999))), 700),
        "unexpected end of data",
    ),
    "tar cut in a header": (
        lambda at: cut_to(tarred(at / "x.tar", (tar_info("a"), b""), (tar_info("b"), b"")), 600),
        "its end is missing",
    ),
    "cut gzip": (
        lambda at: gzipped(at / "x.gz", os.urandom(9000), 5000),
        "ended before the end-of-stream",
    ),
    "cut tar.gz": (
        lambda at: cut_to(tarred(at / "x.tgz", (tar_info("a.tif"), os.urandom(9000)), mode="w:gz"), 5000),
        "ended before the end-of-stream",
    ),
    "in another": (
        lambda at: zipped(at / "x.zip", {"a.zip": zipped(at / "a.zip", {"b.tif": b"1"}).read_bytes()}),
        "x.zip!/a.zip: the file is compressed with zip within another such file",
    ),
    "no image": (lambda at: zipped(at / "x.zip", {"a.txt": b"1"}), "x.zip!: holds a.txt, and nothing says which"),
    "several": (lambda at: zipped(at / "x.zip", {"a/a.nc": b"1", "a/b.nc": b"1"}), "x.zip!/a: holds a.nc, b.nc"),
    "not an image": (lambda at: zipped(at / "x.zip", {"a.tif": b"word"}), "x.zip!/a.tif: not a supported image"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_broken_or_hostile_is_one_line(
    kind: str, tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "SURE_BYTES", 1_000_000)
    monkeypatch.setattr(room, "MOST_MEMBERS", 8)
    write, message = REFUSED[kind]
    path = write(tmp_path)
    expect_refused(lambda: open_source(path), message)
    room.tidy(all_unused=True)
    assert not list(scratch.iterdir()), "nothing is left of it"


def test_names_that_lead_nowhere_are_one_line(tmp_path: Path, image: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"b/a.tif": image.read_bytes(), "item.json": b""})
    for name, message in (
        (f"{archive}!/c.tif", "holds no 'c.tif', but b, item.json"),
        (f"{archive}!/../image.tif", "climbs out of it"),
        (f"{image}!/a.tif", "image.tif is no zip, tar or gzip file"),
        (f"{archive}!/*/*.jp2", "the glob finds no file"),
        (f"red={archive}!/../image.tif", "climbs out of it"),
        (f"red={archive}!/c.tif", "there is no such file"),
        (f"/vsizip/{tmp_path}/no.zip/a.tif", "leads to no file on this machine's disks"),
        (f"/vsizip//vsicurl/http://example.org/a.zip/{archive}", "are read from disks, and from none within another"),
        (f"/vsizip//vsizip/{archive}/a.zip", "from none within another"),
        ("zip+https://example.org/canary.zip!/a.tif", "a name that begins with zip+https"),
        ("zip://https://example.org/canary.zip!/a.tif", "are read from disks"),
    ):
        expect_refused(lambda name=name: open_source(name), message)


def test_an_item_that_leads_to_the_web_is_refused(tmp_path: Path) -> None:
    asset = {"href": "https://example.org/a.tif", "type": "image/tiff", "eo:bands": [{"name": "red"}]}
    item = {"type": "Feature", "stac_version": "1.0.0", "assets": {"red": asset}}
    archive = zipped(tmp_path / "a.zip", {"item.json": json.dumps(item).encode()})
    expect_refused(lambda: open_source(f"{archive}!/item.json"), "leads to files on the web")


def test_a_full_disk_and_a_folder_of_others_are_one_line(
    tmp_path: Path, image: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = zipped(tmp_path / "a.zip", {"a.tif": image.read_bytes()})
    with monkeypatch.context() as patch:
        patch.setattr(room, "SPARE_BYTES", 2**60)
        expect_refused(lambda: open_source(archive), "make space there, set TMPDIR to another folder")
    scratch.chmod(0o755)
    expect_refused(lambda: open_source(archive), "a folder of this user's that no other can open")
