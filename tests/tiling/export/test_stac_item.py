"""STAC item of a mask: where it lies, when its scene was taken, what its labels mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from described_scenes import asset, write_item
from exported_runs import export
from finished import finished_run
from rasterio.transform import Affine
from rasterio.warp import transform_bounds
from scenes import WHERE, scene_pixels, write_landsat, write_raster, write_sentinel2

from tiling.errors import ExportError
from tiling.sources.scene.acquired import acquired

PIXELS = scene_pixels(70, 90, 1)


def item_of(folder: Path, image: Path) -> dict[str, Any]:
    run = finished_run(image, folder / "run", core=64)
    assert export(run, "stac") == ["cog", "stac"]
    return json.loads((folder / "run" / "exports" / "item.json").read_bytes())


def test_an_item_lies_where_its_cog_does(tmp_path: Path) -> None:
    item = item_of(tmp_path, write_raster(tmp_path / "B04 (red).tif", PIXELS))
    cog = tmp_path / "run" / "exports" / item["assets"]["mask"]["href"]
    with rasterio.open(cog) as mask:
        assert item["properties"]["proj:code"] == mask.crs.to_string()
        assert item["properties"]["proj:shape"] == list(mask.shape)
        assert item["properties"]["proj:transform"] == list(mask.transform)[:6]
        assert item["assets"]["mask"]["nodata"] == mask.nodata
        bounds = transform_bounds(mask.crs, "EPSG:4326", *mask.bounds, densify_pts=100)
    assert np.allclose(item["bbox"], bounds, atol=2e-7)
    outline = shapely.geometry.shape(item["geometry"])
    assert isinstance(outline, shapely.Polygon)
    assert outline.is_valid
    assert outline.exterior.is_ccw
    assert np.allclose(outline.bounds, bounds, atol=2e-7)
    assert item["id"] == "B04_red_-none"
    assert item["properties"]["gsd"] == 10
    assert item["properties"]["datetime"] == item["properties"]["created"] == "2026-01-01T00:00:00Z"
    classes = {each["value"]: each for each in item["assets"]["mask"]["classification:classes"]}
    assert classes[2] == {"value": 2, "name": "gland_duct", "title": "gland & <duct>", "color_hint": "56B4E9"}
    assert classes[255]["nodata"] is True


def test_an_item_is_taken_by_pystac(tmp_path: Path) -> None:
    pystac = pytest.importorskip("pystac", reason="pystac is not installed")
    item_of(tmp_path, write_raster(tmp_path / "a.tif", PIXELS))
    item = pystac.Item.from_file(str(tmp_path / "run" / "exports" / "item.json"))
    item.stac_extensions = []  # their schemas are on the web
    assert item.validate()
    assert Path(item.assets["mask"].get_absolute_href()).is_file()


def test_an_item_on_the_meridian_is_cut_there(tmp_path: Path) -> None:
    where = Affine(1000, 0, 166_021.4 - 40_300, 0, -1000, 500_000)
    item = item_of(tmp_path, write_raster(tmp_path / "a.tif", PIXELS, transform=where, crs="EPSG:32601"))
    west, _, east, _ = item["bbox"]
    assert 179 < west < 180
    assert -180 < east < -179
    outline = shapely.geometry.shape(item["geometry"])
    assert outline.geom_type == "MultiPolygon"
    assert outline.bounds[0] == -180
    assert outline.bounds[2] == 180


def test_a_crs_without_a_code_is_written_out(tmp_path: Path) -> None:
    own = "+proj=laea +lat_0=51 +lon_0=9 +datum=WGS84 +units=m"
    item = item_of(tmp_path, write_raster(tmp_path / "a.tif", PIXELS, transform=Affine(10, 0, 0, 0, -10, 0), crs=own))
    assert item["properties"]["proj:code"] is None
    assert rasterio.CRS.from_wkt(item["properties"]["proj:wkt2"]) == rasterio.CRS.from_string(own)


def test_the_time_is_that_of_the_scene(tmp_path: Path) -> None:
    safe = write_sentinel2(tmp_path, {"B04": (10, PIXELS[..., 0])})
    metadata = next(safe.glob("GRANULE/*/MTD_TL.xml"))
    assert acquired(safe) == {}
    sensed = '<SENSING_TIME metadataLevel="Standard">2020-06-01T10:17:58.461Z</SENSING_TIME>'
    metadata.write_text(metadata.read_text().replace("<n1:Geometric_Info>", f"{sensed}<n1:Geometric_Info>"))
    assert acquired(safe) == acquired(safe / "MTD_MSIL2A.xml") == {"datetime": "2020-06-01T10:17:58.461000Z"}
    landsat = write_landsat(tmp_path, {"B4": PIXELS[..., 0]})
    assert acquired(landsat) == {}
    (file,) = landsat.glob("*_MTL.txt")
    told = 'GROUP = IMAGE_ATTRIBUTES\n  DATE_ACQUIRED = 2020-06-01\n  SCENE_CENTER_TIME = "10:10:31.1234567Z"\n'
    file.write_text(told + file.read_text())
    assert acquired(landsat) == {"datetime": "2020-06-01T10:10:31.123456Z"}
    assets, when = {"red": asset("red.tif", "red")}, {"datetime": "2020-06-01T12:00:00+02:00"}
    assert acquired(write_item(tmp_path / "a.json", assets, properties=when)) == {"datetime": "2020-06-01T10:00:00Z"}
    span = {"datetime": None, "start_datetime": "2020-06-01T00:00:00Z", "end_datetime": "2020-06-30T00:00:00Z"}
    assert acquired(write_item(tmp_path / "b.json", assets, properties=span)) == span
    for broken in ({}, {"datetime": "yesterday"}, {"datetime": None, "start_datetime": "2020-06-01T00:00:00Z"}, []):
        assert acquired(write_item(tmp_path / "c.json", assets, properties=broken)) == {}
    assert acquired(write_raster(tmp_path / "red.tif", PIXELS)) == {}
    item = item_of(tmp_path, tmp_path / "b.json")
    assert {name: item["properties"][name] for name in span} == span
    (link,) = item["links"]
    assert (tmp_path / "run" / "exports" / link["href"]).resolve() == tmp_path / "b.json"


def test_what_lies_nowhere_has_no_item(tmp_path: Path) -> None:
    run = finished_run(write_raster(tmp_path / "a.tif", PIXELS, transform=None), tmp_path / "run", core=64)
    with pytest.raises(ExportError, match=r"stac holds map coordinates|cog holds map coordinates"):
        export(run, "stac")
    pole = write_raster(
        tmp_path / "p.tif", PIXELS, transform=WHERE @ Affine.translation(-50_040, 549_960), crs="EPSG:3413"
    )
    with pytest.raises(ExportError, match=r"a STAC item says its outline in longitude and latitude: .* around a pole"):
        export(finished_run(pole, tmp_path / "pole", core=64), "stac")
