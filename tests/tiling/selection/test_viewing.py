"""Choice of pixels: those segmented by default, those refused, and what overrides it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform
from source_oracle import picture

from tiling.errors import AnnotationError, PlanError, SourceError
from tiling.selection.choose_view import choose_view
from tiling.selection.chosen_scale import ground_um
from tiling.selection.view_request import ModelRequirements, ViewRequest
from tiling.source import open_source

ANY = ModelRequirements("any", None, "uint8")


def model(pixel_um: float | None) -> ModelRequirements:
    return ModelRequirements("trained", pixel_um, "uint8")


def slide(path: Path, mpp: float | None, levels: int = 1, side: int = 256) -> Path:
    pixels = picture(3, height=side, width=side)
    with tifffile.TiffWriter(path) as writer:
        for level in range(levels):
            step = 4**level
            resolution = None if mpp is None else (10_000 / mpp / step,) * 2
            writer.write(
                pixels[::step, ::step],
                photometric="rgb",
                tile=(64, 64),
                resolution=resolution,
                resolutionunit=None if mpp is None else 3,
                subfiletype=int(level > 0),
                metadata=None,
            )
    return path


def scene(
    path: Path, crs: str = "EPSG:32617", west: float = 500_000, north: float = 4_000_000, px: float = 0.5
) -> Path:
    pixels = np.moveaxis(picture(3, height=200, width=300), -1, 0)
    place = from_origin(west, north, px, px)
    with rasterio.open(
        path, "w", driver="GTiff", width=300, height=200, count=3, dtype="uint8", crs=crs, transform=place
    ) as file:
        file.write(pixels)
    return path


def test_without_a_model_size_nothing_changes(tmp_path: Path) -> None:
    for mpp in (None, 0.25):
        choice = choose_view(slide(tmp_path / "slide.tif", mpp, levels=3), ViewRequest(), ANY)
        assert (choice.level, choice.view, choice.notes) == (0, None, {})
        choice = choose_view(tmp_path / "slide.tif", ViewRequest(level=1), ANY)
        assert (choice.level, choice.view) == (1, None)


@pytest.mark.parametrize(
    ("mpp", "wanted", "level", "step"),
    [
        (0.5, 0.5, 0, 1.0),
        (0.52, 0.5, 0, 1.0),  # within a tenth
        (0.125, 0.5, 1, 1.0),
        (0.03, 0.5, 2, 1.0),
        (0.25, 0.5, 0, 2.0),
        (0.1, 0.5, 1, 1.25),
        (1.0, 0.5, 0, 0.5),
    ],
)
def test_the_models_pixel_size_is_the_default(
    mpp: float, wanted: float, level: int, step: float, tmp_path: Path
) -> None:
    path = slide(tmp_path / "slide.tif", mpp, levels=3)
    choice = choose_view(path, ViewRequest(), model(wanted))
    assert f"{wanted}" in choice.notes["pixels"]
    if step == 1.0:
        assert (choice.level, choice.view) == (level, None)
        return
    assert choice.view is not None
    assert (choice.level, choice.view.level) == (0, level)
    assert choice.view.step == pytest.approx((step, step), rel=1e-4)
    with open_source(path, choice.view) as source:
        assert source.levels[0].pixel_size is not None
        assert source.levels[0].pixel_size.x == pytest.approx(wanted, rel=1e-6)
    assert ("detail is missing" in choice.notes["pixels"]) == (step < 1)


@pytest.mark.parametrize(
    ("mpp", "asked", "message"),
    [
        (None, ViewRequest(), "doesn't say what its pixels measure.*give --image-mpp .*or --as-is"),
        (None, ViewRequest(level=0), "doesn't say what its pixels measure"),
        (None, ViewRequest(pixel_um=0.5), "doesn't say what its pixels measure"),
        (
            6.0,
            ViewRequest(),
            "measure 6 µm/px, and model trained was made for 0.5 µm/px: 12 times off.*--mpp 0.5.*--as-is",
        ),
        (0.04, ViewRequest(), "12.5 times off"),
        (6.0, ViewRequest(level=0), "12 times off"),
        (0.5, ViewRequest(level=0, pixel_um=0.5), "--level and --mpp or --gsd ask for different pixels"),
        (0.5, ViewRequest(pixel_um=0.5, as_is=True), "--mpp or --gsd and --as-is ask for different pixels"),
        (0.5, ViewRequest(level=1), "level 1 is not in the image; it has levels 0 to 0"),
        (0.5, ViewRequest(pixel_um=float("nan")), "is no pixel size"),
    ],
)
def test_what_is_not_plausible_is_refused_with_the_override(
    mpp: float | None, asked: ViewRequest, message: str, tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match=message) as caught:
        choose_view(slide(tmp_path / "slide.tif", mpp), asked, model(0.5))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("mpp", "asked", "step"),
    [
        (None, ViewRequest(as_is=True), None),
        (6.0, ViewRequest(as_is=True), None),
        (6.0, ViewRequest(level=0, as_is=True), None),
        (6.0, ViewRequest(pixel_um=0.5), 0.5 / 6),
        (None, ViewRequest(image_um=0.5), 1.0),
        (6.0, ViewRequest(image_um=0.25), 2.0),
    ],
)
def test_the_overrides_override(mpp: float | None, asked: ViewRequest, step: float | None, tmp_path: Path) -> None:
    path = slide(tmp_path / "slide.tif", mpp)
    choice = choose_view(path, asked, model(0.5))
    if step is None:
        assert (choice.level, choice.view) == (0, None)
        assert "as they are, as asked" in choice.notes["pixels"]
        return
    assert choice.view is not None
    assert choice.view.step == pytest.approx((step, step), rel=1e-4)
    with open_source(path, choice.view) as source:
        assert source.levels[0].pixel_size is not None
        assert source.levels[0].pixel_size.y == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize(
    ("mpp", "asked"),
    [(6.0, ViewRequest()), (6.0, ViewRequest(level=0)), (0.04, ViewRequest()), (0.5, ViewRequest(image_um=500_000.0))],
)
def test_a_model_of_no_one_pixel_size_refuses_another_kind_of_image(
    mpp: float, asked: ViewRequest, tmp_path: Path
) -> None:
    path, cells = slide(tmp_path / "slide.tif", mpp), ModelRequirements("cells", None, "uint8", (0.05, 5.0))
    with pytest.raises(PlanError, match=r"model cells was made for 0.05 to 5 µm/px.*--image-mpp.*--as-is"):
        choose_view(path, asked, cells)
    assert choose_view(path, ViewRequest(as_is=True), cells).view is None
    assert choose_view(path, ViewRequest(image_um=0.5), cells).view is not None


def test_a_metre_of_web_mercator_is_shorter_on_the_ground(tmp_path: Path) -> None:
    place: Any = transform(CRS.from_epsg(4326), CRS.from_epsg(3857), [10.0], [60.0])
    path = scene(tmp_path / "mercator.tif", "EPSG:3857", place[0][0], place[1][0], px=2.0)
    assert choose_view(path, ViewRequest(), model(1e6)).view is None, "2 m are 1 m at 60 degrees north"


@pytest.mark.parametrize(
    ("crs", "px", "ground"), [("EPSG:3395", 2.0, 1.0025), ("EPSG:3031", 2.0, 2.0057), ("EPSG:2263", 2.0, 0.6096)]
)
def test_pixels_of_any_projection_are_measured_on_the_ground(
    crs: str, px: float, ground: float, tmp_path: Path
) -> None:
    at = {"EPSG:3395": (10.0, 60.0), "EPSG:3031": (0.0, -72.0), "EPSG:2263": (-74.0, 40.7)}[crs]
    place: Any = transform(CRS.from_epsg(4326), CRS.from_string(crs), [at[0]], [at[1]])
    with open_source(scene(tmp_path / "map.tif", crs, place[0][0], place[1][0], px=px)) as source:
        assert ground_um(source) == (pytest.approx(ground * 1e6, rel=2e-3), pytest.approx(ground * 1e6, rel=2e-3))


def test_a_geotiff_names_its_bands_by_gdals_descriptions(tmp_path: Path) -> None:
    path = scene(tmp_path / "scene.tif")
    with rasterio.open(path, "r+") as file:
        file.descriptions = ("B02", "B03 <&>", "B04")
    with open_source(path) as source:
        assert source.bands == ("B02", "B03 <&>", "B04")
    choice = choose_view(path, ViewRequest(bands="b04,B02,1"), ANY)
    assert choice.view is not None
    assert choice.view.bands == (2, 0, 0)
    with rasterio.open(path, "r+") as file:
        file.descriptions = ("same", "same", None)
    with open_source(path) as source:
        assert source.bands == ("red", "green", "blue"), "two bands of one name could not be told apart"


def test_maps_are_measured_in_metres_and_degrees(tmp_path: Path) -> None:
    metres = choose_view(scene(tmp_path / "metres.tif"), ViewRequest(pixel_um=1e6), ANY)
    assert metres.view is not None
    assert metres.view.step == pytest.approx((2.0, 2.0))
    px = 0.5 / 111_320
    path = scene(tmp_path / "degrees.tif", "EPSG:4326", 10.0, 60.0, px)
    degrees = choose_view(path, ViewRequest(pixel_um=1e6), ANY)
    assert degrees.view is not None
    # On the ellipsoid at 60° north a degree of latitude is 111,412 m long, one of longitude 55,800 m.
    assert degrees.view.step == pytest.approx((111_320 / 111_412 * 2, 111_320 / 55_800 * 2), rel=1e-4)
    assert choose_view(tmp_path / "metres.tif", ViewRequest(), model(0.5e6)).view is None


@pytest.mark.parametrize(
    ("text", "bands"),
    [("3,2,1", (2, 1, 0)), ("red, Blue", (0, 2)), ("1,1,1", (0, 0, 0)), ("1,2,3", None), ("red,green,blue", None)],
)
def test_bands_go_by_number_and_by_name(text: str, bands: tuple[int, ...] | None, tmp_path: Path) -> None:
    choice = choose_view(slide(tmp_path / "slide.tif", None), ViewRequest(bands=text), ANY)
    assert (choice.view.bands if choice.view else None) == bands


@pytest.mark.parametrize("text", ["4", "0", "nir", "1,,2", "-1", ""])
def test_a_band_that_is_not_there_is_named(text: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="give --bands with numbers from 1 to 3 or names of red, green, blue"):
        choose_view(slide(tmp_path / "slide.tif", None), ViewRequest(bands=text), ANY)


def region_of(path: Path, text: str, **more: Any) -> tuple[int, int, int, int] | None:
    choice = choose_view(path, ViewRequest(region=text, **more), ANY)
    return choice.view.region if choice.view else None


def test_a_region_is_given_in_pixels_of_level_0(tmp_path: Path) -> None:
    path = slide(tmp_path / "slide.tif", 0.5, levels=2)
    assert region_of(path, "10,20,110,220") == (10, 20, 110, 220)
    assert region_of(path, "10,20,1e9,1e9") == (10, 20, 256, 256)
    assert region_of(path, "10,20,110,220", level=1) == (2, 5, 28, 55)
    assert region_of(path, "10,20,110,220", pixel_um=1.0) == (5, 10, 55, 110)


def test_a_region_is_given_in_map_coordinates(tmp_path: Path) -> None:
    path = scene(tmp_path / "scene.tif")
    assert region_of(path, "map:500010,3999950,500060,3999980") == (40, 20, 100, 120)
    with pytest.raises(PlanError, match="has no geotransform"):
        region_of(slide(tmp_path / "slide.tif", 0.5), "map:0,0,1,1")


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "10,10,10,20", "5,0,1,9", "utm:1,2,3,4", "nan,0,1,1"])
def test_a_region_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="--region"):
        region_of(slide(tmp_path / "slide.tif", 0.5), text)


def test_a_region_outside_the_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="lies outside the image"):
        region_of(slide(tmp_path / "slide.tif", 0.5), "300,300,400,400")


def write_polygons(path: Path, rings: list[list[tuple[float, float]]], crs: str | None = None) -> str:
    features = [
        {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}}
        for ring in rings
    ]
    member = {"crs": {"type": "name", "properties": {"name": crs}}} if crs else {}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **member}))
    return str(path)


def test_polygons_give_their_bounds_and_which_tiles_they_meet(tmp_path: Path) -> None:
    path = slide(tmp_path / "slide.tif", 0.5)
    triangle = [(20.5, 30.0), (200.0, 30.0), (20.5, 220.0)]
    choice = choose_view(path, ViewRequest(region=write_polygons(tmp_path / "a.geojson", [triangle])), ANY)
    assert choice.view is not None
    assert choice.view.region == (30, 20, 220, 200)
    assert choice.outline is not None
    assert choice.view.outline == choice.outline.digest
    assert choice.outline.meets(30, 20, 60, 60)
    assert choice.outline.meets(60, 40, 61, 41)  # inside, far from every edge
    assert not choice.outline.meets(180, 160, 220, 200)  # in the bounds, beyond the triangle's long side
    other = choose_view(path, ViewRequest(region=write_polygons(tmp_path / "b.geojson", [triangle, triangle])), ANY)
    assert other.view != choice.view


def test_polygons_on_a_map_are_in_its_crs_or_in_degrees(tmp_path: Path) -> None:
    path = scene(tmp_path / "scene.tif")
    square = [(500_010.0, 3_999_950.0), (500_060.0, 3_999_950.0), (500_060.0, 3_999_980.0), (500_010.0, 3_999_980.0)]
    assert region_of(path, write_polygons(tmp_path / "crs.geojson", [square])) == (40, 20, 100, 120)
    lon, lat = transform(CRS.from_epsg(32617), CRS.from_epsg(4326), *zip(*square, strict=True))[:2]
    degrees = list(zip(lon, lat, strict=True))
    assert region_of(path, write_polygons(tmp_path / "world.geojson", [degrees])) == (40, 20, 100, 120)
    named = write_polygons(tmp_path / "named.geojson", [degrees], "urn:ogc:def:crs:OGC:1.3:CRS84")
    assert region_of(path, named) == (40, 20, 100, 120)
    with pytest.raises(AnnotationError, match="lies on the image"):
        region_of(path, write_polygons(tmp_path / "far.geojson", [[(1.0, 2.0), (3.0, 2.0), (3.0, 4.0)]]))


def test_a_fixed_range_and_percentiles_become_a_stretch(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(100, 5000, (300, 400, 2)).astype(np.uint16)
    values[..., 1] += 2000
    tifffile.imwrite(tmp_path / "deep.tif", values, photometric="minisblack", planarconfig="contig", metadata=None)
    fixed = choose_view(tmp_path / "deep.tif", ViewRequest(normalise="0,4095"), ANY)
    assert fixed.view is not None
    assert fixed.view.stretch is not None
    assert (fixed.view.stretch.low, fixed.view.stretch.high) == ((0, 0), (4095, 4095))
    measured = choose_view(tmp_path / "deep.tif", ViewRequest(normalise="percentiles:1,99", bands="2"), ANY)
    assert measured.view is not None
    assert measured.view.stretch is not None
    low, high = np.percentile(values[..., 1], (1, 99))
    assert measured.view.stretch.low == (pytest.approx(low, abs=1),)
    assert measured.view.stretch.high == (pytest.approx(high, abs=1),)
    again = choose_view(tmp_path / "deep.tif", ViewRequest(normalise="percentiles:1,99", bands="2"), ANY)
    assert again.view == measured.view


def test_percentiles_leave_out_what_is_no_data(tmp_path: Path) -> None:
    values = np.full((100, 100), np.nan, np.float32)
    values[:50] = np.linspace(0, 1, 5000).reshape(50, 100)
    tifffile.imwrite(tmp_path / "nan.tif", values, photometric="minisblack", metadata=None)
    choice = choose_view(tmp_path / "nan.tif", ViewRequest(normalise="percentiles:0,100"), ANY)
    assert choice.view is not None
    assert choice.view.stretch is not None
    assert (choice.view.stretch.low, choice.view.stretch.high) == ((0.0,), (1.0,))


@pytest.mark.parametrize(
    "text", ["5", "5,5", "9,1", "percentiles:-1,50", "percentiles:1,101", "log:1,2", "a,b", "0,inf"]
)
def test_a_range_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="--normalise"):
        choose_view(slide(tmp_path / "slide.tif", None), ViewRequest(normalise=text), ANY)


def test_an_image_of_one_value_has_no_percentiles(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "flat.tif", np.full((50, 50), 7, np.uint16), photometric="minisblack", metadata=None)
    with pytest.raises(PlanError, match=r"has the value 7 at both percentiles.*give --normalise LOW,HIGH"):
        choose_view(tmp_path / "flat.tif", ViewRequest(normalise="percentiles:1,99"), ANY)


def test_a_model_without_a_pixel_size_says_at_which_it_was_used(tmp_path: Path) -> None:
    path, cells = slide(tmp_path / "slide.tif", 0.5), ModelRequirements("cells", None, "uint8", (0.05, 5.0))
    note = choose_view(path, ViewRequest(), cells).notes["pixels"]
    assert note.startswith("level 0 as it is, of 0.5")
    assert "cells has no pixel size of its own" in note
    assert "pixels" not in choose_view(path, ViewRequest(), ANY).notes


def test_a_model_without_a_size_says_so_of_an_image_without_one_too(tmp_path: Path) -> None:
    path = tmp_path / "unsized.tif"
    tifffile.imwrite(path, np.zeros((8, 8, 3), np.uint8), photometric="rgb", metadata=None)
    notes = choose_view(path, ViewRequest(), ModelRequirements("any", None, "uint8", (0.05, 5.0))).notes
    assert "of a size that the image doesn't say: any has no pixel size of its own" in notes["pixels"]
