"""Looks for foreground that other processes do part by part: bit for bit what one process finds."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from marked_slide import SHAPE, damage, slide_pixels, write_marked
from PIL import Image

from tiling.errors import ImageChangedError
from tiling.runs.unchanged_source import VerifiedSource, open_with_version
from tiling.selection import coarse_data, ink
from tiling.selection.find_foreground import find_foreground
from tiling.selection.foreground import Foreground
from tiling.source import open_source
from tiling.sources.downsample import block_mean
from tiling.storage.place import place_of
from tiling.view import View


def away(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """What another process would give, in another order: nothing but what pickles is shared."""
    sent = [pickle.dumps((work, item)) for item in items]
    for each in reversed(sent):
        there, item = pickle.loads(each)
        yield pickle.loads(pickle.dumps(there(item)))


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (coarse_data, ink):
        monkeypatch.setattr(module, "PART_PIXELS", 1)
        monkeypatch.setattr(module, "LEAST_PIXELS", 0)


def looks(path: Path, level: int = 0, view: View | None = None) -> tuple[Foreground, Foreground, int]:
    """What is found here and elsewhere, and the parts that were read there."""
    source, version = open_with_version(place_of(path), view)
    read = list[Any]()

    def counted(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        parts = [*items]
        read.extend(parts)
        return away(work, parts)

    with source, VerifiedSource(path, view, source.fingerprint(), version) as steady:
        assert steady.source.is_read_by_parts(level)
        here = steady.read(lambda image: find_foreground(image, level, "auto"))
        elsewhere = steady.elsewhere(counted)
        return here, steady.read(lambda image: find_foreground(image, level, "auto", elsewhere)), len(read)


def assert_same(found: Foreground, expected: Foreground) -> None:
    for each in fields(Foreground):
        one, other = getattr(found, each.name), getattr(expected, each.name)
        if each.name == "squares" and other is not None:
            assert one.side_px == other.side_px
            one, other = one.kept, other.kept
        if isinstance(other, np.ndarray):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        else:
            assert one == other, each.name


@pytest.mark.parametrize(
    ("levels", "alpha", "level", "view"),
    [
        ((), False, 0, None),
        ((4,), False, 0, None),
        ((4, 16), False, 0, None),
        ((3,), False, 0, None),
        ((2,), False, 1, None),
        ((), True, 0, None),
        ((4,), False, 0, View(step=(1.22, 1.22))),
        ((), False, 0, View(region=(33, 17, 4001, 1302))),
    ],
    ids=["one level", "pyramid", "three levels", "no whole ratio", "a coarse level", "alpha", "pixel size", "region"],
)
@pytest.mark.usefixtures("small_parts")
def test_parts_find_what_the_whole_finds(
    levels: tuple[int, ...], alpha: bool, level: int, view: View | None, tmp_path: Path
) -> None:
    path = write_marked(tmp_path / "slide.tif", levels=levels, alpha=alpha)
    here, there, read = looks(path, level, view)
    assert here.squares is not None
    assert not here.squares.kept.all()
    assert here.squares.kept.any()
    assert "pens and other marks" in here.reason
    assert_same(there, here)
    assert read >= 4


@pytest.mark.parametrize("levels", [(), (4,)], ids=["one level", "pyramid"])
@pytest.mark.usefixtures("small_parts")
def test_what_does_not_decode_is_left_out_of_parts_as_of_the_whole(levels: tuple[int, ...], tmp_path: Path) -> None:
    here, there, _ = looks(damage(write_marked(tmp_path / "slide.tif", levels=levels)))
    assert_same(there, here)


@pytest.mark.parametrize("factor", [3.98, 4.02])
@pytest.mark.usefixtures("small_parts")
def test_levels_whose_sides_were_rounded_have_the_same_means_by_parts(factor: float, tmp_path: Path) -> None:
    path = write_marked(tmp_path / "slide.tif", levels=())
    with tifffile.TiffWriter(tmp_path / "rounded.tif") as tiff:
        shape: dict[str, Any] = {"photometric": "rgb", "tile": (64, 64), "metadata": None}
        pixels = tifffile.imread(path)
        tiff.write(pixels, subifds=1, **shape)
        size = round(SHAPE[1] / factor), round(SHAPE[0] / factor)
        tiff.write(np.asarray(Image.fromarray(pixels).resize(size)), subfiletype=1, **shape)
    with open_source(damage(tmp_path / "rounded.tif", 64)) as source:
        whole = block_mean(source, 0, 16)
        found = coarse_data.coarse_means(
            source, 0, coarse_data.as_stored, lambda read, parts: (read(source, part) for part in parts)
        )
    np.testing.assert_array_equal(found, whole)


@pytest.mark.usefixtures("small_parts")
def test_another_image_in_the_place_of_one_is_refused_by_parts_too(tmp_path: Path) -> None:
    path = write_marked(tmp_path / "slide.tif")

    def replaced(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        damage(path)
        return away(work, items)

    source, version = open_with_version(place_of(path))
    with source, VerifiedSource(path, None, source.fingerprint(), version) as steady:
        elsewhere = steady.elsewhere(replaced)
        with pytest.raises(ImageChangedError, match="no longer the one that the run began with"):
            steady.read(lambda image: find_foreground(image, 0, "auto", elsewhere))


def test_what_is_decoded_whole_is_not_read_by_parts(tmp_path: Path) -> None:
    pixels = slide_pixels()
    Image.fromarray(pixels).save(tmp_path / "slide.png")
    tifffile.imwrite(tmp_path / "strip.tif", pixels, photometric="rgb", compression="zlib", rowsperstrip=SHAPE[0])
    for name in ("slide.png", "strip.tif"):
        with open_source(tmp_path / name) as source:
            assert not source.is_read_by_parts(0), name
            with source.viewed(View(region=(0, 0, 4000, 1400))) as seen:
                assert not seen.is_read_by_parts(0), name
