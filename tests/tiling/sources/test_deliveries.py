"""Scenes in the folders in which ESA and the USGS deliver them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scenes import WHERE, scene_pixels, write_landsat, write_sentinel2

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.source import open_source
from tiling.sources.scene.member import OpenMembers
from tiling.view import View

FINE, COARSE = scene_pixels(120, 120, 2), scene_pixels(60, 60, 2)
BANDS = {"B04": (10, FINE[..., 0]), "B08": (10, FINE[..., 1]), "B11": (20, COARSE[..., 0]), "B8A": (20, COARSE[..., 1])}


def test_a_sentinel_2_folder_is_its_bands_on_the_finest_grid(tmp_path: Path) -> None:
    safe = write_sentinel2(tmp_path, {**BANDS, "B01": (60, COARSE[:20, :20, 0])})
    for name in (safe, safe / "MTD_MSIL2A.xml"):
        with open_source(name) as scene:
            assert scene.bands == ("B01", "B04", "B08", "B8A", "B11")
            assert scene.levels[0].box == Box(0, 0, 120, 120)
            assert scene.levels[0].pixel_size is not None
            assert scene.levels[0].pixel_size.y == 10
            assert scene.georeference is not None
            assert (scene.georeference.crs, scene.georeference.affine) == ("EPSG:32632", tuple(WHERE)[:6])
            pixels = scene.read(0, scene.levels[0].box)
            assert np.array_equal(pixels[..., 1:3], FINE)
            assert abs(pixels[..., 4].mean() - COARSE[..., 0].mean()) < 5


def test_a_band_in_two_sizes_is_taken_in_the_finer(tmp_path: Path) -> None:
    safe = write_sentinel2(tmp_path, BANDS)
    write_sentinel2(tmp_path, {"B04": (20, COARSE[..., 0] + 1)})
    with open_source(safe) as scene:
        assert np.array_equal(scene.read(0, scene.levels[0].box)[..., 0], FINE[..., 0])


def test_a_coarser_band_stands_for_no_finer_one_that_is_missing(tmp_path: Path) -> None:
    safe = write_sentinel2(tmp_path, BANDS)
    write_sentinel2(tmp_path, {"B04": (20, COARSE[..., 0])})
    metadata = safe / "MTD_MSIL2A.xml"
    fine = next(safe.rglob("*_B04_10m.jp2"))
    named = f"<IMAGE_FILE>GRANULE/a/IMG_DATA/R10m/{fine.stem}</IMAGE_FILE><IMAGE_FILE>a/b_SCL_20m</IMAGE_FILE>"
    metadata.write_text(metadata.read_text().replace("</n1:General_Info>", f"{named}</n1:General_Info>"))
    with open_source(safe) as scene:
        assert scene.bands == ("B04", "B08", "B8A", "B11")
    fine.unlink()
    assert_refused(safe, "its B04 of 10 m")
    next(safe.rglob("*_B04_20m.jp2")).unlink()
    with open_source(safe) as scene:
        assert scene.bands == ("B08", "B8A", "B11"), "a band that was not downloaded is none"


def test_a_band_of_another_size_than_the_metadata_says_is_refused(tmp_path: Path) -> None:
    """Where it lies is said of that size."""
    safe = write_sentinel2(tmp_path, BANDS)
    tile = next(safe.glob("GRANULE/*/MTD_TL.xml"))
    sizes = "".join(
        f'<Size resolution="{metres}"><NROWS>{side}</NROWS><NCOLS>{side}</NCOLS></Size>'
        for metres, side in ((10, 120), (20, 60), (60, 20))
    )
    tile.write_text(tile.read_text().replace("</Tile_Geocoding>", f"{sizes}</Tile_Geocoding>"))
    with open_source(safe) as scene:
        assert scene.bands == ("B04", "B08", "B8A", "B11")
    coarse = next(safe.rglob("*_B11_20m.jp2"))
    next(safe.rglob("*_B08_10m.jp2")).write_bytes(coarse.read_bytes())
    assert_refused(safe, "_B08_10m.jp2 is 60 x 60 px, and the scene's metadata says 120 x 120")


def test_a_landsat_folder_is_its_bands_without_flags(tmp_path: Path) -> None:
    folder = write_landsat(tmp_path, {"SR_B4": FINE[..., 0], "SR_B10": FINE[..., 1], "SR_B5": FINE[..., 1]})
    for name in (folder, next(folder.glob("*_MTL.txt"))):
        with open_source(name) as scene:
            assert scene.bands == ("SR_B4", "SR_B5", "SR_B10")
            assert scene.nodata == 0
            assert np.array_equal(scene.read(0, scene.levels[0].box)[..., :2], FINE)


def test_files_of_bands_that_are_not_asked_for_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_landsat(tmp_path, {"B4": FINE[..., 0], "B5": FINE[..., 1]})
    read: list[str] = []
    real = OpenMembers.read
    monkeypatch.setattr(
        OpenMembers, "read", lambda self, member, box: [read.append(member.path.stem[-2:]), real(self, member, box)][1]
    )
    with open_source(folder, View(bands=(1,))) as scene:
        assert np.array_equal(scene.read(0, scene.levels[0].box)[..., 0], FINE[..., 1])
        scene.read_present(0, scene.levels[0].box)
    assert set(read) == {"B5"}


def test_incomplete_deliveries_are_refused(tmp_path: Path) -> None:
    safe = write_sentinel2(tmp_path, BANDS)
    tile = next(safe.glob("GRANULE/*/MTD_TL.xml"))
    text = tile.read_text()
    for broken, message in (
        (text.replace('resolution="20"', 'resolution="30"'), "where pixels of 20 m lie"),
        (text.replace("EPSG:32632", "EPSG:1"), "doesn't say where"),
        (text[:-5], "can't be parsed"),
        ("<!DOCTYPE a>" + text, "document type"),
    ):
        tile.write_text(broken)
        assert_refused(safe, message)
    tile.unlink()
    assert_refused(safe, "is missing")
    (safe / "GRANULE" / "second").mkdir()
    assert_refused(safe, "holds 2 granules")
    folder = write_landsat(tmp_path, {"B4": FINE[..., 0]})
    band = next(folder.glob("*_B4.TIF"))
    other = folder / band.name.replace("20200601", "20200617")
    other.write_bytes(band.read_bytes())
    assert_refused(folder, "holds 2 Landsat scenes")
    other.unlink()
    metadata = next(folder.glob("*_MTL.txt"))
    text = metadata.read_text()
    for value in ("nan", "0", "none"):
        metadata.write_text(text.replace("MULT_BAND_4 = 2.75e-05", f"MULT_BAND_4 = {value}"))
        assert_refused(folder, "holds no number that scales a band")
    metadata.write_text(text)
    band.unlink()
    assert_refused(folder, "no band")


def test_bands_that_broke_on_their_way_are_one_line(tmp_path: Path) -> None:
    safe = write_sentinel2(tmp_path, BANDS)
    band = next(safe.rglob("*_B8A_20m.jp2"))
    data = band.read_bytes()
    for broken in (b"", data[:40], data[: len(data) // 2], b"\0" * len(data), b"<!DOCTYPE html>"):
        band.write_bytes(broken)
        with pytest.raises(SourceError) as error, open_source(safe) as scene:
            scene.read(0, scene.levels[0].box)
        assert band.name in str(error.value)
        assert "\n" not in str(error.value)
    band.unlink()
    band.mkdir()
    with pytest.raises(SourceError) as error:
        open_source(safe)
    assert "\n" not in str(error.value)


def test_bands_of_one_scene_are_no_mosaic(tmp_path: Path) -> None:
    """A folder whose metadata is missing: the first of its bands would hide all others."""
    folder = write_landsat(tmp_path, {"SR_B4": FINE[..., 0], "SR_B5": FINE[..., 1]})
    next(folder.glob("*_MTL.txt")).unlink()
    next(folder.glob("*_QA_PIXEL.TIF")).unlink()
    safe = write_sentinel2(tmp_path, BANDS)
    fine = next(safe.glob("GRANULE/*/IMG_DATA/R10m"))
    for scene in (folder, folder / "*_B?.TIF", fine, fine / "*.jp2"):
        assert_refused(scene, "are bands of one scene")
    years = folder.with_name("years")
    for number, year in enumerate(("20200601", "20200617")):
        band = next(folder.glob(f"*_B{4 + number}.TIF"))
        years.mkdir(exist_ok=True)
        (years / band.name.replace("20200601", year)).write_bytes(band.read_bytes())
    with open_source(years) as scene:
        assert np.array_equal(scene.read(0, scene.levels[0].box)[..., 0], FINE[..., 0])


def assert_refused(path: Path, message: str) -> None:
    with pytest.raises(SourceError) as error:
        open_source(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
