"""Archives of scenes: years of aerial images by glob and by manifest, and rasters that GDAL alone reads."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from cli import Cli
from nights import QUICK, assert_done, records
from numpy.typing import NDArray
from rasterio.shutil import copy as copy_raster
from scenes import split, write_raster
from tiny import save_tiny, write_noise_map

from tiling.archives.slide_record import SlideRecord
from tiling.runs.run import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


def labels_of(run: Path) -> NDArray[np.uint8]:
    return np.asarray(Run.open(run).open_mask().levels[0][:])


def write_manifest(path: Path, slides: dict[str, str]) -> Path:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["slide", "name"])
        rows.writerows((slide, name) for name, slide in slides.items())
    return path


def held(cli: Cli, source: object, out: Path, model: Path, *more: object) -> dict[str, SlideRecord]:
    """The records of a night after which every slide is complete."""
    ended = cli.run("archive", source, "--out", out, "--model", model, *QUICK, *more, timeout=280)
    assert ended.code == 0, ended.out + ended.err
    known = records(out)
    assert_done(known)
    assert {record.folder for record in known.values()} == {f"slides/{name}" for name in known}, "one folder, one run"
    return known


def expect_on_its_source(run: Path, source: Path) -> None:
    """The mask lies on the image that it is of, pixel on pixel, and has no class where that holds no data."""
    with rasterio.open(run / "exports" / "mask.tif") as mask, rasterio.open(source) as image:
        assert (mask.crs, mask.transform, mask.shape) == (image.crs, image.transform, image.shape)
        labels = mask.read(1)
        assert np.array_equal(labels == 255, ~image.read_masks([1, 2, 3]).any(0))
    assert np.array_equal(labels, labels_of(run))
    assert len(np.unique(labels)) > 2
    item = json.loads((run / "exports" / "item.json").read_text())
    assert item["type"] == "Feature"
    with rasterio.open(source) as image:
        assert item["properties"]["proj:transform"] == list(image.transform)[:6]


@pytest.mark.timeout(600)
def test_years_of_aerial_images_are_an_archive_of_scenes(cli: Cli, model: Path, data_dir: Path, tmp_path: Path) -> None:
    years = {path.stem[-8:-4]: path for path in sorted((data_dir / "geo" / "naip").glob("*.tif"))}
    assert list(years) == ["2010", "2012", "2015", "2016", "2017"]
    for year, path in years.items():
        split(path, tmp_path / "in" / year)
    asked = ("--core", 256, "--export", "cog,stac")
    known = held(cli, f"{tmp_path}/in/*/", tmp_path / "out", model, *asked)
    assert set(known) == set(years)
    for year, path in years.items():
        expect_on_its_source(tmp_path / "out" / known[year].folder, path)
    drawn: list[str] = []  # years whose pixels lie off each other's by a part of one are rasters of their own
    for path in (tmp_path / "out").glob("masks*.vrt"):
        with rasterio.open(path) as vrt:
            drawn += [Path(file).parts[-3] for file in vrt.files if file.endswith("mask.tif")]
    assert sorted(drawn) == sorted(years)
    with rasterio.open(tmp_path / "out" / "masks.vrt") as vrt, rasterio.open(years["2010"]) as image:
        assert vrt.crs == image.crs
        window = vrt.window(*image.bounds).round_offsets().round_lengths()
        top = labels_of(tmp_path / "out" / known["2010"].folder)
        shown = vrt.read(1, window=window)
        assert np.array_equal(shown[top != 255], top[top != 255]), "the first by name lies on top"

    mosaic = data_dir / "geo" / "naip" / "*_{2015*,2012*}.tif"
    slides = {**{year: str(path) for year, path in years.items()}, "both": str(mosaic), "again": "in/2010"}
    manifest = write_manifest(tmp_path / "list.csv", slides)
    listed = held(cli, manifest, tmp_path / "listed", model, *asked)
    assert set(listed) == set(slides)
    for year, path in years.items():
        expect_on_its_source(tmp_path / "listed" / listed[year].folder, path)
        one, four = (labels_of(tmp_path / out / f"slides/{year}") for out in ("listed", "out"))
        assert np.array_equal(one, four), "of four files as of one"
    assert np.array_equal(labels_of(tmp_path / "listed/slides/both"), labels_of(tmp_path / "listed/slides/2015"))
    assert np.array_equal(labels_of(tmp_path / "listed/slides/again"), labels_of(tmp_path / "listed/slides/2010"))
    assert (tmp_path / "listed" / "masks.vrt").is_file()


@pytest.mark.soak  # that their pixels are the same, `test_gdal_members.py` says of every kind
def test_files_that_gdal_reads_have_the_labels_of_geotiffs(cli: Cli, model: Path, tmp_path: Path) -> None:
    one = write_noise_map(tmp_path / "one.tif", 200, 220)
    with rasterio.open(one) as file:
        pixels, place = file.read(), {"transform": file.transform, "crs": file.crs}
        copy_raster(file, tmp_path / "rgb.img", driver="HFA")
    for band, name in enumerate(("red", "green", "blue")):
        single = write_raster(tmp_path / f"{name}.tif", pixels[band][..., None], **place)
        for suffix, driver in ((".img", "HFA"), (".dat", "ENVI")):
            with rasterio.open(single) as file:
                copy_raster(file, tmp_path / f"{name}{suffix}", driver=driver)
    names = ("red", "green", "blue")
    bands = {suffix: [f"{name}={name}.{suffix}" for name in names] for suffix in ("tif", "img", "dat")}
    slides = {"one.tif": "one.tif", "rgb.img": "rgb.img", **{kind: ",".join(each) for kind, each in bands.items()}}
    known = held(cli, write_manifest(tmp_path / "list.csv", slides), tmp_path / "out", model, "--export", "cog")
    expected = labels_of(tmp_path / "out" / known["one.tif"].folder)
    assert set(np.unique(expected)) == {0, 1, 2}
    for name in slides:
        run = tmp_path / "out" / known[name].folder
        assert np.array_equal(labels_of(run), expected), name
        with rasterio.open(run / "exports" / "mask.tif") as mask, rasterio.open(one) as image:
            assert (mask.crs, mask.transform) == (image.crs, image.transform)
    listed = [f"{name}={tmp_path}/{name}.img" for name in ("red", "green", "blue")]
    asked = ("--core", 64, "--workers", 2, "--foreground", "none")
    ended = cli.run("segment", *listed, "--model", model, "--out", tmp_path / "run", *asked)
    assert ended.code == 0, ended.err
    assert np.array_equal(labels_of(tmp_path / "run"), expected)
