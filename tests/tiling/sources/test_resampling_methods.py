"""Resampling of a scene's bands, each by its kind, and grids in another CRS, held against GDAL's warper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from described_scenes import asset, write_item
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject
from scenes import WHERE, scene_pixels, write_raster, write_sentinel2

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.runs.unchanged_source import open_with_version
from tiling.selection.choose_view import ModelRequirements, ViewRequest, choose_view
from tiling.source import ImageSource, open_source
from tiling.sources.scene import resampled
from tiling.sources.scene.methods import Methods
from tiling.view import View

METHODS = ("nearest", "bilinear", "average")
ANY = ModelRequirements("any", None, "uint16")


def held_of(source: ImageSource) -> tuple[np.ndarray, np.ndarray]:
    values, held = source.read_present(0, source.levels[0].box)
    return values, np.broadcast_to(True if held is None else held, values.shape)


def warped(path: Path, method: str, **grid: Any) -> tuple[np.ndarray, np.ndarray, WarpedVRT]:
    """What GDAL's warper makes of a file: pixels `(y, x, band)`, which of them are data, and the grid."""
    with (
        rasterio.open(path) as file,
        WarpedVRT(file, resampling=Resampling[method], tolerance=0, add_alpha=file.nodata is None, **grid) as theirs,
    ):
        count = file.count
        if file.nodata is None:
            mask = np.repeat(theirs.read(count + 1)[np.newaxis] > 0, count, axis=0)
        else:
            mask = theirs.read_masks() > 0
        return np.moveaxis(theirs.read(list(range(1, count + 1))), 0, -1), np.moveaxis(mask, 0, -1), theirs


def laid(path: Path, method: str, scene: ImageSource) -> tuple[np.ndarray, np.ndarray]:
    """What GDAL's warper makes of a file's first band on a scene's grid: pixels `(y, x, 1)`, and which are data."""
    assert scene.georeference is not None
    assert scene.georeference.affine is not None
    out = np.full(scene.levels[0].box.shape, np.nan)
    place: dict[str, Any] = {"dst_crs": scene.georeference.wkt, "dst_transform": Affine(*scene.georeference.affine)}
    exact: dict[str, Any] = {"resampling": Resampling[method], "dst_nodata": np.nan, "tolerance": 0}
    with rasterio.open(path) as file:
        reproject(rasterio.band(file, 1), out, **place, **exact)
    return out[..., np.newaxis], np.isfinite(out)[..., np.newaxis]


