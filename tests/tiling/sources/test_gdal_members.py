"""Rasters that GDAL alone reads as files of a scene: the pixels of the same scene of GeoTIFFs."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from killed_reader import kill_while_it_reads
from numpy.typing import NDArray
from rasterio.shutil import copy as copy_raster
from rasterio.transform import Affine
from scenes import WHERE, cut, scene_pixels, write_raster

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.source import ImageSource, open_source
from tiling.sources.scene.member import SLOW_OPEN
from tiling.view import View

PIXELS = scene_pixels(150, 170, 6)
PIXELS[:, 130:] = 0
FORMATS: dict[str, dict[str, Any]] = {
    "img": {"driver": "HFA"},
    "dat": {"driver": "ENVI"},
    "nc": {"driver": "netCDF", "format": "NC4"},
}


def convert(path: Path, suffix: str) -> Path:
    """The same pixels and place in another format, instead of the GeoTIFF."""
    target = path.with_suffix(f".{suffix}")
    with rasterio.open(path) as file:
        copy_raster(file, target, **FORMATS[suffix])
    path.unlink()
    return target


def whole(source: ImageSource) -> NDArray[Any]:
    return source.read(0, source.levels[0].box)


def readers() -> set[int]:
    """Processes of this one's that read with GDAL."""
    found = set[int]()
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            try:
                command = Path("/proc", child, "cmdline").read_bytes()
            except OSError:
                continue
            if b"gdal/child.py" in command:
                found.add(int(child))
    return found


def as_gdal_has_it(folder: Path, suffix: str, names: str = "red,nir") -> tuple[Path, Path]:
    """Two scenes of the same bands: of GeoTIFFs, and in a format of GDAL's."""
    listed: list[list[str]] = [[], []]
    for band, name in enumerate(names.split(",")):
        for number, kind in enumerate(("tif", suffix)):
            file = write_raster(folder / kind / f"{name}.tif", PIXELS[..., band : band + 1], nodata=0)
            listed[number].append(f"{name}={file if kind == 'tif' else convert(file, suffix)}")
    one, other = (folder / ",".join(each) for each in listed)
    return one, other


@pytest.mark.parametrize("suffix", FORMATS)
def test_bands_in_files_that_gdal_reads_are_those_of_geotiffs(suffix: str, tmp_path: Path) -> None:
    theirs, ours = as_gdal_has_it(tmp_path, suffix)
    before = readers()
    with open_source(theirs) as expected, open_source(ours) as scene:
        assert (scene.format, scene.bands, scene.dtype, scene.nodata) == ("scene", ("red", "nir"), expected.dtype, 0)
        assert scene.levels[0].box == expected.levels[0].box
        one, other = scene.georeference, expected.georeference
        assert one is not None
        assert other is not None
        assert one.affine == other.affine
        assert rasterio.CRS.from_wkt(one.wkt or "") == rasterio.CRS.from_wkt(other.wkt or "")
        values, held = scene.read_present(0, scene.levels[0].box)
        wanted, shown = expected.read_present(0, expected.levels[0].box)
        assert np.array_equal(values, wanted)
        assert held is not None
        assert shown is not None
        assert np.array_equal(held, shown)
        again: ImageSource = pickle.loads(pickle.dumps(scene))
        with again:
            assert np.array_equal(again.read(0, Box(7, 9, 40, 60)), PIXELS[7:40, 9:60, :2])
        assert len(readers() - before) == 2
    assert readers() <= before


def test_more_bands_than_processes_are_read_again_and_again(tmp_path: Path) -> None:
    names = "a,b,c,d,e,f"
    _, scene = as_gdal_has_it(tmp_path, "img", names)
    before = readers()
    with open_source(scene) as source:
        for box in (Box(0, 0, 64, 64), Box(64, 64, 128, 160)):
            assert np.array_equal(source.read(0, box), PIXELS[box.slices])
            assert len(readers() - before) == SLOW_OPEN
    assert readers() <= before


def test_a_mosaic_mixes_formats_pixel_sizes_and_places(tmp_path: Path) -> None:
    parts = cut(tmp_path, PIXELS[..., :3], nodata=0)
    for part in parts[::2]:
        convert(part, "img")
    with open_source(tmp_path / "part_*.{tif,img}") as scene:
        assert np.array_equal(whole(scene), PIXELS[..., :3])
    for kind in ("tif", "img"):
        fine = write_raster(tmp_path / kind / "fine.tif", PIXELS[..., :1], nodata=0)
        coarse = write_raster(
            tmp_path / kind / "coarse.tif", PIXELS[:70, :80, 1:2], transform=WHERE @ Affine.scale(2), nodata=0
        )
        if kind == "img":
            convert(fine, "img")
            convert(coarse, "img")
    with (
        open_source(tmp_path / "tif" / "a=fine.tif,b=coarse.tif") as expected,
        open_source(tmp_path / "img" / "a=fine.img,b=coarse.img") as scene,
    ):
        assert scene.resampled == expected.resampled != ()
        assert np.array_equal(whole(scene), whole(expected))


def test_files_beside_one_count_and_its_process_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, name = as_gdal_has_it(tmp_path, "dat")
    others = readers()
    with open_source(name) as scene:
        assert np.array_equal(whole(scene), PIXELS[..., :2])
        before, version = scene.fingerprint(), scene.version()
        kill_while_it_reads(min(readers() - others), monkeypatch)
        with pytest.raises(SourceError, match=r"GDAL ends with SIGKILL[^\n]*$"):
            whole(scene)
        assert np.array_equal(whole(scene), PIXELS[..., :2])
        header = tmp_path / "dat" / "red.hdr"
        header.write_text(header.read_text() + "; another line\n")
        assert scene.current_version() != version
    with open_source(name) as scene:
        assert scene.fingerprint() != before


def test_one_file_of_gdals_is_laid_on_another_grid(tmp_path: Path) -> None:
    one = write_raster(tmp_path / "one.tif", PIXELS[..., :2], nodata=0)
    other = write_raster(tmp_path / "two.tif", PIXELS[..., :2], nodata=0)
    view = View(crs="EPSG:3857")
    with open_source(one, view) as expected, open_source(convert(other, "img"), view) as scene:
        assert scene.levels == expected.levels
        assert np.array_equal(whole(scene), whole(expected))


def test_broken_files_of_gdals_in_a_scene_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "cut.img").write_bytes(b"EHFA_HEADER_TAG\0" + bytes(30))
    write_raster(tmp_path / "a.tif", PIXELS[..., :1])
    write_raster(tmp_path / "b.tif", PIXELS[..., :3])
    convert(tmp_path / "b.tif", "img")
    write_raster(tmp_path / "c.tif", PIXELS[..., :1], crs=None, transform=None)
    convert(tmp_path / "c.tif", "img")
    (tmp_path / "wms.img").write_text("<GDAL_WMS/>")
    for name, message in {
        "red=a.tif,nir=cut.img": "cut.img: GDAL can't read it",
        "red=a.tif,nir=b.img": "b.img has 3 bands",
        "red=a.tif,nir=c.img": "c.img says no place on the earth",
        "red=a.tif,nir=wms.img": "not a supported image",
    }.items():
        with pytest.raises(SourceError) as error:
            open_source(tmp_path / name)
        assert message in str(error.value)
        assert "\n" not in str(error.value)
