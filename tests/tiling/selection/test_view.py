"""Views: a value depends on a pixel's absolute position alone, and is what the specification of a resize says."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from source_oracle import picture

from tiling.errors import SourceError
from tiling.geometry import Box, PixelSize
from tiling.source import ImageSource, open_source
from tiling.sources import resampling
from tiling.sources.resampling import Axis, Resampling
from tiling.view import Stretch, View

Pixels = NDArray[Any]


def write(path: Path, pixels: Pixels, **options: Any) -> Path:
    photometric = "rgb" if pixels.shape[-1] == 3 else "minisblack"
    tifffile.imwrite(path, pixels, photometric=photometric, tile=(64, 64), metadata=None, **options)
    return path


def pyramid(path: Path, pixels: Pixels, levels: int = 3) -> Path:
    options: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "resolutionunit": 3, "metadata": None}
    with tifffile.TiffWriter(path) as writer:
        for level in range(levels):
            step = 2**level
            per_cm = (20_000 / step, 20_000 / step)
            writer.write(pixels[::step, ::step], resolution=per_cm, subfiletype=int(level > 0), **options)
    return path


def whole(source: ImageSource, level: int = 0) -> Pixels:
    return source.read(level, source.levels[level].box)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("view") / "image.tif", picture(3, height=310, width=407))


def read_of(pixels: Pixels) -> Any:
    return lambda box: pixels[box.slices]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_any_split_of_reads_gives_identical_bytes(dtype: str, data: st.DataObject) -> None:
    side = st.integers(1, 90)
    height, width = data.draw(side), data.draw(side)
    step_y, step_x = (data.draw(st.floats(0.15, 9.0)) for _ in "yx")
    pixels = np.atleast_3d(picture(2, dtype, height, width))
    has_gaps = data.draw(st.booleans())
    if dtype == "float32" and has_gaps:
        pixels[::7, ::3] = np.nan
    view = View(step=(step_y, step_x))
    box = view.whole(height, width)
    rows, cols = Axis(height, step_y), Axis(width, step_x)
    sampling = Resampling(rows, cols, 2, pixels.dtype, has_gaps, None if dtype == "float32" else 40.0)
    expected = sampling.read(read_of(pixels), box)
    assert expected.shape == (*box.shape, 2)
    assert expected.dtype == pixels.dtype
    for _ in range(3):
        ys, xs = (sorted(data.draw(st.integers(0, side)) for _ in "ab") for side in box.shape)
        part = Box(ys[0], xs[0], max(ys[1], ys[0] + 1), max(xs[1], xs[0] + 1)).intersect(box)
        if not part.is_empty:
            assert (
                sampling.read(read_of(pixels), part).tobytes() == np.ascontiguousarray(expected[part.slices]).tobytes()
            )


def test_reads_in_small_pieces_give_identical_bytes(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_source(image, View(step=(2.3, 1.7))) as source:
        expected = whole(source)
        monkeypatch.setattr(resampling, "PIECE_BYTES", 20_000)
        assert whole(source).tobytes() == expected.tobytes()


@pytest.mark.parametrize(("height", "width"), [(155, 407), (31, 37), (620, 814), (310, 100)])
def test_pixels_are_those_of_the_resize_that_everybody_uses(image: Path, height: int, width: int) -> None:
    with open_source(image) as plain:
        pixels = whole(plain).astype(np.uint8)
    oracle = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)).astype(int)
    with open_source(image, View(step=(310 / height, 407 / width))) as source:
        assert source.levels[0].box == Box(0, 0, height, width)
        found = whole(source).astype(int)
    # The library rounds between its two passes, and its weights to 22 bits.
    assert np.abs(found - oracle).max() <= 1
    assert np.mean(found != oracle) < 0.3


def test_a_constant_stays_that_constant_up_to_the_edges(tmp_path: Path) -> None:
    path = write(tmp_path / "grey.tif", np.full((100, 90, 3), 137, np.uint8))
    for step in (0.37, 1.5, 7.3, 33.0):
        with open_source(path, View(step=(step, step))) as source:
            assert (whole(source) == 137).all(), step


def test_what_is_no_pixel_has_no_weight(tmp_path: Path) -> None:
    values = np.full((64, 64), 5.0, np.float32)
    values[20:44, 20:44] = np.nan
    tifffile.imwrite(tmp_path / "nan.tif", values, photometric="minisblack", metadata=None)
    with open_source(tmp_path / "nan.tif", View(step=(4.0, 4.0))) as source:
        found = whole(source)[..., 0]
    np.testing.assert_allclose(found[np.isfinite(found)], 5.0, rtol=1e-6)
    assert np.isnan(found[7, 7])
    assert 0 < np.isnan(found).sum() < 36

    numbers = np.full((64, 64), 1000, np.int16)
    numbers[20:44, 20:44] = -9999
    nodata = (42113, "s", 0, "-9999", True)
    tifffile.imwrite(tmp_path / "nodata.tif", numbers, photometric="minisblack", metadata=None, extratags=[nodata])
    with open_source(tmp_path / "nodata.tif", View(step=(4.0, 4.0))) as source:
        assert set(np.unique(whole(source))) == {-9999, 1000}


def test_a_region_is_cut_out_of_the_whole_view(image: Path) -> None:
    for step in ((1.0, 1.0), (1.9, 0.8)):
        with open_source(image, View(step=step)) as source:
            everything = whole(source)
        with open_source(image, View(step=step, region=(31, 17, 140, 160))) as source:
            assert (source.levels[0].height, source.levels[0].width) == (109, 143)
            assert whole(source).tobytes() == np.ascontiguousarray(everything[31:140, 17:160]).tobytes()


def test_coarser_levels_of_a_view_show_the_same_place(tmp_path: Path) -> None:
    pixels = np.asarray(Image.fromarray(picture(3, height=64, width=80)).resize((800, 640), Image.Resampling.BICUBIC))
    path = pyramid(tmp_path / "pyramid.tif", pixels)
    with open_source(path, View(step=(1.5, 1.5), region=(40, 60, 340, 460))) as source:
        first, second = source.levels[:2]
        assert (second.height, second.width) == (first.height // 2, first.width // 2)
        assert second.pixel_size == PixelSize(1.5, 1.5, "um")
        fine = whole(source).astype(float).reshape(second.height, 2, second.width, 2, 3).mean((1, 3))
        # Levels of this file are every second pixel: half a pixel off, and sharper.
        assert np.abs(fine - whole(source, 1)).mean() < 6
        assert np.abs(fine - np.roll(whole(source, 1), 8, 0)).mean() > 12
    with open_source(path, View(level=1, downsample=(2.0, 2.0))) as source:
        assert [(each.height, each.downsample) for each in source.levels] == [(320, 1), (160, 2)]
        np.testing.assert_array_equal(whole(source), pixels[::2, ::2])
        np.testing.assert_array_equal(whole(source, 1), pixels[::4, ::4])


def test_bands_are_chosen_ordered_and_repeated(image: Path) -> None:
    with open_source(image) as plain, open_source(image, View(bands=(2, 0, 0))) as source:
        assert source.bands == ("blue", "red", "red")
        np.testing.assert_array_equal(whole(source), whole(plain)[..., [2, 0, 0]])
        assert whole(source).flags.c_contiguous


def test_one_range_of_values_becomes_the_models(tmp_path: Path) -> None:
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, values, photometric="minisblack", tile=(32, 32), metadata=None)
    stretch = Stretch(low=(1000,), high=(3000,), dtype="uint8")
    with open_source(path, View(stretch=stretch)) as source:
        assert source.dtype == np.uint8
        expected = np.rint(np.clip((values.astype(float) - 1000) / 2000, 0, 1) * 255)
        np.testing.assert_array_equal(whole(source)[..., 0], expected)
    with open_source(path, View(stretch=stretch.model_copy(update={"dtype": "float32"}))) as source:
        assert whole(source).dtype == np.float32
        assert whole(source).max() == 1.0


def test_the_georeference_of_a_view_is_the_images(data_dir: Path) -> None:
    path = data_dir / "geo/rio-tiler/cog.tif"
    view = View(level=1, downsample=(2667 / 1334, 2658 / 1329), step=(1.5, 1.25), region=(100, 40, 300, 400))
    with open_source(path) as plain, open_source(path, view) as source:
        assert plain.georeference is not None
        assert source.georeference is not None
        assert plain.georeference.affine is not None
        assert source.georeference.affine is not None
        a, b, c, d, e, f = plain.georeference.affine
        (y, x), (top, left) = view.pixel_px, view.corner_px
        for row, col in ((0, 0), (7, 3), (200, 360)):
            base_col, base_row = left + col * x, top + row * y
            expected = a * base_col + b * base_row + c, d * base_col + e * base_row + f
            va, vb, vc, vd, ve, vf = source.georeference.affine
            np.testing.assert_allclose((va * col + vb * row + vc, vd * col + ve * row + vf), expected, rtol=1e-12)
        size = source.levels[0].pixel_size
        assert size is not None
        assert size.x == pytest.approx(a * 2 * 1.25)
        assert source.georeference.crs == plain.georeference.crs
        assert view.affine == (x, 0.0, left, 0.0, y, top)


def test_a_rotated_image_stays_where_it_lies(data_dir: Path) -> None:
    path, view = data_dir / "geo/rasterio/rotated.tif", View(step=(1.5, 2.0), region=(2, 1, 9, 4))
    with open_source(path) as plain, open_source(path, view) as source:
        assert plain.georeference is not None
        assert source.georeference is not None
        assert plain.georeference.affine is not None
        assert source.georeference.affine is not None
        a, b, c, d, e, f = plain.georeference.affine
        assert b != 0
        va, vb, vc, vd, ve, vf = source.georeference.affine
        for row, col in ((0, 0), (5, 2)):
            y, x = (row + 2) * 1.5, (col + 1) * 2.0
            expected = a * x + b * y + c, d * x + e * y + f
            np.testing.assert_allclose((va * col + vb * row + vc, vd * col + ve * row + vf), expected, rtol=1e-12)


def test_ground_control_points_move_with_the_view(data_dir: Path) -> None:
    path = data_dir / "geo/rio-tiler/cog_gcps.tif"
    with open_source(path) as plain, open_source(path, View(step=(2.0, 2.0), region=(10, 20, 110, 120))) as source:
        assert plain.georeference is not None
        assert source.georeference is not None
        col, row, *rest = plain.georeference.tiepoints[5]
        assert source.georeference.tiepoints[5] == ((col - 40) / 2, (row - 20) / 2, *rest)


def test_a_view_travels_to_other_processes(image: Path) -> None:
    view = View(step=(1.3, 1.3), region=(5, 6, 105, 206), bands=(1,))
    with open_source(image, view) as source:
        copy = pickle.loads(pickle.dumps(source))
        assert copy.describe() == source.describe()
        assert whole(copy).tobytes() == whole(source).tobytes()
        assert np.asarray(source.lazy(0).compute()).tobytes() == whole(source).tobytes()
    assert View.model_validate_json(view.model_dump_json()) == view


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (View(level=3), "level 3 is not in the image; it has levels 0 to 0"),
        (View(bands=(0, 3)), "band 4 is not in the image; it has 3"),
        (View(region=(0, 0, 311, 407)), "is not inside the level of 310 x 407 px"),
        (View(stretch=Stretch(low=(0,), high=(1,), dtype="uint8")), "1 ranges of values are given for 3 bands"),
        (View(z=1), "there is no z 1 at t 0"),
    ],
)
def test_a_view_that_does_not_lie_on_the_image_is_refused(image: Path, view: View, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(image, view)


@pytest.mark.parametrize(
    "fields",
    [
        {"region": (5, 0, 5, 9)},
        {"step": (0.0, 1.0)},
        {"step": (float("nan"), 1.0)},
        {"level": -1},
        {"stretch": {"low": [3.0], "high": [3.0], "dtype": "uint8"}},
        {"stretch": {"low": [0.0, 1.0], "high": [3.0], "dtype": "uint8"}},
    ],
)
def test_a_view_checks_itself(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        View.model_validate(fields)
