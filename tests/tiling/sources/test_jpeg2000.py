"""JPEG 2000 in tiles: what a decoder of the whole gives, tile by tile, and what damage does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine
from scenes import CRS, WHERE, scene_pixels

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.source import open_source
from tiling.sources.file import LocalFile
from tiling.sources.jpeg2000 import Jpeg2000Reader
from tiling.sources.jpeg2000_tiles import find_tiles

LOSSLESS = {"REVERSIBLE": "YES", "QUALITY": 100}
SOT = b"\xff\x90\x00\x0a"


def write(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    """A JP2 of GDAL's in tiles of 96 x 128 px."""
    height, width, bands = pixels.shape
    options = {"tiled": True, "blockxsize": 128, "blockysize": 96, **options}
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", height=height, width=width, count=bands, dtype=pixels.dtype, **options
    ) as file:
        file.write(np.moveaxis(pixels, 2, 0))
    return path


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("dtype", "bands", "options"),
    [
        ("uint16", 1, LOSSLESS),
        ("uint16", 1, {**LOSSLESS, "TLM": "YES", "PLT": "YES", "RESOLUTIONS": 4, "PROGRESSION": "RPCL"}),
        ("uint16", 1, {"REVERSIBLE": "NO", "QUALITY": 20}),
        ("uint8", 3, LOSSLESS),
        ("uint8", 3, {"REVERSIBLE": "NO", "QUALITY": 20, "YCC": "YES"}),
        ("uint8", 1, {**LOSSLESS, "CODEC": "J2K"}),
    ],
)
def test_tiles_decode_to_what_the_whole_does(dtype: str, bands: int, options: dict[str, Any], tmp_path: Path) -> None:
    pixels = (scene_pixels(250, 333, bands) // (1 if dtype == "uint16" else 9)).astype(dtype)
    path = write(tmp_path / "a.jp2", pixels, **options)
    expected = imagecodecs.jpeg2k_decode(path.read_bytes()).reshape(pixels.shape)
    if options["REVERSIBLE"] == "YES":
        assert np.array_equal(expected, pixels)
    with open_source(path) as source:
        assert np.array_equal(source.read(0, source.levels[0].box), expected)
        for box in (Box(90, 120, 200, 333), Box(249, 332, 250, 333), Box(96, 128, 192, 256)):
            assert np.array_equal(source.read(0, box), expected[box.slices])


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize("kinds", [{}, {"GeoJP2": "NO"}, {"GMLJP2": "NO"}, {"GeoJP2": "NO", "GMLJP2": "NO"}])
def test_a_place_is_read_as_gdal_reads_it(tiled: bool, kinds: dict[str, str], tmp_path: Path) -> None:
    place = {"crs": CRS, "transform": WHERE}
    path = write(tmp_path / "a.jp2", scene_pixels(150, 160, 1), **LOSSLESS, **place, **kinds, tiled=tiled)
    with open_source(path) as source, rasterio.open(path) as file:
        if len(kinds) == 2:
            assert source.georeference is None
            return
        assert source.georeference is not None
        assert source.georeference.crs == CRS
        assert source.georeference.affine == tuple(file.transform)[:6] == tuple(WHERE)[:6]
        assert source.levels[0].pixel_size is not None
        assert source.levels[0].pixel_size.x == 10


def test_bands_in_jpeg_2000_lie_where_they_say(tmp_path: Path) -> None:
    fine, coarse = scene_pixels(200, 240, 1), scene_pixels(100, 120, 1)
    write(tmp_path / "B04.jp2", fine, **LOSSLESS, crs=CRS, transform=WHERE)
    write(tmp_path / "B11.jp2", coarse, **LOSSLESS, crs=CRS, transform=WHERE @ Affine.scale(2))
    with open_source(tmp_path / "red=B04.jp2,swir=B11.jp2") as scene:
        assert scene.levels[0].box == Box(0, 0, 200, 240)
        assert scene.georeference is not None
        assert scene.georeference.affine == tuple(WHERE)[:6]
        assert np.array_equal(scene.read(0, scene.levels[0].box)[..., 0], fine[..., 0])


def tiled(tmp_path: Path) -> tuple[Path, bytes]:
    path = write(tmp_path / "a.jp2", scene_pixels(250, 333, 1), **LOSSLESS)
    return path, path.read_bytes()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_box_costs_the_tiles_under_it_once(tmp_path: Path) -> None:
    file = LocalFile(tiled(tmp_path)[0])
    tiles = find_tiles(file)
    assert tiles is not None
    assert (tiles.count, tiles.tile, tiles.across) == (9, (96, 128), 3)
    reader = Jpeg2000Reader(file, tiles)
    reader.read(0, Box(100, 10, 190, 250))
    reader.read(0, Box(110, 20, 180, 255))
    assert reader.cache.decoded == 2
    reader.close()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_damage_is_refused_on_one_line(tmp_path: Path) -> None:
    path, whole = tiled(tmp_path)
    first, second = whole.index(SOT), whole.index(SOT, whole.index(SOT) + 1)
    for broken, message in (
        (whole[:-2], "cut short"),
        (whole[: len(whole) // 2], "cut short"),
        (whole[:first] + whole[second:], "tile 0 of 9 is missing"),
        (whole[: first + 4] + b"\x00\xff" + whole[first + 6 :], "no tile at byte"),
        (whole[: first + 6] + b"\x00\x00\x00\x01" + whole[first + 10 :], "no tile at byte"),
        (whole[: first + 6] + b"\x0f\xff\xff\xff" + whole[first + 10 :], "cut short in tile 0"),
    ):
        path.write_bytes(broken)
        with pytest.raises(SourceError) as error:
            open_source(path)
        assert message in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_whatever_a_byte_of_the_header_becomes_pixels_come_or_an_error(tmp_path: Path) -> None:
    path, whole = tiled(tmp_path)
    start = whole.index(b"\xff\x4f\xff\x51")
    random = np.random.default_rng(3)
    for _ in range(25):
        broken = bytearray(whole)
        broken[start + int(random.integers(4, 110))] = int(random.integers(256))
        path.write_bytes(bytes(broken))
        try:
            with open_source(path) as source:
                box = Box(0, 0, 5, 5).intersect(source.levels[0].box)
                assert source.read(0, box).shape[:2] == box.shape
        except SourceError as error:
            assert "\n" not in str(error)  # noqa: PT017
