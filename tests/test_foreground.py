"""Foreground: skipping is cautious, and never touches what it can't judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from cli import tissue
from numpy.typing import NDArray
from PIL import Image

from tiling.errors import SourceError
from tiling.foreground import find_foreground
from tiling.geometry import Box, Halo
from tiling.plan import TilePlan
from tiling.source import open_source
from tiling.sources.facts import Level
from tiling.thumbnail import block_mean, screen_factor

MICROSCOPE = (20000.0, 20000.0)  # pixels per centimetre: 0.5 micrometres


def write_slide(path: Path, pixels: np.ndarray, *, microscope: bool = True) -> Path:
    resolution = MICROSCOPE if microscope else None
    tifffile.imwrite(
        path,
        pixels,
        photometric="rgb",
        tile=(64, 64),
        resolution=resolution,
        resolutionunit="CENTIMETER",
        compression="zlib",
    )
    return path


def glass_with_tissue(height: int, width: int, size: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    pixels = rng.integers(236, 246, (height, width, 3)).astype(np.uint8)
    pixels[:size, :size] = tissue(size, size)
    return pixels


def skipped_tiles(path: Path, mode: str = "auto") -> set[tuple[int, int]]:
    with open_source(path) as source:
        level = source.levels[0]
        plan = TilePlan((level.height, level.width), 128, (16, 16), Halo(94, 94, 94, 94))
        return {(t.row, t.col) for t in find_foreground(source, 0, mode).skipped(plan)}


def test_glass_is_skipped_and_tissue_is_not(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.tif", glass_with_tissue(1024, 1024, 400))
    skipped = skipped_tiles(path)
    assert skipped == {(y, x) for y in range(8) for x in range(8) if y > 3 or x > 3}


def test_an_aperio_slide_without_a_pixel_size_is_a_slide_all_the_same(tmp_path: Path) -> None:
    pixels, path = glass_with_tissue(1024, 1024, 400), tmp_path / "slide.svs"
    text = "Aperio Image Library v11\n1024x1024 (64x64) JPEG/RGB Q=90|AppMag = 20"
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(64, 64), description=text, metadata=None)
    assert skipped_tiles(path) == {(y, x) for y in range(8) for x in range(8) if y > 3 or x > 3}


def test_a_single_small_nucleus_keeps_its_tile(tmp_path: Path) -> None:
    pixels = glass_with_tissue(1024, 1024, 400)
    pixels[900:912, 900:912] = (90, 60, 130)
    assert (7, 7) not in skipped_tiles(write_slide(tmp_path / "slide.tif", pixels))


def test_none_skips_nothing(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.tif", glass_with_tissue(512, 512, 128))
    assert skipped_tiles(path)
    assert skipped_tiles(path, "none") == set()


def test_images_that_may_be_no_slide_are_never_skipped(tmp_path: Path) -> None:
    pixels = glass_with_tissue(512, 512, 128)
    assert skipped_tiles(write_slide(tmp_path / "photo.tif", pixels, microscope=False)) == set()
    assert skipped_tiles(write_slide(tmp_path / "fluorescence.tif", 255 - pixels)) == set()


def test_a_mask_decides_which_tiles_are_computed(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.tif", glass_with_tissue(512, 512, 512))
    marked = np.zeros((64, 64), np.uint8)
    marked[20:28, 36:44] = 255
    Image.fromarray(marked).save(tmp_path / "mask.png")
    kept = {(y, x) for y in range(4) for x in range(4)} - skipped_tiles(path, str(tmp_path / "mask.png"))
    assert kept == {(1, 2)}


def test_a_mask_of_another_aspect_is_refused(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.tif", glass_with_tissue(512, 512, 512))
    Image.fromarray(np.zeros((64, 128), np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(SourceError, match="aspects differ"):
        skipped_tiles(path, str(tmp_path / "mask.png"))


def test_nodata_tiles_of_a_scene_are_skipped(data_dir: Path) -> None:
    with open_source(data_dir / "geo/rasterio/RGB.byte.tif") as source:
        level = source.levels[0]
        plan = TilePlan((level.height, level.width), 64, (16, 16), Halo(0, 0, 0, 0))
        skipped = find_foreground(source, 0, "auto").skipped(plan)
        pixels = source.read(0, level.box)
    assert skipped
    assert all((pixels[t.valid.slices] == source.nodata).all() for t in skipped)


@pytest.mark.parametrize(
    ("side", "factor"), [(1024, 1), (3072, 2), (6400, 4), (8192, 8), (12288, 8), (24576, 16), (30720, 32)]
)
def test_a_picture_of_a_pyramid_is_drawn_from_its_coarse_levels(side: int, factor: int) -> None:
    slide = Pyramid(side)
    assert screen_factor(slide, 0, (side, side // 2)) == factor
    picture = block_mean(slide, 0, factor)
    assert picture.shape == (side // factor, side // 2 // factor, 1)
    assert 800 <= side // factor <= 1600 or side <= 1600
    assert slide.read_levels == {max(level.index for level in slide.levels if factor % level.downsample == 0)}


class Pyramid:
    """A slide whose levels are 4 and 16 times smaller, as scanners write them, and which of them were read."""

    bands = ("grey",)

    def __init__(self, side: int) -> None:
        sizes = ((1, side), (4, side // 4), (16, side // 16))
        self.levels = tuple(Level(i, size, size // 2, float(by), None) for i, (by, size) in enumerate(sizes))
        self.read_levels: set[int] = set()

    def read(self, level: int, box: Box) -> NDArray[np.generic]:
        self.read_levels.add(level)
        return np.zeros((*box.shape, 1), np.uint8)


def test_block_means_equal_plain_means_and_leave_out_what_does_not_decode(tmp_path: Path) -> None:
    pixels = tissue(300, 200)
    path = write_slide(tmp_path / "slide.tif", pixels)
    with open_source(path) as source:
        coarse = block_mean(source, 0, 16)
    assert coarse.shape == (19, 13, 3)
    np.testing.assert_allclose(coarse[3, 4], pixels[48:64, 64:80].mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(coarse[18, 12], pixels[288:, 192:].mean((0, 1)), rtol=1e-5)
    with tifffile.TiffFile(path) as tiff:
        offset, length = tiff.pages.first.dataoffsets[0], tiff.pages.first.databytecounts[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + length] = b"\xff" * length
    (tmp_path / "damaged.tif").write_bytes(content)
    with open_source(tmp_path / "damaged.tif") as source:
        holed = block_mean(source, 0, 16)
    assert np.isnan(holed[:4, :4]).all()
    np.testing.assert_allclose(holed[4:, 4:], coarse[4:, 4:])
