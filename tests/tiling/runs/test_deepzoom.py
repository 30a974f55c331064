"""Squares of an image and of a mask are the pixels that the whole arrays have there, at every zoom."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from tiling.errors import PlanError
from tiling.geometry import Halo, OutputGrid
from tiling.plan import TilePlan
from tiling.runs.counts import count_labels
from tiling.runs.deepzoom import SQUARE_PX, DeepImage, DeepMask, ZoomGrid
from tiling.runs.mask import Mask
from tiling.runs.ome_metadata import LabelClass
from tiling.source import open_source

HEIGHT, WIDTH = 1300, 1801
CLASSES = [LabelClass("background", "#000000"), LabelClass("a", "#e69f00"), LabelClass("b", "#56b4e9")]


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture(scope="module")
def image(pixels: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "noise.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256))
    return path


def drawn_mask(folder: Path, grid: OutputGrid | None = None, core: int = 256) -> tuple[Mask, TilePlan]:
    plan = TilePlan((HEIGHT, WIDTH), core, (4, 4), Halo(0, 0, 0, 0), grid or OutputGrid())
    mask = Mask.create(folder / "mask.ome.zarr", plan, CLASSES, None)
    rng = np.random.default_rng(1)
    for tile in plan.tiles():
        if tile.index != 5:
            coarse = rng.integers(0, 3, (-(-tile.valid.height // 8), -(-tile.valid.width // 8)), np.uint8)
            mask.write(tile, coarse.repeat(8, 0).repeat(8, 1)[: tile.valid.height, : tile.valid.width])
    mask.build_pyramid()
    return mask, plan


def labels_in(mask: Mask, level: int = 0) -> NDArray[np.uint8]:
    return np.asarray(mask.levels[level][:], np.uint8)


def assembled(grid: ZoomGrid, zoom: int, square: Callable[[int, int, int], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """All squares of a zoom, side by side."""
    height, width = grid.shape(zoom)
    rows, cols = -(-height // SQUARE_PX), -(-width // SQUARE_PX)
    return np.concatenate(
        [np.concatenate([square(zoom, row, col) for col in range(cols)], axis=1) for row in range(rows)], axis=0
    )


def test_an_image_is_its_pixels_and_their_means(image: Path, pixels: NDArray[np.uint8]) -> None:
    with open_source(image) as source:
        grid = ZoomGrid((HEIGHT, WIDTH))
        deep = DeepImage(source, 0, grid)
        assert grid.coarsest == 2
        np.testing.assert_array_equal(assembled(grid, 0, deep.square), pixels)
        quarter = assembled(grid, 2, deep.square).astype(float)
    whole = pixels[: HEIGHT // 4 * 4, : WIDTH // 4 * 4].astype(float)
    means = whole.reshape(HEIGHT // 4, 4, WIDTH // 4, 4, 3).mean(axis=(1, 3))
    assert quarter.shape == (325, 451, 3)
    assert np.abs(quarter[:, :450] - means).max() <= 0.5, "rounded to 8 bits"
    assert np.abs(quarter[:, 450] - pixels[:, 1800:].reshape(325, 4, 1, 3).mean(axis=(1, 2))).max() <= 0.5


def test_a_pyramid_whose_levels_leave_pixels_out_is_read_without_a_dark_edge(tmp_path: Path) -> None:
    bright = np.full((1025, 1027, 3), 200, np.uint8)
    with tifffile.TiffWriter(tmp_path / "p.tif") as file:
        file.write(bright, photometric="rgb", tile=(256, 256), subifds=1)
        file.write(bright[:512, :513], photometric="rgb", tile=(256, 256), subfiletype=1)
    with open_source(tmp_path / "p.tif") as source:
        shown = DeepImage(source, 0, ZoomGrid((1025, 1027)))
        corner = shown.square(1, 1, 1)
    assert corner.shape == (1, 2, 3)
    assert (corner == 200).all()


def test_all_squares_of_a_deep_image_are_stretched_alike(tmp_path: Path) -> None:
    ramp = np.linspace(1000, 9000, 1400).astype(np.uint16)[None].repeat(600, axis=0)
    tifffile.imwrite(tmp_path / "ramp.tif", ramp, photometric="minisblack", tile=(256, 256))
    with open_source(tmp_path / "ramp.tif") as source:
        deep = DeepImage(source, 0, ZoomGrid((600, 1400)))
        row = np.concatenate([deep.square(0, 0, col) for col in range(3)], axis=1)[0, :, 0].astype(int)
    assert (np.diff(row) >= 0).all()
    assert row[0] == 0
    assert row[-1] == 255


def test_what_does_not_decode_is_gray_and_the_rest_is_shown(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.tif"
    tifffile.imwrite(damaged, np.full((600, 600, 3), 90, np.uint8), photometric="rgb", tile=(256, 256), compression=8)
    with tifffile.TiffFile(damaged) as tiff:
        page = tiff.pages.first
        assert isinstance(page, tifffile.TiffPage)
        start, length = page.dataoffsets[0], page.databytecounts[0]
    broken = bytearray(damaged.read_bytes())
    broken[start : start + length] = b"\xff" * length
    damaged.write_bytes(broken)
    with open_source(damaged) as source:
        shown = DeepImage(source, 0, ZoomGrid((600, 600))).square(0, 0, 0)
    assert (shown[:256, :256] == 128).all()
    assert (shown[256:] == 90).all()


def test_a_mask_is_its_labels_and_its_pyramid(tmp_path: Path) -> None:
    mask, plan = drawn_mask(tmp_path)
    grid = ZoomGrid.of(plan)
    deep = DeepMask(mask, grid)
    for zoom in range(grid.coarsest + 1):
        np.testing.assert_array_equal(assembled(grid, zoom, deep.square), labels_in(mask, zoom))


def test_a_finer_mask_has_zooms_of_its_own_and_lies_on_the_image(tmp_path: Path) -> None:
    mask, plan = drawn_mask(tmp_path, OutputGrid((Fraction(3), Fraction(3))), core=512)
    grid = ZoomGrid.of(plan)
    deep = DeepMask(mask, grid)
    labels = labels_in(mask)
    assert grid.finest == -2
    finest = assembled(grid, -2, deep.square)
    assert finest.shape == (HEIGHT * 4, WIDTH * 4)
    np.testing.assert_array_equal(
        finest, labels[np.ix_((np.arange(HEIGHT * 4) * 2 + 1) * 3 // 8, (np.arange(WIDTH * 4) * 2 + 1) * 3 // 8)]
    )
    for y, x in ((0, 0), (HEIGHT - 1, WIDTH - 1), (700, 33)):
        assert deep.label_at(y, x) == labels[3 * y, 3 * x]
    assert deep.label_at(HEIGHT, 0) is None


def test_a_coarser_mask_covers_the_image(tmp_path: Path) -> None:
    mask, plan = drawn_mask(tmp_path, OutputGrid((Fraction(1, 4), Fraction(1, 4))))
    grid = ZoomGrid.of(plan)
    deep = DeepMask(mask, grid)
    labels = labels_in(mask)
    np.testing.assert_array_equal(assembled(grid, 0, deep.square), labels.repeat(4, 0).repeat(4, 1)[:HEIGHT, :WIDTH])


def test_a_margin_shows_the_neighbours(tmp_path: Path) -> None:
    mask, plan = drawn_mask(tmp_path)
    inner = DeepMask(mask, ZoomGrid.of(plan)).square(0, 1, 1, margin=1)
    whole = np.pad(labels_in(mask), 1, mode="edge")
    np.testing.assert_array_equal(inner, whole[512 : 512 + 514, 512 : 512 + 514])


@pytest.mark.parametrize("place", [(0, 3, 0), (0, -1, 0), (3, 0, 0), (-1, 0, 0), (60, 0, 0)])
def test_a_square_outside_is_refused(place: tuple[int, int, int], tmp_path: Path) -> None:
    mask, plan = drawn_mask(tmp_path)
    with pytest.raises(PlanError, match="is not in the image; zooms are 0 to 2"):
        DeepMask(mask, ZoomGrid.of(plan)).square(*place)


def test_labels_are_counted_exactly_and_nearly(tmp_path: Path) -> None:
    mask, _ = drawn_mask(tmp_path)
    labels = labels_in(mask)
    expected = np.bincount(labels.ravel(), minlength=256)
    counts, level = count_labels(mask)
    assert level == 0
    np.testing.assert_array_equal(counts, expected)
    near, level = count_labels(mask, most_pixels=labels.size // 3)
    assert level == 1
    assert np.abs(near - expected).max() < 0.02 * labels.size
    assert near[255] > 0
