"""Foreground: skipping is cautious, and never touches what it can't judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from cli import tissue
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from tiling.errors import SourceError
from tiling.geometry import Box, Halo
from tiling.plan import TilePlan
from tiling.selection.find_foreground import find_foreground
from tiling.source import open_source
from tiling.sources.downsample import block_mean, screen_factor
from tiling.sources.facts import Level

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
    path = write_slide(tmp_path / "slide.tif", glass_with_tissue(1024, 512, 128))
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


CASES = Path(__file__).resolve().parents[4] / "shared" / "cases"
PENS = {
    "black": (15, 15, 18),
    "blue": (30, 60, 170),
    "red": (215, 35, 50),
    "green": (30, 150, 90),
    "orange": (240, 140, 30),
    "violet": (110, 40, 150),
}


def pale_tissue(mark: tuple[int, int, int] | None = None) -> NDArray[np.uint8]:
    """Glass with a disc of pale tissue at the upper right and, at the lower left, a line of a pen."""
    random = np.random.default_rng(0)
    picture = Image.fromarray(random.normal(242, 2, (640, 640, 3)).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((380, 40, 600, 260), fill=(235, 220, 231))
    if mark is not None:
        draw.line([(33, 350), (150, 560), (330, 390), (520, 610)], fill=mark, width=37)
        picture = picture.filter(ImageFilter.GaussianBlur(1.5))
    noisy = np.asarray(picture).astype(int) + random.integers(-2, 3, (640, 640, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def taken(path: Path) -> NDArray[np.bool_]:
    """What counts as foreground, one value per pixel."""
    with open_source(path) as source:
        found, level = find_foreground(source, 0, "auto"), source.levels[0]
    if found.coarse is None:
        return np.ones((level.height, level.width), np.bool_)
    return found.coarse.repeat(16, 0).repeat(16, 1)[: level.height, : level.width]


@pytest.mark.parametrize("pen", PENS)
def test_a_pen_loses_no_tissue_and_is_none(pen: str, tmp_path: Path) -> None:
    plain = taken(write_slide(tmp_path / "plain.tif", pale_tissue()))
    marked = taken(write_slide(tmp_path / "marked.tif", pale_tissue(PENS[pen])))
    rows, cols = np.mgrid[:640, :640]
    inside = (rows - 150) ** 2 + (cols - 490) ** 2 < 95**2
    assert plain[inside].all()
    assert marked[inside].all()
    assert not plain[280:].any()
    # Violet is the colour of a stain, and so are the edges of blue.
    most = {"violet": 1.0, "blue": 0.1}.get(pen, 0.01)
    assert marked[280:].mean() <= most


@pytest.mark.parametrize("border", [0, 8, 60])
def test_black_borders_and_tiles_never_written_lose_no_tissue(border: int, tmp_path: Path) -> None:
    pixels = pale_tissue()
    pixels[:, :100] = border
    pixels[-60:] = border
    pixels[300:364, 300:364] = border
    found = taken(write_slide(tmp_path / "border.tif", pixels))
    assert found[80:220, 420:560].all()
    assert not found[:, :96].any()
    assert not found[400:].any()


def test_a_fold_loses_no_pale_tissue(tmp_path: Path) -> None:
    pixels = pale_tissue()
    pixels[400:500, 100:500] = (238, 226, 235)
    pixels[440:460, 100:500] = (60, 25, 80)
    found = taken(write_slide(tmp_path / "fold.tif", pixels))
    assert found[400:496, 112:496].all()
    assert found[80:220, 420:560].all()


def test_a_slide_that_is_all_tissue_is_computed_in_full(data_dir: Path, tmp_path: Path) -> None:
    for name in ("high-nuclei-score-level0.png", "very-low-nuclei-score-level0.png"):
        assert taken(write_stain(data_dir, name, tmp_path)).all(), name
    pixels = np.asarray(Image.open(data_dir / "stains/very-low-nuclei-score-level0.png").convert("RGB"))
    pale = (255 - (255 - pixels.astype(np.float32)) * 0.45).astype(np.uint8)
    assert taken(write_slide(tmp_path / "pale.tif", pale)).mean() > 0.9


def write_stain(data_dir: Path, name: str, folder: Path) -> Path:
    pixels = np.asarray(Image.open(data_dir / "stains" / name).convert("RGB"))
    return write_slide(folder / f"{name}.tif", pixels)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("almost-white-1.png", 0.0, 0.01),
        ("diagnostic-slide-thumb-rgb.png", 0.6, 0.75),  # the tissue and what of the ring lies on it
        ("high-nuclei-score-level2.png", 0.12, 0.2),
        ("high-nuclei-score-red-pen-level1.png", 1.0, 1.0),
        ("low-nuclei-score-level0.png", 0.3, 1.0),
        ("low-nuclei-score-level1.png", 0.4, 1.0),
        ("medium-nuclei-score-level0.png", 0.9, 1.0),
        ("medium-nuclei-score-level1.png", 0.65, 1.0),
        ("medium-nuclei-score-level2.png", 0.78, 0.86),
        ("no-tissue-green-pen.png", 0.0, 0.01),
        ("no-tissue-line.png", 0.0, 0.1),
        ("no-tissue2.png", 0.0, 0.03),
        ("tcga-green-pen.png", 1.0, 1.0),
        ("tissue-level0-4302-10273-4814-10785.png", 0.7, 1.0),
        ("tissue-level2-3000-7666-7096-11763.png", 0.75, 0.9),
        ("very-low-nuclei-score-red-pen-level1.png", 0.2, 1.0),
    ],
)
def test_tissue_of_other_laboratories_is_taken_and_pens_alone_are_not(
    name: str, least: float, most: float, data_dir: Path, tmp_path: Path
) -> None:
    assert least <= taken(write_stain(data_dir, name, tmp_path)).mean() <= most


def test_stains_of_the_colour_of_a_pen_are_tissue(data_dir: Path, tmp_path: Path) -> None:
    pixels = np.asarray(Image.open(data_dir / "stains/low-nuclei-score-level1.png").convert("RGB"))
    density = -np.log(np.maximum(pixels, 1) / 244).mean(axis=-1, keepdims=True)
    for stain in ((1.74, 0.92, 0.34), (1.95, 1.2, 0.5)):  # alcian blue, methyl green
        stained = (244 * np.exp(-density * np.array(stain))).clip(0, 255).astype(np.uint8)
        found = taken(write_slide(tmp_path / "stain.tif", stained))
        dark = density[..., 0] > 0.7
        assert found[dark].mean() > 0.95


def test_the_tissue_beside_a_pen_is_that_without_it() -> None:
    if not CASES.is_dir():
        pytest.skip(f"{CASES} is not there")
    full = np.asarray(tifffile.imread(CASES / "g01_pale_full.tif"))
    tissue_px = full.min(axis=-1) < full[0, 0].min() - 5
    assert np.count_nonzero(tissue_px) == pytest.approx(70_661, rel=0.01)
    plain, marked = (taken(CASES / f"g01_pale_{name}.tif") for name in ("full", "pen"))
    assert np.array_equal(plain, marked)
    left = {(y // 128, x // 128) for y, x in np.argwhere(tissue_px)} & skipped_tiles(CASES / "g01_pale_pen.tif")
    assert not left


def test_a_slide_with_hardly_any_tissue_says_so(tmp_path: Path) -> None:
    pixels = pale_tissue()
    pixels[:300] = pixels[330:630, ::-1]
    pixels[500:540, 500:540] = (150, 90, 160)
    with open_source(write_slide(tmp_path / "few.tif", pixels)) as source:
        assert "% of the slide is taken for tissue" in find_foreground(source, 0, "auto").remark
    with open_source(write_slide(tmp_path / "some.tif", pale_tissue())) as source:
        assert find_foreground(source, 0, "auto").remark == ""


def test_tissue_is_told_among_pixels_that_hold_data(tmp_path: Path) -> None:
    pixels = pale_tissue()
    held = np.ones((640, 640, 1), np.uint8) * 255
    held[:, :200] = 0
    pixels[:, :200] = 0
    tifffile.imwrite(
        tmp_path / "alpha.tif",
        np.concatenate([pixels, held], axis=-1),
        photometric="rgb",
        extrasamples=["unassalpha"],
        tile=(64, 64),
        resolution=MICROSCOPE,
        resolutionunit="CENTIMETER",
        metadata=None,
    )
    found = taken(tmp_path / "alpha.tif")
    assert found[80:220, 420:560].all()
    assert not found[:, :192].any()
    assert not found[300:].any()
