"""Virtual rasters: read as GDAL reads them, and never led out of their folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from described_scenes import mosaic, source_xml, write_vrt
from numpy.typing import NDArray
from scenes import WHERE, cut, scene_pixels, write_raster

from tiling.errors import SourceError
from tiling.source import open_source

PROPERTIES = '<SourceProperties RasterXSize="40" RasterYSize="{}" DataType="UInt16" BlockXSize="40" BlockYSize="8"/>'


def by_gdal(path: Path) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    with rasterio.open(path) as file:
        return np.moveaxis(file.read(), 0, -1), file.dataset_mask() > 0


def test_a_vrt_of_nine_files_is_the_one_that_was_cut(tmp_path: Path) -> None:
    pixels = scene_pixels()
    one = write_raster(tmp_path / "one.tif", pixels)
    vrt = mosaic(tmp_path, cut(tmp_path / "parts", pixels), 3, "uint16")
    with open_source(vrt) as scene, open_source(one) as source:
        assert np.array_equal(scene.read(0, scene.levels[0].box), pixels)
        ours, theirs = scene.georeference, source.georeference
        assert ours is not None
        assert theirs is not None
        assert (scene.levels, ours.crs, ours.affine) == (source.levels, theirs.crs, theirs.affine)
        before, version = scene.fingerprint(), scene.version()
    write_raster(tmp_path / "parts" / "part_1_1.tif", pixels[43:86, 51:103] + 1)
    with open_source(vrt) as scene:
        assert scene.fingerprint() != before
        assert scene.version() != version


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", "0"), ("uint8", ""), ("float32", "-9999"), ("float32", "nan")])
def test_files_overlap_as_gdal_draws_them(dtype: str, nodata: str, tmp_path: Path) -> None:
    value = float(nodata or 0)
    files: list[Path] = []
    for number, (y, x) in enumerate(((0, 0), (10, 25), (30, 5))):
        pixels = (scene_pixels(50, 60, 2) // 16 + number).astype(dtype)
        pixels[5:15, 10:30] = value
        pixels[30:34, 10:30, 0] = value
        files.append(
            write_raster(tmp_path / f"{number}.tif", pixels, transform=WHERE @ WHERE.translation(x, y), nodata=value)
        )
    vrt = mosaic(tmp_path, files, 2, dtype, nodata)
    expected, mask = by_gdal(vrt)
    with open_source(vrt) as scene:
        values, held = scene.read_present(0, scene.levels[0].box)
    shown = np.ones(mask.shape, np.bool_) if held is None else held.any(-1)
    if nodata:
        assert np.array_equal(shown, mask)
        assert np.array_equal(values[shown], expected[shown], equal_nan=True)
        return
    # Without a value for no data GDAL has 0 where no file lies, and calls it data.
    assert np.array_equal(values, expected)
    bare = np.ones(mask.shape, np.bool_)
    for y, x in ((0, 0), (10, 25), (30, 5)):
        bare[y : y + 50, x : x + 60] = False
    assert np.array_equal(shown, ~bare)


def test_a_vrt_by_gdal_itself_and_bands_of_files_of_their_own(tmp_path: Path) -> None:
    pixels = scene_pixels()
    one = write_raster(tmp_path / "one.tif", pixels, nodata=7)
    rasterio.shutil.copy(one, tmp_path / "copy.vrt", driver="VRT")
    for band in range(3):
        write_raster(tmp_path / f"{band}.tif", pixels[..., band : band + 1])
    separate = [source_xml(f"{band}.tif", pixels.shape[:2], (0, 0), 1) for band in (2, 0)]
    write_vrt(tmp_path / "two.vrt", pixels.shape[:2], "uint16", separate)
    for name, bands in (("copy", [0, 1, 2]), ("two", [2, 0])):
        with open_source(tmp_path / f"{name}.vrt") as scene:
            assert np.array_equal(scene.read(0, scene.levels[0].box), pixels[..., bands])


def test_a_vrt_leads_nowhere_else(tmp_path: Path) -> None:
    pixels = scene_pixels(40, 40, 1)
    folder = tmp_path / "inside"
    write_raster(tmp_path / "outside.tif", pixels)
    write_raster(folder / "a.tif", pixels)
    (folder / "link.tif").symlink_to(tmp_path / "outside.tif")
    write_vrt(folder / "other.vrt", (40, 40), "uint16", [source_xml("a.tif", (40, 40), (0, 0), 1)])
    for file, message in {
        "https://example.org/a.tif": "is no file beside it",
        "/vsicurl/http://example.org/a.tif": "is no file beside it",
        "/vsizip/a.zip/a.tif": "is no file beside it",
        "../outside.tif": "lies outside of its folder",
        str(tmp_path / "outside.tif"): "lies outside of its folder",
        "link.tif": "lies outside of its folder",
        "scene.vrt": "names itself",
        "other.vrt": "another VRT",
        "GTIFF_DIR:1:a.tif": "is missing",
        "gone.tif": "is missing",
        "&lt;VRTDataset/&gt;": "is no file beside it",
        "": "is no file beside it",
    }.items():
        write_vrt(folder / "scene.vrt", (40, 40), "uint16", [source_xml(file, (40, 40), (0, 0), 1)])
        assert_refused(folder / "scene.vrt", message)


def test_what_a_vrt_can_hold_besides_is_refused(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", scene_pixels(40, 40, 1))
    plain = source_xml("a.tif", (40, 40), (0, 0), 1)
    vrt = write_vrt(tmp_path / "scene.vrt", (40, 40), "uint16", [plain])
    text = vrt.read_text()
    for old, new, message in [
        ("<VRTDataset ", '<VRTDataset subClass="VRTWarpedDataset" ', "a VRTWarpedDataset is not read"),
        ("<VRTRasterBand ", '<VRTRasterBand subClass="VRTDerivedRasterBand" ', "VRTDerivedRasterBand is not read"),
        ("</SourceBand>", "</SourceBand><ScaleRatio>2</ScaleRatio>", "<ScaleRatio> in <SimpleSource>"),
        ("SimpleSource", "KernelFilteredSource", "<KernelFilteredSource>"),
        ('<DstRect xOff="0"', '<DstRect xOff="0.5"', "lies between pixels"),
        ('<SrcRect xOff="0" yOff="0" xSize="40"', '<SrcRect xOff="0" yOff="0" xSize="20"', "is resampled"),
        ('rasterXSize="40"', 'rasterXSize="20"', "beyond the VRT"),
        ('rasterXSize="40"', 'rasterXSize="9999999999"', "none of an image"),
        ("<SourceBand>1", "<SourceBand>2", "has 1 bands, not band 2"),
        ("</SourceBand>", f"</SourceBand>{PROPERTIES.format(80)}", "a.tif is 40 x 40 px, and the VRT says 80 x 40"),
        ("</SourceBand>", f"</SourceBand>{PROPERTIES.format('many')}", "can't be parsed"),
        ('xOff="0"', 'xOff="inf"', "can't be parsed"),
        ("<SourceBand>1", "<SourceBand>mask,1", "'mask,1' of a source"),
        ("UInt16", "Byte", "holds uint16 and the VRT says uint8"),
        ("UInt16", "CFloat32", "values of CFloat32"),
        ("<SRS>", "<Unit/><SRS>", "<Unit> in <VRTDataset>"),
        ("</VRTRasterBand>", "<Scale>0</Scale></VRTRasterBand>", "no number that scales"),
        ("</VRTRasterBand>", "<Offset>nan</Offset></VRTRasterBand>", "no number that scales"),
        ("EPSG:32632", "EPSG:1", "SRS is none that is known"),
        (plain, "", "names no file"),
        ("</VRTDataset>", "", "can't be parsed"),
        ("<VRTDataset", "<!DOCTYPE x [<!ENTITY y 'z'>]><VRTDataset", "declares a document type"),
        ("<SRS>", "<MaskBand/><SRS>", "<MaskBand> in <VRTDataset>"),
    ]:
        assert old in text
        vrt.write_text(text.replace(old, new))
        assert_refused(vrt, message)


def assert_refused(path: Path, message: str) -> None:
    with pytest.raises(SourceError) as error:
        open_source(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
