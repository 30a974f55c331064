"""Stitched labels equal one pass over the whole image; and the check can fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from cli import tissue_photograph
from oracle import Image, segment_here, whole_image_labels, whole_image_logits

from flows.worker.tile_worker import TileWorker
from tiling.geometry import Box, Halo
from tiling.plan import TilePlan
from tiling.source import open_source
from unet_core.bounds import Edges
from unet_core.bundles.bundle import Bundle, load_bundle
from unet_core.errors import FootprintError
from unet_core.inference.predictor import OutputRegion, Predictor
from unet_core.inference.strip_height import STRIP_PX


@pytest.fixture(scope="module")
def nuclei() -> Bundle:
    return load_bundle("nuclei-small")


@pytest.fixture(scope="module")
def slide(data_dir: Path) -> Path:
    return data_dir / "slides/CMU-1-Small-Region.svs"


@pytest.fixture(scope="module")
def slide_pixels(slide: Path) -> Image:
    with open_source(slide) as source:
        return source.read(0, source.levels[0].box)


@pytest.fixture(scope="module")
def slide_labels(nuclei: Bundle, slide_pixels: Image) -> np.ndarray:
    return whole_image_labels(nuclei, slide_pixels)


def photograph() -> Image:
    with open_source(tissue_photograph()) as source:
        return source.read(0, source.levels[0].box)


def write_image(path: Path, pixels: Image) -> Path:
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(128, 128), compression="zlib")
    return path


@pytest.mark.parametrize(
    "core", [512, *(pytest.param(core, marks=pytest.mark.slow) for core in (256, 1024, 2048, 4096))]
)
def test_real_slide_equals_one_pass_for_every_core(
    core: int, slide: Path, slide_labels: np.ndarray, tmp_path: Path
) -> None:
    run = segment_here(slide, tmp_path / "run", core)
    labels = run.open_mask().read(Box(0, 0, *run.plan.extent))
    assert labels.shape == (2967, 2220)
    assert slide_labels.mean() > 0.02, "a mask of nothing would pass every comparison"
    assert int(np.count_nonzero(labels != slide_labels)) == 0


@pytest.mark.parametrize(
    ("height", "width", "core"),
    [(512, 512, 128), (477, 391, 64), (333, 130, 160), (100, 509, 256), (37, 29, 64), (1, 1, 16)],
)
def test_extents_that_are_no_multiple_of_anything_equal_one_pass(
    height: int, width: int, core: int, nuclei: Bundle, tmp_path: Path
) -> None:
    pixels = photograph()[:height, :width]
    image = write_image(tmp_path / "crop.tif", pixels)
    run = segment_here(image, tmp_path / "run", core)
    labels = run.open_mask().read(Box(0, 0, *run.plan.extent))
    np.testing.assert_array_equal(labels, whole_image_labels(nuclei, pixels))


@pytest.mark.parametrize("model", ["nuclei", "nuclei-small"])
def test_a_crop_of_the_slide_equals_one_pass(model: str, slide_pixels: Image, tmp_path: Path) -> None:
    crop = slide_pixels[1003:1780, 411:1314]
    assert crop.shape[0] % 16
    assert crop.shape[1] % 16
    image = write_image(tmp_path / "crop.tif", crop)
    run = segment_here(image, tmp_path / "run", 256, model=model)
    expected = whole_image_labels(load_bundle(model), crop)
    assert set(np.unique(expected).tolist()) == set(range(len(load_bundle(model).card.classes)))
    np.testing.assert_array_equal(run.open_mask().read(Box(0, 0, *crop.shape[:2])), expected)


@pytest.mark.slow
def test_rerun_of_a_tile_in_strips_gives_the_labels_of_one_pass_again(
    nuclei: Bundle, slide_pixels: Image, tmp_path: Path
) -> None:
    crop = slide_pixels[900:1950, 300:1425]
    run = segment_here(write_image(tmp_path / "crop.tif", crop), tmp_path / "run", 1056)
    assert run.plan.shape == (1, 2)
    assert run.plan.tile(0).valid.area > STRIP_PX, "the first tile is more than one strip"
    mask, expected = run.open_mask(), whole_image_labels(nuclei, crop)
    np.testing.assert_array_equal(mask.read(run.plan.mask), expected)
    mask.write(run.plan.tile(0), np.zeros(run.plan.tile(0).valid.shape, np.uint8))
    assert TileWorker().process(run.path, 0, staged=False).reason is None
    np.testing.assert_array_equal(run.open_mask().read(run.plan.mask), expected)


def plain_tiles(bundle: Bundle, pixels: Image, plan: TilePlan, shift: int = 0) -> torch.Tensor:
    """Logits stitched from plain padded passes over reads: what overtile would give without its two conditions."""
    stitched = torch.zeros(plan.extent)
    for tile in plan.tiles():
        read = tile.read.translate(shift, shift).intersect(Box(0, 0, *plan.extent))
        logits = whole_image_logits(bundle, pixels[read.slices], stride=16)[0]
        held = tile.valid.intersect(read)
        stitched[held.slices] = logits[held.relative_to(read).slices]
    return stitched


def test_the_check_catches_a_halo_that_is_too_small(nuclei: Bundle) -> None:
    pixels = photograph()
    whole = whole_image_logits(nuclei, pixels)[0]
    exact = plain_tiles(nuclei, pixels, TilePlan((512, 512), 128, (16, 16), Halo(94, 94, 94, 94)))
    short = plain_tiles(nuclei, pixels, TilePlan((512, 512), 128, (16, 16), Halo(32, 32, 32, 32)))
    assert int(torch.count_nonzero((exact > 0) != (whole > 0))) == 0
    assert int(torch.count_nonzero((short > 0) != (whole > 0))) > 0


def test_the_check_catches_reads_off_the_stride_grid(nuclei: Bundle) -> None:
    pixels = photograph()
    whole = whole_image_logits(nuclei, pixels)[0]
    off_grid = plain_tiles(nuclei, pixels, TilePlan((512, 512), 128, (16, 16), Halo(112, 112, 112, 112)), shift=-5)
    inner = (slice(128, 384), slice(128, 384))
    assert int(torch.count_nonzero((off_grid > 0)[inner] != (whole > 0)[inner])) > 0


def test_a_read_that_lacks_one_pixel_of_halo_is_refused(nuclei: Bundle) -> None:
    predictor = Predictor(nuclei)
    inside = Edges(top=False, bottom=False, left=False, right=False)
    tile = np.ascontiguousarray(photograph()[:320, :320])
    predictor.predict(tile, OutputRegion((94, 96, 226, 224), inside))
    with pytest.raises(FootprintError, match="does not hold"):
        predictor.predict(tile, OutputRegion((93, 96, 226, 224), inside))
