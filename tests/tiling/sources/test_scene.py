"""Scenes of many files as one image: its grid, its bands, which file lies on top, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from described_scenes import mosaic
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject, transform_bounds
from scenes import WHERE, cut, scene_pixels, write_raster

from tiling.errors import ImageChangedError, SourceError
from tiling.geometry import Box
from tiling.runs.unchanged_source import VerifiedSource
from tiling.source import ImageSource, open_source
from tiling.view import View

DATA = Path(__file__).parents[4] / "shared" / "data" / "geo"


def whole(source: ImageSource) -> np.ndarray:
    return source.read(0, source.levels[0].box)


def test_a_file_cut_into_nine_is_the_file_again(tmp_path: Path) -> None:
    pixels = scene_pixels()
    one = write_raster(tmp_path / "one.tif", pixels)
    files = cut(tmp_path / "parts", pixels)
    listed = "{" + ",".join(str(file) for file in files) + "}"
    with open_source(one) as source:
        for name in (tmp_path / "parts", tmp_path / "parts/*.tif", Path(listed), tmp_path / "par*/part_{0,1,2}_?.tif"):
            with open_source(name) as scene:
                assert (scene.format, scene.bands, scene.dtype) == ("scene", source.bands, source.dtype)
                assert scene.levels[0] == source.levels[0]
                assert scene.georeference == source.georeference
                assert np.array_equal(whole(scene), pixels)
                values, held = scene.read_present(0, scene.levels[0].box)
                assert np.array_equal(values, pixels)
                assert held is None


def test_named_files_are_the_bands_in_their_order(tmp_path: Path) -> None:
    pixels = scene_pixels()
    for band, name in enumerate(("B04", "B08", "B02")):
        write_raster(tmp_path / f"{name}.tif", pixels[..., band : band + 1], nodata=0)
    with open_source(tmp_path / "nir=B08.tif,red=B04.tif") as scene:
        assert scene.bands == ("nir", "red")
        assert scene.nodata == 0
        assert np.array_equal(whole(scene), pixels[..., [1, 0]])
        assert scene.levels[0].pixel_size is not None
        assert scene.levels[0].pixel_size.x == 10
        with scene.viewed(View(bands=(1,))) as red:
            assert np.array_equal(whole(red), pixels[..., :1])


def test_a_band_may_be_a_mosaic_of_its_own(tmp_path: Path) -> None:
    pixels = scene_pixels(bands=2)
    cut(tmp_path / "a", pixels[..., :1], 1, 2)
    cut(tmp_path / "b", pixels[..., 1:], 2, 1)
    with open_source(tmp_path / "red=a/*.tif,nir={b/part_0_0,b/part_1_0}.tif") as scene:
        assert np.array_equal(whole(scene), pixels)


def test_the_first_file_lies_on_top_where_it_holds_data(tmp_path: Path) -> None:
    under, over = scene_pixels(60, 60, 1), scene_pixels(60, 60, 1) + 500
    over[:20] = 0
    write_raster(tmp_path / "a.tif", over, nodata=0)
    write_raster(tmp_path / "b.tif", under, transform=WHERE @ Affine.translation(10, 0), nodata=0)
    with open_source(tmp_path / "{a,b}.tif") as scene:
        assert scene.levels[0].box == Box(0, 0, 60, 70)
        values, held = scene.read_present(0, scene.levels[0].box)
        expected = np.concatenate([np.zeros_like(under[:, :10]), under], axis=1)
        expected[:, :60][over != 0] = over[over != 0]
        assert np.array_equal(values, expected)
        assert held is not None
        assert np.array_equal(held, expected != 0)
    with open_source(tmp_path / "{b,a}.tif") as scene:
        assert np.array_equal(whole(scene)[:, 10:], under)


def test_files_with_other_values_for_no_data_keep_them_apart(tmp_path: Path) -> None:
    """255 is no data in one file and a value in the other."""
    one, other = np.full((20, 20, 1), 7, np.uint8), np.full((20, 20, 1), 255, np.uint8)
    one[:5] = 255
    other[:, :5] = 0
    write_raster(tmp_path / "a.tif", one, nodata=255)
    write_raster(tmp_path / "b.tif", other, transform=WHERE @ Affine.translation(20, 0), nodata=0)
    with open_source(tmp_path / "*.tif") as scene:
        assert scene.nodata is None
        _, held = scene.read_present(0, scene.levels[0].box)
        assert held is not None
        assert np.array_equal(held[..., 0], np.concatenate([one != 255, other != 0], axis=1)[..., 0])


def test_one_value_for_no_data_counts_as_in_one_file(tmp_path: Path) -> None:
    pixels = scene_pixels(bands=2)
    pixels[:30, :, 0], pixels[20:40, :, 1] = 0, 0
    one = write_raster(tmp_path / "one" / "one.tif", pixels, nodata=0)
    write_raster(tmp_path / "r.tif", pixels[..., :1], nodata=0)
    write_raster(tmp_path / "n.tif", pixels[..., 1:], nodata=0)
    with open_source(one) as source, open_source(tmp_path / "red=r.tif,nir=n.tif") as scene:
        values, held = source.read_present(0, source.levels[0].box)
        theirs, shown = scene.read_present(0, scene.levels[0].box)
        assert held is not None
        assert shown is not None
        assert np.array_equal(values, theirs)
        assert np.array_equal(np.broadcast_to(held, values.shape), np.broadcast_to(shown, values.shape))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_coarser_bands_are_what_gdal_warps_them_to(dtype: str, tmp_path: Path) -> None:
    pixels = scene_pixels(120, 150, 1)
    fine = write_raster(tmp_path / "fine.tif", pixels.astype(dtype))
    rough = (scene_pixels(60, 75, 1) // (8 if dtype == "uint8" else 1)).astype(dtype)
    rough[20:24, 30:33] = 0
    coarse = write_raster(tmp_path / "coarse.tif", rough, transform=WHERE @ Affine.scale(2), nodata=0)
    with open_source(tmp_path / "a=fine.tif,b=coarse.tif") as scene, rasterio.open(coarse) as file:
        assert scene.levels[0].box == Box(0, 0, 120, 150)
        with (
            rasterio.open(fine) as grid,
            WarpedVRT(
                file, crs=grid.crs, transform=grid.transform, width=150, height=120, resampling=Resampling.bilinear
            ) as theirs,
        ):
            expected, mask = theirs.read(1).astype(float), theirs.read_masks(1) > 0
        values, held = scene.read_present(0, scene.levels[0].box)
        values = values[..., 1].astype(float)
        if dtype in ("uint8", "uint16"):  # of an unsigned type 0 counts where the other band holds data
            assert held is None
        else:
            assert held is not None
            assert np.array_equal(held[..., 1], mask)
        difference = np.abs(values - expected)[mask]
        assert difference.max() <= (1e-3 if dtype == "float32" else 1)
        assert (difference > 1e-3).mean() < 0.001


def test_members_in_another_crs_are_what_gdal_warps_them_to(tmp_path: Path) -> None:
    pixels = scene_pixels(120, 150, 1, "float32")
    write_raster(tmp_path / "a.tif", pixels)
    east = WHERE @ Affine.translation(140, 0)
    with rasterio.open(write_raster(tmp_path / "utm" / "b.tif", pixels, transform=east)) as near:
        bounds = transform_bounds("EPSG:32632", "EPSG:32633", *near.bounds)
    there = Affine(10.5, 0, bounds[0], 0, -10.5, bounds[3])
    moved = write_raster(tmp_path / "b.tif", pixels, transform=there, crs="EPSG:32633")
    with open_source(tmp_path / "{a,b}.tif") as scene, rasterio.open(moved) as file:
        assert scene.georeference is not None
        assert scene.georeference.crs == "EPSG:32632"
        grid = Affine(*(scene.georeference.affine or ()))
        expected = np.full(scene.levels[0].box.shape, np.nan, np.float32)
        exact: dict[str, Any] = {"resampling": Resampling.bilinear, "dst_nodata": np.nan, "tolerance": 0}
        reproject(rasterio.band(file, 1), expected, dst_crs="EPSG:32632", dst_transform=grid, **exact)
        mask = np.isfinite(expected)
        values, held = scene.read_present(0, scene.levels[0].box)
        assert held is not None
        left, top = ~grid @ (WHERE.c, WHERE.f)
        beside = np.ones_like(mask)
        beside[round(top) : round(top) + 120, round(left) : round(left) + 150] = False  # where the first file lies
        assert np.array_equal(held[..., 0] & beside, mask & beside)
        assert np.abs(values[..., 0].astype(float) - expected)[mask & beside].max() < 0.05  # of slopes of 60 to a pixel
        for box in (Box(3, 100, 77, 201), Box(0, 149, 1, 150), Box(50, 160, 120, 163)):
            assert np.array_equal(scene.read(0, box), values[box.slices])


def test_channels_without_a_place_lie_pixel_on_pixel(tmp_path: Path) -> None:
    pixels = scene_pixels(bands=2, dtype="uint8")
    for band, name in enumerate(("dapi", "cd8")):
        write_raster(tmp_path / f"{name}.tif", pixels[..., band : band + 1], transform=None)
    with open_source(tmp_path / "DAPI=dapi.tif,CD8=cd8.tif") as scene:
        assert scene.bands == ("DAPI", "CD8")
        assert scene.georeference is None
        assert np.array_equal(whole(scene), pixels)


def test_every_file_counts_in_fingerprint_and_version(tmp_path: Path) -> None:
    pixels = scene_pixels(bands=2)
    write_raster(tmp_path / "r.tif", pixels[..., :1])
    write_raster(tmp_path / "n.tif", pixels[..., 1:])
    name = tmp_path / "red=r.tif,nir=n.tif"
    with open_source(name) as scene, open_source(tmp_path / "nir=n.tif,red=r.tif") as other:
        before, version = scene.fingerprint(), scene.version()
        assert before != other.fingerprint()
        copy = pickle.loads(pickle.dumps(scene))
        assert np.array_equal(whole(copy), pixels)
        copy.close()
    pixels[0, 0, 1] += 1
    write_raster(tmp_path / "n.tif", pixels[..., 1:])
    with open_source(name) as scene:
        assert scene.fingerprint() != before
        assert scene.version() != version


def test_a_link_that_leads_nowhere_is_no_gap(tmp_path: Path) -> None:
    cut(tmp_path / "parts", scene_pixels(), 2, 2)
    (tmp_path / "parts" / "part_0_0.tif").rename(tmp_path / "away.tif")
    (tmp_path / "parts" / "part_0_0.tif").symlink_to("moved.tif")
    for name in ("parts", "parts/*.tif", "red=parts/part_0_?.tif"):
        with pytest.raises(SourceError, match=r"part_0_0\.tif: is a link that leads nowhere"):
            open_source(tmp_path / name)


def test_a_file_more_in_the_folder_is_another_scene(tmp_path: Path) -> None:
    pixels = scene_pixels()
    files = cut(tmp_path, pixels)
    with open_source(tmp_path) as scene:
        before, version = scene.fingerprint(), scene.version()
        write_raster(tmp_path / "z.tif", pixels[:10])
        assert scene.current_version() != version
    with open_source(tmp_path) as scene:
        assert scene.fingerprint() != before
    files[0].unlink()
    with open_source(tmp_path) as scene:
        (tmp_path / "z.tif").unlink()
        scene.close()
        with pytest.raises(SourceError, match="changed"):
            whole(scene)


def test_broken_members_are_refused_on_one_line(tmp_path: Path) -> None:
    pixels = scene_pixels(40, 40, 1)
    write_raster(tmp_path / "a.tif", pixels)
    write_raster(tmp_path / "away.tif", pixels, transform=WHERE @ Affine.translation(500, 0))
    write_raster(tmp_path / "rgb.tif", scene_pixels(40, 40))
    write_raster(tmp_path / "nowhere.tif", pixels, transform=None)
    write_raster(tmp_path / "no_crs.tif", pixels, crs=None)
    write_raster(tmp_path / "small.tif", pixels[:20], transform=None)
    write_raster(tmp_path / "big.tif", pixels.astype(np.uint64))
    write_raster(tmp_path / "f.tif", pixels.astype(np.float32))
    (tmp_path / "bad.tif").write_bytes(b"II*\0no")
    (tmp_path / "none.tif").write_bytes(b"")
    (tmp_path / "page.tif").write_text("<!DOCTYPE html>")
    (tmp_path / "packed.tif").write_bytes(b"PK\3\4rest")
    (tmp_path / "v.vrt").write_text("<VRTDataset/>")
    (tmp_path / "circle.tif").symlink_to(tmp_path / "circle.tif")
    write_raster(tmp_path / "flat.tif", pixels, transform=Affine(0, 0, 500_000, 0, -10, 5_500_000))
    write_raster(tmp_path / "far.tif", pixels, transform=WHERE @ Affine.translation(1e12, 0))
    write_raster(tmp_path / "pole.tif", pixels, transform=Affine(1, 0, 500, 0, -1, 400), crs="EPSG:4326")
    (tmp_path / "empty").mkdir()
    for name, message in {
        "red=a.tif,nir=gone.tif": "gone.tif: there is no such file",
        "red=a.tif,red=a.tif": "'red' stands twice",
        "red=a.tif,a.tif": "is no band of a scene",
        "red=a.tif,nir=away.tif": "'nir' lies nowhere on the band 'red'",
        "red=a.tif,rgb=rgb.tif": "rgb.tif has 3 bands",
        "{a,rgb}.tif": "they are no mosaic",
        "red=a.tif,nir=nowhere.tif": "nowhere.tif says no place on the earth",
        "red=a.tif,nir=no_crs.tif": "no_crs.tif lacks a CRS",
        "red=nowhere.tif,nir=small.tif": "different sizes",
        "red=big.tif,nir=f.tif": "no type holds",
        "red=a.tif,nir=bad.tif": "bad.tif",
        "red=a.tif,nir=none.tif": "none.tif: the file is empty",
        "red=a.tif,nir=page.tif": "page.tif: not a supported image",
        "red=a.tif,nir=packed.tif": "packed.tif: it is cut or damaged (File is not a zip file)",
        "red=a.tif,nir=v.vrt": "v.vrt: not a supported image",
        "red=a.tif,nir=circle.tif": "circle.tif: there is no such file",
        "red=a.tif,nir=empty": "empty: there is no such file",
        "red=a.tif,nir=flat.tif": "flat.tif lacks a geotransform",
        "{a,far}.tif": "lie so far apart",
        "{a,pole}.tif": "pole.tif",
        "red=a.tif,nir=": "is no band of a scene",
        "red=a.tif,,nir=a.tif": "is no band of a scene",
        "x*.tif": "the glob finds no file",
        "empty": "folder without an image",
    }.items():
        with pytest.raises(SourceError) as error:
            open_source(tmp_path / name)
        assert message in str(error.value)
        assert "\n" not in str(error.value)


def test_a_file_that_vanishes_between_two_reads_is_one_line(tmp_path: Path) -> None:
    pixels = scene_pixels(bands=1)
    files = cut(tmp_path / "parts", pixels)
    write_raster(tmp_path / "red.tif", pixels)
    data = files[4].read_bytes()
    names = (
        tmp_path / "parts",
        tmp_path / "parts" / "*.tif",
        mosaic(tmp_path, files, 1, "uint16"),
        tmp_path / "red=red.tif,nir=parts/*.tif",
    )
    for name in names:
        with open_source(name) as scene:
            fingerprint, version = scene.fingerprint(), scene.version()
        with VerifiedSource(name, None, fingerprint, version) as verified:
            verified.read(lambda source: source.read(0, Box(0, 0, 10, 10)))
            files[4].unlink()
            with pytest.raises(ImageChangedError) as error:
                verified.read(whole)
        files[4].write_bytes(data)
        assert str(error.value).startswith(f"image {name} ")
        assert "\n" not in str(error.value)


def test_bands_of_other_types_and_values_for_no_data_keep_their_own(tmp_path: Path) -> None:
    pixels = scene_pixels(40, 50, 3)
    small, signed, real = (pixels[..., :1] // 8).astype(np.uint8), pixels[..., 1:2].astype(np.int16), pixels[..., 2:]
    real = real.astype(np.float32)
    small[:10], signed[5:15], real[12:20] = 0, -9999, np.nan
    write_raster(tmp_path / "a.tif", small, nodata=0)
    write_raster(tmp_path / "b.tif", signed, nodata=-9999)
    write_raster(tmp_path / "c.tif", real, nodata=np.nan)
    with open_source(tmp_path / "a=a.tif,b=b.tif,c=c.tif") as scene:
        assert (scene.dtype, scene.nodata) == (np.float32, None)
        values, held = scene.read_present(0, scene.levels[0].box)
        assert held is not None
        expected = np.concatenate([small != 0, signed != -9999, np.isfinite(real)], axis=-1)
        assert np.array_equal(held, expected)
        assert np.array_equal(values[expected], np.concatenate([small, signed, real], axis=-1)[expected])


def test_a_list_is_longer_than_a_file_name_can_be(tmp_path: Path) -> None:
    pixels = scene_pixels(8, 8, 1)
    for number in range(40):
        write_raster(tmp_path / f"wave_{number}.tif", pixels + number)
    name = tmp_path / ",".join(f"wave{number}=wave_{number}.tif" for number in range(40))
    with open_source(name) as scene:
        assert np.array_equal(whole(scene), pixels + np.arange(40, dtype=np.uint16))
        assert scene.current_version() == scene.version()
    with open_source(tmp_path / ("{" + ",".join(f"wave_{number}" for number in range(40)) + "}.tif")) as scene:
        assert np.array_equal(whole(scene), pixels)


def test_a_name_that_is_a_file_is_that_file(tmp_path: Path) -> None:
    pixels = scene_pixels()
    with open_source(write_raster(tmp_path / "red=a,nir=[b].tif", pixels)) as source:
        assert source.format == "geotiff"
    with open_source(write_raster(tmp_path / "year=2020" / "a.tif", pixels)) as source:
        assert source.format == "geotiff"


@pytest.mark.skipif(not DATA.is_dir(), reason="the open test data is not there")
def test_real_bands_and_years_are_scenes() -> None:
    with open_source(DATA / "rio-tiler" / "one=scene_band1.tif,two=scene_band2.tif") as scene:
        assert scene.levels[0].box == Box(0, 0, 549, 549)
        for band, name in enumerate(("scene_band1.tif", "scene_band2.tif")):
            with rasterio.open(DATA / "rio-tiler" / name) as file:
                assert np.array_equal(whole(scene)[..., band], file.read(1))
    newest, bands = DATA / "naip" / "m_4709963_se_14_1_20150926.tif", View(bands=(3, 0, 1))
    with open_source(DATA / "naip" / "*_{2015*,2012*}.tif", bands) as scene, rasterio.open(newest) as file:
        assert np.array_equal(whole(scene), np.moveaxis(file.read([4, 1, 2]), 0, -1))
