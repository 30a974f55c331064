"""Order of reading: down strips where the file lies in tiles, so that each of them is decoded about once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from tiling.geometry import Box, Halo
from tiling.plan import TilePlan
from tiling.runs.staging import load_tile
from tiling.runs.walk import in_order, strip_px
from tiling.source import ImageSource, open_source
from tiling.sources.cache import SegmentCache
from tiling.view import View

HALO = Halo(32, 32, 32, 32)


def test_tiles_come_row_by_row_or_down_strips_each_of_them_once() -> None:
    plan = TilePlan((300, 700), 128, (16, 16), HALO)
    assert plan.shape == (3, 6)
    tiles = np.random.default_rng(1).permutation(plan.count)
    assert in_order(plan, tiles, None) == [*range(18)]
    assert in_order(plan, tiles, 300) == [0, 1, 6, 7, 12, 13, 2, 3, 8, 9, 14, 15, 4, 5, 10, 11, 16, 17]
    assert in_order(plan, tiles, 1) == [row * 6 + col for col in range(6) for row in range(3)]
    assert in_order(plan, np.array([17, 3, 12, 6]), 300) == [6, 12, 3, 17]
    assert in_order(plan, tiles, 4096) == [*range(18)]


@pytest.mark.parametrize(
    ("more", "has_strips"),
    [
        ({"tile": (256, 256), "compression": "zlib"}, True),
        ({"tile": (2048, 2048), "compression": "zlib"}, False),  # each would be decoded for every strip
        ({"rowsperstrip": 16, "compression": "zlib"}, False),
        ({"tile": (256, 256)}, False),  # no more is read than is asked for
    ],
)
def test_strips_are_for_files_of_small_compressed_tiles(
    tmp_path: Path, more: dict[str, object], has_strips: bool
) -> None:
    tifffile.imwrite(tmp_path / "image.tif", np.zeros((64, 3000, 3), np.uint8), photometric="rgb", **more)  # type: ignore[arg-type]
    with open_source(tmp_path / "image.tif") as source, source.viewed(None) as view:
        assert (strip_px(source) is not None) == (strip_px(view) is not None) == has_strips


@pytest.mark.parametrize(
    ("side_px", "shape", "width"),
    [(256, (64, 3000, 3), 8192), (128, (64, 3000, 3), 20480), (512, (64, 3000, 3), 4096), (256, (64, 3000), 32768)],
)
def test_strips_are_as_wide_as_what_is_kept_between_rows_of_them(
    tmp_path: Path, side_px: int, shape: tuple[int, ...], width: int
) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, np.zeros(shape, np.uint8), tile=(side_px, side_px), compression="zlib")
    with open_source(path) as source:
        assert strip_px(source) == width


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("region", [None, (0, 256, 768, 7936)])
def test_down_strips_each_segment_is_decoded_once(
    tmp_path: Path, planar: bool, region: tuple[int, int, int, int] | None
) -> None:
    path, view = tmp_path / "image.tif", None if region is None else View(region=region)
    more = {"planarconfig": "separate"} if planar else {}
    pixels = np.zeros((3, 768, 8192) if planar else (768, 8192, 3), np.uint16)
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), compression="zlib", **more)  # type: ignore[arg-type]
    decoded = list[int]()
    with open_source(path) as whole:
        for is_walked in (False, True):
            with open_source(path, view) as source:
                plan = TilePlan((source.levels[0].height, source.levels[0].width), 256, (16, 16), HALO)
                for index in in_order(plan, np.arange(plan.count), strip_px(whole) if is_walked else None):
                    if is_walked:
                        load_tile(source, 0, plan, plan.tile(index))
                    else:
                        source.read(0, plan.tile(index).read.intersect(plan.image))
                decoded.append(cached(source).decoded)
    segments = plan.count * (3 if planar else 1)
    assert decoded[0] > 1.1 * segments
    assert decoded[1] == segments


def test_a_read_keeps_what_its_neighbours_read_too(tmp_path: Path) -> None:
    path, plan = tmp_path / "image.tif", TilePlan((640, 640), 256, (16, 16), HALO)
    tifffile.imwrite(path, np.zeros((640, 640), np.uint8), tile=(64, 64), compression="zlib")
    with open_source(path) as source:
        load_tile(source, 0, plan, plan.tile(0))  # 5 x 5 segments, of which 3 x 3 lie before the next reads
        assert cached(source).decoded == 25
        source.read(0, Box(192, 0, 288, 288))
        source.read(0, Box(0, 192, 288, 288))
        assert cached(source).decoded == 25
        source.read(0, Box(0, 0, 192, 192))
        assert cached(source).decoded == 34
        source.close()
        path.unlink()
        source.evict(0, Box(0, 0, 192, 192))  # opens nothing


def cached(source: ImageSource) -> SegmentCache:
    tiff = source._tiff()  # pyright: ignore[reportPrivateUsage]
    assert tiff is not None
    return tiff.cache