def expect_equal(values: np.ndarray, theirs: np.ndarray, held: np.ndarray, method: str) -> None:
    """Equal to the rounding of GDAL's arithmetic where both hold data; `theirs` may not be rounded yet."""
    differs = np.abs(values.astype(float) - theirs.astype(float))[held]
    if method == "nearest":
        assert not differs.any()
    elif values.dtype.kind == "f":
        assert differs.max() < 1e-2
    elif theirs.dtype.kind == "f":
        assert differs.max() < 0.52
    else:
        # Where values jump by 1500 from pixel to pixel, rounding of places (a thousandth of a pixel) is seen.
        assert differs.max() <= 3
        assert differs.mean() < 0.02


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_coarser_files_are_laid_on_the_grid_as_gdal_lays_them(method: str, dtype: str, tmp_path: Path) -> None:
    write_raster(tmp_path / "fine.tif", np.ones((120, 150, 1), dtype))
    rough = (scene_pixels(52, 60, 1) // (8 if dtype == "uint8" else 1)).astype(dtype)
    rough[20:24, 30:33] = 0
    where = WHERE @ Affine.translation(3.3, -2.7) @ Affine.scale(2.5, 3)
    coarse = write_raster(tmp_path / "coarse.tif", rough, transform=where, nodata=0)
    view = View(resampling=method)
    with open_source(tmp_path / "a=fine.tif,b=coarse.tif", view) as scene:
        assert scene.resampled == (("b", method),)
        expected, mask = laid(coarse, method, scene)
        with scene.viewed(view.model_copy(update={"bands": (1,)})) as band:
            values, held = held_of(band)
        assert np.array_equal(held, mask)
        expect_equal(values, expected, mask, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("code", "nodata"), [("EPSG:3857", 0), ("EPSG:4326", None), ("EPSG:32633", 0)])
def test_a_crs_is_the_grid_and_the_pixels_of_gdals_warp(
    method: str, code: str, nodata: int | None, tmp_path: Path
) -> None:
    pixels = scene_pixels(110, 140, 2)
    pixels[30:40, 50:60] = 0
    path = write_raster(tmp_path / "a.tif", pixels, nodata=nodata)
    kind = "auto" if code == "EPSG:4326" and method == "average" else method
    if (code, method) == ("EPSG:4326", "bilinear"):
        with pytest.raises(
            SourceError, match=r"a pixel of the grid covers 1\.\d+ x 0\.\d+ of its pixels.*--resampling"
        ):
            open_source(path, View(crs=code, resampling=method))
        return
    expected, mask, theirs = warped(path, method, crs=code)
    with open_source(path, View(crs=code, resampling=kind)) as scene:
        assert scene.levels[0].box.shape == (theirs.height, theirs.width)
        assert scene.georeference is not None
        assert scene.georeference.crs == code
        assert scene.georeference.affine == tuple(theirs.transform)[:6]
        assert scene.resampled == (("1", method), ("2", method))
        values, held = held_of(scene)
        assert np.array_equal(held, mask)
        expect_equal(values, expected, mask, method)
        for box in (Box(0, 0, 7, 9), Box(33, 41, 70, 55), Box(theirs.height - 1, 0, theirs.height, theirs.width)):
            assert np.array_equal(scene.read(0, box), values[box.slices])


def test_a_crs_far_finer_or_coarser_is_averaged_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file of which a pixel covers many, only pieces are read at once, with the same values."""
    pixels = scene_pixels(200, 180, 1)
    path = write_raster(tmp_path / "a.tif", pixels, transform=WHERE @ Affine.scale(0.3, 4), nodata=0)
    expected, mask, _ = warped(path, "average", crs="EPSG:3857")
    with open_source(path, View(crs="EPSG:3857")) as scene:
        values, held = held_of(scene)
    assert np.array_equal(held, mask)
    expect_equal(values, expected, mask, "average")
    monkeypatch.setattr(resampled, "_MOST_PX", 9000)
    monkeypatch.setattr(resampled, "_MOST_POINTS", 2000)
    with open_source(path, View(crs="EPSG:3857")) as scene:
        again, still = held_of(scene)
    assert np.array_equal(again, values)
    assert np.array_equal(still, held)


def test_files_in_two_crs_are_laid_on_a_third(tmp_path: Path) -> None:
    pixels = scene_pixels(90, 100, 1)
    one = write_raster(tmp_path / "a.tif", pixels, nodata=0)
    other = write_raster(
        tmp_path / "b.tif", pixels + 9, transform=Affine(11, 0, 60_000, 0, -11, 5_515_000), crs="EPSG:32633", nodata=0
    )
    with rasterio.open(one) as first, WarpedVRT(first, crs="EPSG:3035") as its_own:
        own = its_own.transform
    with open_source(tmp_path / "{a,b}.tif", View(crs="EPSG:3035")) as scene:
        assert scene.georeference is not None
        grid = Affine(*(scene.georeference.affine or ()))
        left, top = ~grid @ (own.c, own.f)
        assert (grid.a, grid.e) == (own.a, own.e)
        assert abs(left - round(left)) + abs(top - round(top)) < 1e-5
        values, held = held_of(scene)
        (a, in_a), (b, in_b) = laid(one, "bilinear", scene), laid(other, "bilinear", scene)
        assert np.array_equal(held, in_a | in_b)
        expect_equal(values, np.where(in_a, a, b), held, "bilinear")
        assert (in_b & ~in_a).any()


def test_numbers_of_classes_are_never_mixed(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    write_raster(tmp_path / "red.tif", scene_pixels(60, 80, 1))
    write_raster(tmp_path / "swir.tif", scene_pixels(30, 40, 1), transform=WHERE @ Affine.scale(2))
    classes = rng.choice(np.array([3, 9, 11], np.uint8), (30, 40, 1))
    write_raster(tmp_path / "scl.tif", classes, transform=WHERE @ Affine.scale(2))
    listed = tmp_path / "red=red.tif,swir=swir.tif,SCL=scl.tif"
    with open_source(listed) as scene:
        assert scene.resampled == (("swir", "bilinear"), ("SCL", "nearest"))
        found = scene.read(0, scene.levels[0].box)[..., 2]
        assert np.array_equal(found, classes[..., 0].repeat(2, 0).repeat(2, 1))
    with open_source(listed, View(resampling="nearest,SCL=average")) as scene:
        assert scene.resampled == (("swir", "nearest"), ("SCL", "average"))
    assets = {
        "red": asset("red.tif", "red"),
        "what": asset("scl.tif", "what", **{"classification:classes": [{"value": 3, "name": "dark"}]}),
    }
    with open_source(write_item(tmp_path / "item.json", assets)) as scene:
        assert scene.resampled == (("what", "nearest"),)
    with rasterio.open(tmp_path / "scl.tif", "r+") as file:
        file.write_colormap(1, {3: (10, 0, 0, 255), 9: (0, 10, 0, 255), 11: (0, 0, 10, 255)})
    with open_source(tmp_path / "scl.tif", View(crs="EPSG:3857")) as scene:
        assert {method for _, method in scene.resampled} == {"nearest"}
        assert scene.photometric == "palette"
    write_raster(tmp_path / "scl.tif", classes, transform=WHERE @ Affine.scale(2))
    told = choose_view(listed, ViewRequest(as_is=True), ANY).notes["resampled"]
    assert told == "onto the scene's grid: swir bilinear; SCL nearest"


def test_bands_of_one_file_have_methods_of_their_own(tmp_path: Path) -> None:
    pixels = scene_pixels(90, 80, 3)
    path = write_raster(tmp_path / "a.tif", pixels, nodata=0)
    with open_source(path, View(crs="EPSG:3857", resampling="average,2=nearest,3=bilinear")) as scene:
        assert scene.resampled == (("1", "average"), ("2", "nearest"), ("3", "bilinear"))
        values = scene.read(0, scene.levels[0].box)
    for band, method in enumerate(("average", "nearest", "bilinear")):
        with open_source(path, View(crs="EPSG:3857", resampling=method)) as scene:
            assert np.array_equal(scene.read(0, scene.levels[0].box)[..., band], values[..., band])


def test_deliveries_are_laid_in_a_crs(tmp_path: Path) -> None:
    pixels = scene_pixels(60, 60, 2)
    bands = {"B04": (10, pixels[..., 0]), "B11": (20, pixels[::2, ::2, 1])}
    with open_source(write_sentinel2(tmp_path, bands), View(crs="EPSG:3857")) as scene:
        assert scene.bands == ("B04", "B11")
        assert dict(scene.resampled) == {"B04": "bilinear", "B11": "bilinear"}
        assert scene.georeference is not None
        assert scene.georeference.crs == "EPSG:3857"


def test_a_grid_counts_in_the_view_and_not_in_the_fingerprint_of_files(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", scene_pixels(40, 40, 1))
    request = ViewRequest(as_is=True, crs="EPSG:3857")
    choice = choose_view(path, request, ANY)
    assert choice.view is not None
    assert choice.view.crs == "EPSG:3857"
    assert "on a grid in EPSG:3857" in choice.notes["view"]
    assert choice.view.image == request.first_view
    source, version = open_with_version(path, request.first_view)
    with source, open_source(path) as plain:
        assert source.current_version() == version
        with source.viewed(choice.view) as seen:
            assert seen.levels[0] == source.levels[0]
        with source.viewed(None) as own:
            assert own.levels[0] == plain.levels[0]
        assert source.fingerprint() == source.viewed(choice.view).fingerprint()


def test_grids_that_mean_nothing_are_refused_on_one_line(tmp_path: Path) -> None:
    pixels = scene_pixels(40, 40, 1)
    write_raster(tmp_path / "a.tif", pixels)
    write_raster(tmp_path / "nowhere.tif", pixels, transform=None)
    write_raster(tmp_path / "c.tif", pixels, transform=WHERE @ Affine.scale(0.2, 3))
    write_raster(tmp_path / "site.tif", pixels, crs='LOCAL_CS["a site",UNIT["metre",1]]')
    write_raster(tmp_path / "centre.tif", pixels, crs="EPSG:4978")
    for name, view, message in (
        ("site.tif", View(crs="EPSG:3857"), "site.tif lies beyond where --crs EPSG:3857 leads"),
        ("centre.tif", View(crs="EPSG:3857"), "centre.tif has no area where --crs EPSG:3857 leads"),
        ("/vsicurl/a.tif", None, "GDAL's names for what is no file (/vsicurl, /vsimem, …) are not followed"),
        ("a.tif", View(crs="EPSG:999999"), "is no CRS that is known"),
        ("a.tif", View(crs="http://x/y"), "is no code of a CRS"),
        ("a.tif", View(crs="EPSG:4978"), "neither a map's nor in degrees"),
        ("nowhere.tif", View(crs="EPSG:3857"), "says no place on the earth, without which --crs"),
        ("a.tif", View(resampling="nearest"), "this is one image on its own; leave it out, or give --crs"),
        ("{a,a}.tif", View(resampling="cubic"), "names no method"),
        ("b=a.tif", View(resampling="scl=nearest"), "names the band 'scl'; the scene has b"),
    ):
        with pytest.raises(SourceError) as error:
            open_source(tmp_path / name, view)
        assert message in str(error.value)
        assert "\n" not in str(error.value)


def test_methods_are_read_as_typed() -> None:
    assert Methods.parse("auto") == Methods()
    assert Methods.parse("bilinear,scl=nearest,QA=average") == Methods("bilinear", {"scl": "nearest", "QA": "average"})
    asked = Methods.parse("scl=bilinear")
    names = {"SCL": "nearest", "QA_PIXEL": "nearest", "cloud_mask": "nearest", "scl": "bilinear", "B8A": None}
    assert {name: asked.of(name, holds_classes=False) for name in names} == names
    assert asked.of("B8A", holds_classes=True) == "nearest"
