"""Focal planes, masks, QPTIFF and packed LERC."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.enums import ColorInterp, Resampling
from rasterio.transform import from_origin
from source_oracle import assert_reads_like, assert_refused, imwrite, picture

from tiling.errors import SourceError
from tiling.geometry import Box, PixelSize
from tiling.plan import Halo, TilePlan
from tiling.selection.find_foreground import find_foreground
from tiling.source import open_source
from tiling.sources import codestream
from tiling.view import View


def test_ome_tiff_at_any_z_and_t(tmp_path: Path) -> None:
    stack = np.random.default_rng(1).integers(0, 60_000, (2, 3, 4, 90, 70), np.uint16)  # TZCYX
    for order in ("TZCYX", "TCZYX"):
        path = tmp_path / f"{order}.ome.tif"
        pixels = stack if order == "TZCYX" else stack.transpose(0, 2, 1, 3, 4)
        imwrite(path, pixels, ome=True, tile=(32, 32), metadata={"axes": order}, photometric="minisblack")
        with open_source(path, View(z=2, t=1)) as source:
            assert (source.focal_planes, source.times) == (3, 2)
            assert_reads_like(source, 0, np.moveaxis(stack[1, 2], 0, -1), boxes=2)
        with pytest.raises(SourceError, match=r"there is no z 3 at t 0: the image has 3 focal plane\(s\) and 2 point"):
            open_source(path, View(z=3))


def test_imagej_and_plain_stacks_at_any_z(tmp_path: Path) -> None:
    stack = np.random.default_rng(1).integers(0, 60_000, (2, 3, 2, 40, 50), np.uint16)  # TZCYX
    imwrite(tmp_path / "imagej.tif", stack, imagej=True, metadata={"axes": "TZCYX"})
    with open_source(tmp_path / "imagej.tif", View(z=1, t=1)) as source:
        assert_reads_like(source, 0, np.moveaxis(stack[1, 1], 0, -1), boxes=1)
    pages = stack[:, 0, 0]
    imwrite(tmp_path / "stack.tif", pages, photometric="minisblack", metadata=None)
    with open_source(tmp_path / "stack.tif", View(z=1)) as source:
        assert source.focal_planes == 2
        assert_reads_like(source, 0, pages[1][..., np.newaxis], boxes=1)
    with pytest.raises(SourceError, match="there is no z 2"):
        open_source(tmp_path / "stack.tif", View(z=2))


def test_the_real_stacks_at_their_last_plane(data_dir: Path) -> None:
    path = data_dir / "slides/multi-channel-z-series.ome.tif"
    with open_source(path) as plain:
        last = plain.focal_planes - 1
        assert last > 0
    stack: Any = tifffile.imread(path)
    with open_source(path, View(z=last)) as source:
        planes = stack[:, last] if stack.shape[1] == last + 1 else stack[last]
        np.testing.assert_array_equal(source.read(0, source.levels[0].box), np.moveaxis(planes, 0, -1))


def qptiff(path: Path, names: list[str], levels: int = 3) -> list[Any]:
    """Write channels by level as the scanner does: full resolution, thumbnail, reduced resolutions, label."""
    pixels = np.moveaxis(picture(len(names), "uint16", 256, 320), -1, 0)
    written = [pixels[:, :: 2**level, :: 2**level] for level in range(levels)]
    mark = "<PerkinElmer-QPI-ImageDescription><DescriptionVersion>1</DescriptionVersion>"

    def text(kind: str, name: str = "") -> str:
        named = f"<Name>{name}</Name>" if name else ""
        return f"{mark}<ImageType>{kind}</ImageType>{named}</PerkinElmer-QPI-ImageDescription>"

    with tifffile.TiffWriter(path) as writer:
        options: dict[str, Any] = {
            "photometric": "minisblack",
            "metadata": None,
            "tile": (64, 64),
            "software": "PerkinElmer-QPI",
        }
        for level, array in enumerate(written):
            for name, plane in zip(names, array, strict=True):
                kind = "FullResolution" if level == 0 else "ReducedResolution"
                size = (20_000 / 2**level,) * 2
                given: dict[str, Any] = {
                    "description": text(kind, name),
                    "resolution": size,
                    "resolutionunit": 3,
                    **options,
                }
                writer.write(plane, compression="lzw", **given)
            if level == 0:
                thumbnail = np.zeros((64, 80, 3), np.uint8)
                writer.write(thumbnail, photometric="rgb", metadata=None, description=text("Thumbnail"))
        writer.write(np.zeros((40, 40, 3), np.uint8), photometric="rgb", metadata=None, description=text("Label"))
    return written


def test_qptiff_channels_and_their_levels(tmp_path: Path) -> None:
    names = ["DAPI", "Opal 520", "Opal 690", "Autofluorescence"]
    written = qptiff(tmp_path / "slide.qptiff", names)
    with open_source(tmp_path / "slide.qptiff") as source:
        assert source.format == "qptiff"
        assert source.bands == tuple(names)
        assert [level.width for level in source.levels] == [320, 160, 80]
        assert source.levels[0].pixel_size == PixelSize(0.5, 0.5, "um")
        for level, array in enumerate(written):
            assert_reads_like(source, level, np.moveaxis(array, 0, -1), boxes=2)


def geotiff(path: Path, mask: str) -> np.ndarray[Any, Any]:
    """A scene of 512 x 640 px with overviews, of which the left 200 columns hold no data."""
    pixels = np.moveaxis(picture(4 if mask == "alpha" else 3, height=512, width=640), -1, 0)
    valid = np.full((512, 640), 255, np.uint8)
    valid[:, :200] = 0
    if mask == "alpha":
        pixels[3] = valid
    options: dict[str, Any] = {"driver": "GTiff", "width": 640, "height": 512, "count": len(pixels), "dtype": "uint8"}
    place = from_origin(0, 0, 1, 1)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", tiled=True, blockxsize=128, blockysize=128, crs="EPSG:32617", transform=place, **options
        ) as file,
    ):
        if mask == "alpha":
            file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
        file.write(pixels)
        if mask == "internal":
            file.write_mask(valid)
        file.build_overviews([2, 4], Resampling.nearest)
    return valid > 0


@pytest.mark.parametrize("mask", ["internal", "alpha"])
def test_the_images_own_mask_is_read_and_skips_tiles(mask: str, tmp_path: Path) -> None:
    valid = geotiff(tmp_path / "scene.tif", mask)
    with open_source(tmp_path / "scene.tif") as source:
        assert source.has_mask
        assert len(source.bands) == 3
        assert len(source.levels) == 3
        np.testing.assert_array_equal(source.read_mask(0, source.levels[0].box), valid)
        np.testing.assert_array_equal(source.read_mask(0, Box(100, 190, 300, 210)), valid[100:300, 190:210])
        np.testing.assert_array_equal(source.read_mask(1, source.levels[1].box), valid[::2, ::2])
        found = find_foreground(source, 0, "auto")
        assert "without a pixel that is data" in found.reason
        plan = TilePlan((512, 640), 64, (1, 1), Halo(0, 0, 0, 0))
        # Columns 0 to 127 hold nothing, and a coarse pixel around the data is kept.
        assert {tile.col for tile in found.skipped(plan)} == {0, 1}
    with open_source(tmp_path / "scene.tif", View(step=(2.0, 2.0), region=(10, 50, 200, 300))) as source:
        seen = source.read_mask(0, source.levels[0].box)
        assert seen is not None
        np.testing.assert_array_equal(seen[:, :49], False)
        np.testing.assert_array_equal(seen[:, 51:], True)


def test_a_mask_that_calls_nothing_data_skips_nothing(tmp_path: Path) -> None:
    pixels = picture(4, height=100, width=120)
    pixels[..., 3] = 0
    imwrite(tmp_path / "clear.tif", pixels, photometric="rgb", extrasamples=["unassalpha"], metadata=None)
    with open_source(tmp_path / "clear.tif") as source:
        found = find_foreground(source, 0, "auto")
        assert found.coarse is None
        assert "nothing in the image is data" in found.reason


def test_the_real_mask_is_the_one_that_gdal_reads(data_dir: Path) -> None:
    path = data_dir / "geo/rio-tiler/cog_rgb_mask.tif"
    with open_source(path) as source, rasterio.open(path) as file:
        assert source.has_mask
        np.testing.assert_array_equal(source.read_mask(0, source.levels[0].box), file.dataset_mask() > 0)


def test_nodata_of_a_palette_is_an_index_and_no_colour(data_dir: Path) -> None:
    path = data_dir / "geo/rio-tiler/cog_cmap.tif"
    with open_source(path) as source, rasterio.open(path, OVERVIEW_LEVEL=1) as file:
        assert file.nodata == 0
        assert source.nodata is None
        held = source.read_mask(2, source.levels[2].box)
        assert held is not None
        assert 0 < held.mean() < 1
        np.testing.assert_array_equal(held, file.read(1) != 0)


@pytest.mark.parametrize("packed", ["LERC", "LERC_DEFLATE", "LERC_ZSTD"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_lerc_as_gdal_packs_it(packed: str, dtype: str, tmp_path: Path) -> None:
    pixels = np.atleast_3d(picture(1, dtype))
    path = tmp_path / "scene.tif"
    options: dict[str, Any] = {
        "driver": "GTiff",
        "count": 1,
        "dtype": dtype,
        "tiled": True,
        "blockxsize": 64,
        "blockysize": 64,
    }
    with rasterio.open(path, "w", width=211, height=150, compress=packed, **options) as file:
        file.write(np.moveaxis(pixels, -1, 0))
    with open_source(path) as source:
        assert_reads_like(source, 0, pixels, boxes=3)


def test_a_packed_lerc_tile_that_bursts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codestream, "MAX_DECODED_BYTES", 32 * 2**20)
    path = tmp_path / "scene.tif"
    options: dict[str, Any] = {
        "driver": "GTiff",
        "count": 1,
        "dtype": "uint8",
        "tiled": True,
        "blockxsize": 1024,
        "blockysize": 1024,
    }
    with rasterio.open(path, "w", width=1024, height=1024, compress="LERC_DEFLATE", **options) as file:
        file.write(np.random.default_rng(0).integers(0, 255, (1, 1024, 1024), np.uint8))
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages.first.dataoffsets[0], tif.pages.first.databytecounts[0]
    packer = zlib.compressobj(9)
    bomb = packer.compress(b"\0" * (40 * 2**20)) + packer.flush()
    assert len(bomb) <= count
    data = bytearray(path.read_bytes())
    data[offset : offset + len(bomb)] = bomb
    path.write_bytes(data)
    assert_refused(path, "unpacks to more than")
