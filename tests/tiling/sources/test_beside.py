"""Files beside a TIFF: world files, `.aux.xml`, `.msk` and `.ovr`, as GDAL reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from case_files import case
from object_store import place
from rasterio.enums import Resampling
from rasterio.transform import Affine
from source_oracle import assert_reads_like, picture, write

from tiling.errors import SourceError
from tiling.geometry import Box, PixelSize
from tiling.source import open_source

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
WORLD = "0.5\n0\n0\n-0.5\n500000.25\n5399999.75\n"


def by_gdal(path: Path) -> Any:
    return rasterio.open(path, driver="GTiff")


def test_the_case_with_a_world_file_lies_where_gdal_says() -> None:
    path = case("b08_tfw.tif")
    with open_source(path) as source, by_gdal(path) as theirs:
        assert source.georeference is not None
        assert source.georeference.affine == tuple(theirs.transform)[:6] == (0.5, 0, 500000, 0, -0.5, 5400000)


@pytest.mark.parametrize(
    ("image", "world"), [("map.tif", "map.tfw"), ("map.TIFF", "map.TFW"), ("m.a.tiff", "m.a.tiffw"), ("m.tif", "m.wld")]
)
def test_world_files_are_found_by_all_names_that_gdal_knows(image: str, world: str, tmp_path: Path) -> None:
    path = write(tmp_path / image, picture())
    (tmp_path / world).write_text(WORLD)
    with open_source(path) as source, by_gdal(path) as theirs:
        assert source.georeference is not None
        assert source.format == "geotiff"
        assert source.georeference.affine == tuple(theirs.transform)[:6]


def test_the_images_own_transform_goes_before_a_world_file_and_notes_beside_go_before_both(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    pixels = picture(1)
    with rasterio.open(
        path, "w", driver="GTiff", width=pixels.shape[1], height=pixels.shape[0], count=1, dtype="uint8",
        crs="EPSG:32633", transform=Affine(2, 0, 400_000, 0, -2, 5_000_000),
    ) as file:  # fmt: skip
        file.write(pixels, 1)
    (tmp_path / "map.tfw").write_text(WORLD)
    with open_source(path) as source, by_gdal(path) as theirs:
        assert source.georeference is not None
        assert source.georeference.affine == tuple(theirs.transform)[:6] == (2, 0, 400_000, 0, -2, 5_000_000)
    (tmp_path / "map.tif.aux.xml").write_text(
        '<PAMDataset><SRS dataAxisToSRSAxisMapping="1,2">EPSG:25832</SRS>'
        "<GeoTransform>7, 3, 0, 9, 0, -3</GeoTransform>"
        '<PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    with open_source(path) as source, by_gdal(path) as theirs:
        assert source.georeference is not None
        assert source.georeference.affine == tuple(theirs.transform)[:6] == (3, 0, 7, 0, -3, 9)
        assert (source.georeference.crs, source.nodata) == ("EPSG:25832", 7) == (theirs.crs.to_string(), theirs.nodata)


def test_notes_that_a_viewer_leaves_beside_a_tiff_change_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "slide.tif", picture(), resolution=(20_000, 20_000), resolutionunit="centimeter")
    with open_source(path) as source:
        before = source.fingerprint(), source.format, source.levels
    (tmp_path / "slide.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><Metadata><MDI key="STATISTICS_MAXIMUM">9</MDI></Metadata>'
        "</PAMRasterBand></PAMDataset>"
    )
    with open_source(path) as source:
        assert (source.fingerprint(), source.format, source.levels) == before


def test_a_mask_beside_says_which_pixels_hold_data(tmp_path: Path) -> None:
    path = write(tmp_path / "map.tif", picture(height=60, width=80))
    with open_source(path) as source:
        assert not source.has_mask
        before = source.fingerprint()
    held = np.zeros((60, 80), np.uint8)
    held[10:40, 20:70] = 255
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
        file.write_mask(held)
    assert (tmp_path / "map.tif.msk").is_file()
    with open_source(path) as source, by_gdal(path) as theirs:
        assert source.fingerprint() != before
        mask = source.read_mask(0, Box(5, 15, 45, 75))
        assert mask is not None
        np.testing.assert_array_equal(mask, theirs.dataset_mask()[5:45, 15:75] > 0)


def test_a_mask_of_another_image_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "map.tif", picture(height=60, width=80))
    write(tmp_path / "map.tif.msk", picture(1, height=50, width=80))
    with pytest.raises(SourceError, match=r"map.tif.msk beside it holds no mask of 60 x 80 px"):
        open_source(path)


def test_damaged_files_beside_are_told_in_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "map.tif", picture())
    (tmp_path / "map.tif.msk").write_bytes(b"II*\0junk")
    with pytest.raises(SourceError, match=r"map.tif.msk beside it"):
        open_source(path)
    (tmp_path / "map.tif.msk").unlink()
    (tmp_path / "map.tfw").write_text("no numbers")
    (tmp_path / "map.tif.aux.xml").write_text("<PAMDataset><GeoTransform>1")
    with open_source(path) as source:
        assert source.georeference is None
    (tmp_path / "map.tfw").write_bytes(b"1" * 100_000)
    with pytest.raises(SourceError, match=r"map.tfw beside it holds 100000 bytes"):
        open_source(path)


@pytest.mark.parametrize("bands", [1, 3])
def test_overviews_beside_are_levels(bands: int, tmp_path: Path) -> None:
    path = write(tmp_path / "map.tif", picture(bands, height=300, width=401))
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], Resampling.average)
    assert (tmp_path / "map.tif.ovr").is_file()
    with open_source(path) as source:
        assert len(source.levels) == 3
        for index in (1, 2):
            with rasterio.open(path, overview_level=index - 1) as theirs:
                assert (source.levels[index].height, source.levels[index].width) == theirs.shape
                assert_reads_like(source, index, np.moveaxis(theirs.read(), 0, -1), boxes=3)


def put(path: Path) -> str:
    """A copy of a file in the bucket; gives its URL."""
    target = place(path.name)
    target.write_bytes(path.read_bytes())
    return str(target)


def test_files_beside_an_object_are_read_too(s3: str, tmp_path: Path) -> None:
    held = np.zeros((60, 80), np.uint8)
    held[10:40, 20:70] = 255
    image = write(tmp_path / "map.tif", picture(height=60, width=80))
    with open_source(put(image)) as source:
        assert (source.georeference, source.has_mask) == (None, False)
        before = source.fingerprint()
    (tmp_path / "map.tfw").write_text(WORLD)
    put(tmp_path / "map.tfw")
    put(write(tmp_path / "map.tif.msk", held))
    with open_source(put(image)) as source:
        assert source.georeference is not None
        assert source.georeference.affine == (0.5, 0, 500000, 0, -0.5, 5400000)
        mask = source.read_mask(0, Box(0, 0, 60, 80))
        assert mask is not None
        np.testing.assert_array_equal(mask, held > 0)
        assert source.fingerprint() != before


@pytest.mark.parametrize("kind", ["ome", "imagej", "svs"])
def test_a_place_in_the_tags_counts_in_every_dialect(kind: str, tmp_path: Path) -> None:
    """As GDAL reads them: without it, the mask of such a map would lie nowhere."""
    path = tmp_path / {"ome": "map.ome.tif", "imagej": "map.tif", "svs": "map.svs"}[kind]
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633)
    tags: Any = [
        (33550, "d", 3, (0.5, 0.5, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 500_000.0, 5_400_000.0, 0.0), True),
        (34735, "H", len(keys), keys, True),
    ]
    more: dict[str, Any] = {
        "ome": {"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 7.0, "PhysicalSizeY": 7.0}},
        "imagej": {"imagej": True},
        "svs": {"description": "Aperio Image Library v11\n60x40 |MPP = 0.25", "metadata": None, "tile": (16, 16)},
    }[kind]
    tifffile.imwrite(path, picture(1), extratags=tags, **more)
    with open_source(path) as source, by_gdal(path) as theirs:
        assert source.georeference is not None
        assert source.georeference.affine == tuple(theirs.transform)[:6] == (0.5, 0, 500_000, 0, -0.5, 5_400_000)
        assert source.georeference.crs == "EPSG:32633"
        assert source.levels[0].pixel_size == PixelSize(0.5, 0.5, "m")


def test_overviews_beside_an_image_with_a_mask_of_its_own_need_theirs(tmp_path: Path) -> None:
    """Where `.ovr` has none, a coarse level would call all of its pixels data."""
    path, held = tmp_path / "map.tif", np.ones((256, 256), np.bool_)
    held[:100] = False
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", driver="GTiff", width=256, height=256, count=1, dtype="uint8") as file,
    ):
        file.write(picture(1, height=256, width=256), 1)
        file.write_mask(held)
    write(tmp_path / "map.tif.ovr", picture(1, height=128, width=128))
    with open_source(path) as source, by_gdal(path) as theirs:
        assert len(source.levels) == 1
        found = source.read_mask(0, source.levels[0].box)
        assert found is not None
        assert np.array_equal(found, theirs.dataset_mask() > 0)
