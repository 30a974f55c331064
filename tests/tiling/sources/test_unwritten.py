"""Segments that were never written: filled as the reference reader does, or no data; nothing at all is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openslide
import pytest
import rasterio
import tifffile
import zarr
from rasterio.windows import Window
from source_oracle import picture

from flows.config.run import SegmentConfig
from flows.run.preflight import check
from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.selection.emptiness import expect_data
from tiling.source import open_source

Pixels = npt.NDArray[Any]
window: Any = Window


def forget_tiles(path: Path, page: int, tiles: list[int]) -> None:
    """Set the byte counts and offsets of some tiles of a page to 0, as scanners do for tiles that hold nothing."""
    with tifffile.TiffFile(path) as tif:
        found: Any = tif.pages.get(page)
        tags = found.tags
        places = [(tags[code].valueoffset, {3: 2, 4: 4, 16: 8}[int(tags[code].dtype)]) for code in (324, 325)]
    with path.open("r+b") as file:
        for start, width in places:
            for tile in tiles:
                file.seek(start + tile * width)
                file.write(b"\0" * width)


def svs(path: Path, pixels: Pixels, steps: tuple[int, ...] = (1, 2, 4)) -> Path:
    with tifffile.TiffWriter(path) as writer:
        for step in steps:
            level = pixels[::step, ::step]
            text = f"Aperio Image Library v11\n{level.shape[1]}x{level.shape[0]} (128x128) |MPP = {0.5 * step}"
            writer.write(
                level, description=text, photometric="rgb", tile=(128, 128), compression="deflate", metadata=None
            )
    return path


def test_tiles_that_a_scanner_left_out_are_filled_from_the_finer_level(cases_dir: Path) -> None:
    """The object of 190 px in them is there, as OpenSlide has it."""
    path = cases_dir / "d04_zero_tiles.svs"
    with open_source(path) as source, openslide.OpenSlide(path) as slide:
        level = source.levels[1]
        ours = source.read(1, level.box).astype(int)
        theirs = np.asarray(slide.read_region((0, 0), 1, (level.width, level.height)))[..., :3].astype(int)
        assert not source.has_mask
    fine = tifffile.imread(path, key=0).astype(int)
    means = fine.reshape(level.height, 2, level.width, 2, 3).mean((1, 3))
    lost = np.s_[128:256, 256:384]
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(ours[lost], means[lost])
    assert ((ours[..., 1] > 127) & (ours.argmax(-1) == 1)).sum() == 190


@pytest.mark.parametrize("lost", [{1: [0, 3]}, {1: [1], 2: [0]}, {2: [0, 1]}])
def test_filled_levels_are_of_the_finest_that_was_written(tmp_path: Path, lost: dict[int, list[int]]) -> None:
    smooth = np.add.outer(np.arange(512), np.arange(768))[..., np.newaxis] * np.array([0.1, 0.15, 0.05])
    path = svs(tmp_path / "slide.svs", smooth.astype(np.uint8))
    with open_source(path) as source:
        whole = [source.read(level, source.levels[level].box) for level in range(3)]
    for page, tiles in lost.items():
        forget_tiles(path, page, tiles)
    with open_source(path) as source:
        assert len(source.levels) == 3
        assert not source.has_mask
        for level in range(3):
            box = source.levels[level].box
            found = source.read(level, box).astype(int)
            assert np.abs(found - whole[level].astype(int)).max() <= 2
            part = Box(30, 50, 100, 140).intersect(box)
            np.testing.assert_array_equal(source.read(level, part), found[part.slices])


def test_what_the_finest_level_of_a_slide_lacks_is_no_data(tmp_path: Path) -> None:
    path = svs(tmp_path / "slide.svs", picture(3, height=512, width=768))
    for page, tiles in ((0, [0, 1, 6, 7]), (1, [0]), (2, [0])):
        forget_tiles(path, page, tiles)
    with open_source(path) as source:
        assert source.has_mask
        for level, side in ((0, 256), (1, 128), (2, 64)):
            held = source.read_mask(level, source.levels[level].box)
            assert held is not None
            assert not held[:side, :side].any()
            assert held.sum() == held.size - side * side


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_unwritten_tiles_of_a_sparse_map_hold_no_data(tmp_path: Path, bands: int, interleave: str) -> None:
    path = tmp_path / "sparse.tif"
    options: dict[str, Any] = {"tiled": True, "blockxsize": 64, "blockysize": 64, "interleave": interleave}
    options |= {"sparse_ok": True, "width": 256, "height": 192, "count": bands, "dtype": "uint8", "driver": "GTiff"}
    with rasterio.open(path, "w", **options) as file:
        file.write(np.full((bands, 64, 64), 7, np.uint8), window=window(64, 64, 64, 64))
        if bands == 3:  # of this one, a single band is written
            file.write(np.full((64, 64), 7, np.uint8), 1, window=window(128, 64, 64, 64))
    with open_source(path) as source:
        assert source.has_mask
        held = source.read_mask(0, source.levels[0].box)
    expected = np.zeros((192, 256), np.bool_)
    expected[64:128, 64:128] = True
    if bands == 3 and interleave == "pixel":
        expected[64:128, 128:192] = True
    np.testing.assert_array_equal(held, expected)


def test_an_overview_that_lacks_what_the_image_has_is_no_level(tmp_path: Path) -> None:
    pixels = picture(3, height=512, width=512)
    path = tmp_path / "map.tif"
    with tifffile.TiffWriter(path) as writer:
        for step in (1, 2, 4):
            options: dict[str, Any] = {"photometric": "rgb", "tile": (64, 64), "metadata": None}
            writer.write(pixels[::step, ::step], subfiletype=int(step > 1), **options)
    forget_tiles(path, 1, [5])
    with open_source(path) as source:
        assert [level.height for level in source.levels] == [512, 128]
        assert not source.has_mask


@pytest.mark.parametrize("nodata", [None, 0, 255])
def test_a_sparse_file_of_which_nothing_was_written_is_refused(tmp_path: Path, nodata: int | None) -> None:
    path = tmp_path / "empty.tif"
    options: dict[str, Any] = {"width": 256, "height": 192, "count": 1, "dtype": "uint8", "driver": "GTiff"}
    with rasterio.open(path, "w", sparse_ok=True, tiled=True, nodata=nodata, **options):
        pass
    with open_source(path) as source, pytest.raises(SourceError, match="holds nothing but no data"):
        expect_data(source, 0)


def test_chunks_under_other_keys_than_the_metadata_says_are_refused(cases_dir: Path) -> None:
    with pytest.raises(
        SourceError, match=r"no chunk of array '0' is there under the keys .*the first would be 0/0/0/0"
    ):
        open_source(cases_dir / "c05_dots.ome.zarr")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("packed", [False, True])
def test_an_array_without_a_chunk_is_refused_and_with_one_it_is_read(
    tmp_path: Path, version: int, packed: bool
) -> None:
    folder = tmp_path / "image.ome.zarr"
    group = zarr.open_group(folder, mode="w", zarr_format=2 if version == 2 else 3)
    array = group.create_array("0", shape=(200, 300), chunks=(64, 64), dtype="uint8")
    multiscales = [{"version": "0.4", "axes": ["y", "x"], "datasets": [{"path": "0"}]}]
    group.attrs.update({"multiscales": multiscales} if version == 2 else {"ome": {"multiscales": multiscales}})

    def place() -> Path:
        if not packed:
            return folder
        shutil.make_archive(str(folder), "zip", folder)
        return Path(f"{folder}.zip")

    with pytest.raises(SourceError, match="no chunk of array '0' is there"):
        open_source(place())
    array[130:140, 260:270] = 9  # the first chunk stays empty
    with open_source(place()) as source:
        assert source.read(0, source.levels[0].box).sum() == 900


def whole_of(path: Path, value: float, nodata: float | None, dtype: str) -> Path:
    options: dict[str, Any] = {"width": 90, "height": 70, "count": 2, "dtype": dtype, "driver": "GTiff"}
    with rasterio.open(path, "w", nodata=nodata, **options) as file:
        file.write(np.full((2, 70, 90), value, dtype))
    return path


@pytest.mark.parametrize(
    ("value", "nodata", "dtype"),
    [
        (255, 255, "uint8"),
        (-9999, -9999, "float32"),
        (np.nan, np.nan, "float32"),
        (np.nan, None, "float32"),
        (0, 0, "uint16"),
    ],
)
def test_an_image_of_nothing_but_nodata_is_refused_at_once(
    tmp_path: Path, value: float, nodata: float | None, dtype: str
) -> None:
    path = whole_of(tmp_path / "empty.tif", value, nodata, dtype)
    with open_source(path) as source, pytest.raises(SourceError, match="holds nothing but no data"):
        expect_data(source, 0)
    with rasterio.open(path, "r+") as file:
        file.write(np.ones((1, 1), dtype), 1, window=window(89, 69, 1, 1))
    with open_source(path) as source:
        expect_data(source, 0)


def test_an_image_all_transparent_is_refused_at_once(tmp_path: Path) -> None:
    pixels = picture(4, height=70, width=90)
    pixels[..., 3] = 0
    path = tmp_path / "clear.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=["unassalpha"], metadata=None)
    with open_source(path) as source, pytest.raises(SourceError, match="holds nothing but no data"):
        expect_data(source, 0)


def test_the_command_refuses_it_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "clear.tif"
    pixels = np.zeros((70, 90, 4), np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=["unassalpha"], metadata=None)
    with pytest.raises(SourceError, match="holds nothing but no data"):
        check(SegmentConfig(image=path, out=tmp_path / "run"))
