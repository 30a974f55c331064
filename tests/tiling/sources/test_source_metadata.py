"""Levels, channels, pixel sizes and georeferences, from the metadata of every dialect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from source_oracle import assert_reads_like, imwrite, picture, write

from tiling.geometry import PixelSize
from tiling.source import open_source


def test_subifds_are_levels_and_their_pixels_are_the_subifds(tmp_path: Path) -> None:
    path = tmp_path / "pyramid.ome.tif"
    pixels = picture(3, height=512, width=768)
    with tifffile.TiffWriter(path) as writer:
        options: dict[str, Any] = {"tile": (64, 64), "compression": "deflate", "photometric": "rgb"}
        writer.write(
            pixels, subifds=3, metadata={"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25}, **options
        )
        for step in (2, 4, 8):
            writer.write(pixels[::step, ::step], subfiletype=1, **options)
    with open_source(path) as source:
        assert source.format == "ome-tiff"
        assert source.bands == ("red", "green", "blue")
        assert [(level.height, level.width, level.downsample) for level in source.levels] == [
            (512, 768, 1),
            (256, 384, 2),
            (128, 192, 4),
            (64, 96, 8),
        ]
        assert source.levels[2].pixel_size == PixelSize(1.0, 2.0, "um")
        for index, step in enumerate((1, 2, 4, 8)):
            assert_reads_like(source, index, pixels[::step, ::step], boxes=3)


def test_ome_channels_are_bands_at_the_first_z_and_t(tmp_path: Path) -> None:
    path = tmp_path / "channels.ome.tif"
    stack = np.random.default_rng(1).integers(0, 60_000, (2, 3, 4, 90, 70), np.uint16)  # TZCYX
    names = ["DAPI", "FITC", "Cy3", "Cy5"]
    metadata: dict[str, Any] = {"axes": "TZCYX", "PhysicalSizeX": 650, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.7}
    metadata["Channel"] = {"Name": names}
    imwrite(path, stack, ome=True, tile=(32, 32), metadata=metadata, photometric="minisblack")
    with open_source(path) as source:
        assert source.bands == tuple(names)
        assert source.levels[0].pixel_size == PixelSize(0.7, 0.65, "um")
        assert_reads_like(source, 0, np.moveaxis(stack[0, 0], 0, -1))


def test_ome_channel_pyramids_keep_channels_apart(tmp_path: Path) -> None:
    path = tmp_path / "pyramid.ome.tif"
    pixels = np.moveaxis(picture(2, "uint16", 256, 320), -1, 0)
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        writer.write(pixels, subifds=1, tile=(64, 64), metadata={"axes": "CYX"}, photometric="minisblack")
        writer.write(pixels[:, ::2, ::2], subfiletype=1, tile=(64, 64), photometric="minisblack")
    with open_source(path) as source:
        assert source.bands == ("1", "2")
        assert len(source.levels) == 2
        assert_reads_like(source, 1, np.moveaxis(pixels[:, ::2, ::2], 0, -1))


def test_imagej_channels_are_bands(tmp_path: Path) -> None:
    path = tmp_path / "imagej.tif"
    stack = np.random.default_rng(1).integers(0, 60_000, (3, 2, 40, 30), np.uint16)  # ZCYX
    imwrite(path, stack, imagej=True, resolution=(4.0, 2.0), metadata={"axes": "ZCYX", "unit": "um"})
    with open_source(path) as source:
        assert (source.format, source.bands) == ("imagej-tiff", ("1", "2"))
        assert source.levels[0].pixel_size == PixelSize(0.5, 0.25, "um")
        assert_reads_like(source, 0, np.moveaxis(stack[0], 0, -1))


def test_thumbnails_masks_and_other_pictures_are_no_levels(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    pixels = picture(3, height=512, width=768)
    with tifffile.TiffWriter(path) as writer:
        tiled: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "metadata": None}
        writer.write(pixels, description="Aperio Image Library v11\n768x512 |AppMag = 20|MPP = 0.4990", **tiled)
        writer.write(pixels[::3, ::3], photometric="rgb", metadata=None)  # thumbnail: stripped
        writer.write(pixels[::4, ::4], **tiled)
        writer.write(pixels[:256, :256], **tiled)  # other proportions
        writer.write(pixels[::8, ::8, 0] > 9, subfiletype=5, photometric="minisblack", metadata=None)
        writer.write(pixels[:90, :90], subfiletype=9, photometric="rgb", metadata=None)  # macro
    with open_source(path) as source:
        assert source.format == "aperio-svs"
        assert [(level.height, level.width) for level in source.levels] == [(512, 768), (128, 192)]
        assert source.levels[0].pixel_size == PixelSize(0.499, 0.499, "um")
        assert_reads_like(source, 1, pixels[::4, ::4])


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        ((20_000.0, 40_000.0), "centimeter", PixelSize(0.25, 0.5, "um")),
        ((50_800.0, 25_400.0), "inch", PixelSize(1.0, 0.5, "um")),
        ((72.0, 72.0), "inch", None),  # 353 µm: a printer's default
        ((300.0, 300.0), "inch", None),
        ((20_000.0, 20_000.0), "none", None),
        ((0.0, 0.0), "inch", None),
    ],
)
def test_resolution_tags_give_micrometres_unless_they_are_for_printers(
    resolution: tuple[float, float], unit: str, expected: PixelSize | None, tmp_path: Path
) -> None:
    path = write(tmp_path / "image.tif", picture(), resolution=resolution, resolutionunit=unit)
    assert open_source(path).levels[0].pixel_size == expected


def test_geotiff_gives_metres_crs_corner_and_nodata(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 2, 3072, 0, 1, 32633)  # projected, pixel is point, UTM 33N
    tags = [
        (33550, "d", 3, (2.0, 4.0, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 500_001.0, 5_000_002.0, 0.0), True),
        (34735, "H", len(keys), keys, True),
        (42113, "s", 0, "-9999", True),
    ]
    write(path, picture(1, "float32"), extratags=tags)
    with open_source(path) as source:
        assert (source.format, source.nodata) == ("geotiff", -9999)
        assert source.levels[0].pixel_size == PixelSize(4.0, 2.0, "m")
        assert source.georeference is not None
        assert source.georeference.crs == "EPSG:32633"
        # The tie point is the first pixel's centre, half a pixel inside the image.
        assert source.georeference.affine == (2.0, 0.0, 500_000.0, 0.0, -4.0, 5_000_004.0)
