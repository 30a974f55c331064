"""Alpha channels as bands, palettes as display hints, and kinds of files that are refused when they are opened."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from source_oracle import assert_reads_like, picture

from tiling.errors import SourceError
from tiling.selection.choose_view import choose_view
from tiling.selection.view_request import ModelRequirements, ViewRequest
from tiling.source import ImageSource, open_source

ANY = ModelRequirements("any", None, "uint8")


def seen(path: Path, bands: str) -> ImageSource:
    return open_source(path, choose_view(path, ViewRequest(bands=bands), ANY).view)


def with_alpha(path: Path, planar: bool = False) -> np.ndarray[Any, Any]:
    pixels = picture(4, height=70, width=90)
    data = np.moveaxis(pixels, -1, 0) if planar else pixels
    options: dict[str, Any] = {"planarconfig": "separate" if planar else "contig", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(path, data, photometric="rgb", tile=(32, 32), metadata=None, **options)
    return pixels


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize(("asked", "order"), [("1,2,3,4", [0, 1, 2, 3]), ("alpha", [3]), ("Alpha,red", [3, 0])])
def test_alpha_is_a_band_where_it_is_asked_for(tmp_path: Path, planar: bool, asked: str, order: list[int]) -> None:
    path = tmp_path / "rgba.tif"
    pixels = with_alpha(path, planar)
    with open_source(path) as source:
        assert (source.bands, source.alpha, source.has_mask) == (("red", "green", "blue"), ("alpha",), True)
    with seen(path, asked) as source:
        assert_reads_like(source, 0, pixels[..., order], boxes=2)
        assert not source.has_mask or 3 not in order


def test_without_it_alpha_still_says_where_data_is(tmp_path: Path) -> None:
    path = tmp_path / "rgba.tif"
    pixels = with_alpha(path)
    with seen(path, "3,2,1") as source:
        assert_reads_like(source, 0, pixels[..., 2::-1], boxes=2)
        np.testing.assert_array_equal(source.read_mask(0, source.levels[0].box), pixels[..., 3] > 0)


def test_alpha_between_bands_counts_after_them(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    pixels = picture(5, height=70, width=90)
    tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=["unassalpha", "unspecified"], metadata=None)
    with seen(path, "1,2,3,4,alpha") as source:
        assert_reads_like(source, 0, pixels[..., [0, 1, 2, 4, 3]], boxes=2)


def test_a_range_of_values_is_measured_of_alpha_too(tmp_path: Path) -> None:
    path = tmp_path / "rgba.tif"
    with_alpha(path)
    choice = choose_view(path, ViewRequest(bands="4", normalise="percentiles:0,100"), ANY)
    with open_source(path, choice.view) as source:
        read = source.read(0, source.levels[0].box)
        assert (read.min(), read.max()) == (0, 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_of_a_png(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "image.png"
    pixels = picture(4 if mode == "RGBA" else 2, height=70, width=90)
    Image.fromarray(pixels, mode).save(path)
    count = pixels.shape[2]
    with open_source(path) as source:
        assert len(source.bands) == count - 1
    with seen(path, f"alpha,{count - 1}") as source:
        assert_reads_like(source, 0, pixels[..., [count - 1, count - 2]], boxes=2)


def test_a_band_that_is_not_there_names_alpha_among_those_that_are(tmp_path: Path) -> None:
    path = tmp_path / "rgba.tif"
    with_alpha(path)
    with pytest.raises(SourceError, match=re.escape("numbers from 1 to 4 or names of red, green, blue, alpha")):
        seen(path, "5")


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_palettes_of_an_ome_tiff_are_how_its_channels_are_shown(tmp_path: Path, channels: int) -> None:
    stack = picture(max(2, channels), height=60, width=80)[..., :channels]
    path = tmp_path / "cells.ome.tif"
    table = np.stack([np.arange(256) * 257, np.zeros(256), np.arange(256)[::-1] * 257]).astype(np.uint16)
    axes = "CYX" if channels > 1 else "YX"
    data = np.moveaxis(stack, -1, 0) if channels > 1 else stack[..., 0]
    tifffile.imwrite(path, data, photometric="palette", colormap=table, metadata={"axes": axes})
    with open_source(path) as source:
        assert_reads_like(source, 0, stack, boxes=2)


def test_old_style_jpeg_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "old.tif"
    tifffile.imwrite(path, picture(3, height=64, width=64), photometric="rgb", compression="jpeg", metadata=None)
    with tifffile.TiffFile(path) as tif:
        tags = tif.pages.first.tags
        places = [(tags[code].valueoffset, tags[code].dtype) for code in (259, 273)]
        start = tif.pages.first.dataoffsets[0]
    data = path.read_bytes()
    # As old-style files have it, the strip begins after the stream's header, which lies elsewhere.
    scan = data.index(b"\xff\xda", start) + 14
    with path.open("r+b") as file:
        for (place, kind), value in zip(places, (6, scan), strict=True):
            file.seek(place)
            file.write(value.to_bytes(2 if int(kind) == 3 else 4, "little"))
        file.seek(0, 2)
        file.write(b"\0" * 1000)
    with pytest.raises(SourceError, match=r"old-style JPEG \(compression 6\)"):
        open_source(path)
