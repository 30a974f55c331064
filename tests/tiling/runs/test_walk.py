"""Order of reading: down strips where the file lies in tiles, so that each of them is decoded about once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from tiling.geometry import Halo
from tiling.plan import TilePlan
from tiling.runs.walk import in_order, strip_px
from tiling.source import open_source
from tiling.sources.file import LocalFile
from tiling.sources.tiff.reader import TiffReader

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


def test_down_strips_hardly_a_segment_is_decoded_twice(tmp_path: Path) -> None:
    path, plan = tmp_path / "image.tif", TilePlan((768, 8192), 256, (16, 16), HALO)
    pixels = np.zeros((768, 8192, 3), np.uint16)
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), compression="zlib")
    segments, decoded = 3 * 32, list[int]()
    with open_source(path) as source:
        width = strip_px(source)
    for strips in (None, width):
        reader = TiffReader(path, LocalFile(path))
        for index in in_order(plan, np.arange(plan.count), strips):
            reader.read(0, plan.tile(index).read.intersect(plan.image))
        decoded.append(reader.cache.decoded)
        reader.close()
    assert decoded[0] > 1.3 * segments
    assert decoded[1] < 1.1 * segments
