"""Which pixels hold data, by what a file says of them, is what GDAL makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from no_data_images import HERE, collar, scene, write_map
from PIL import Image
from rasterio.enums import MaskFlags

from tiling.errors import SourceError
from tiling.source import open_source
from tiling.sources.matching import matched


def test_a_pixel_holds_data_where_any_band_does(tmp_path: Path) -> None:
    pixels = scene()
    pixels[:40, :, 0] = 0
    pixels[:20] = 0
    image = write_map(tmp_path / "bands.tif", pixels, nodata=0)
    with open_source(image) as source, rasterio.open(image) as file:
        values, held = source.read_present(0, source.levels[0].box)
        assert held is not None
        assert np.array_equal(np.broadcast_to(held, values.shape).any(-1), file.dataset_mask() > 0)


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("float32", -3.40282e38),
        ("float32", -3.4028234663852886e38),
        ("float32", 3.40282e38),
        ("float32", -9999.0),
        ("float32", 0.1),
        ("float32", 0.0),
        ("float64", -1.7976931348623157e308),
        ("float64", 0.1),
        ("uint8", 0.0),
        ("uint16", 65535.0),
        ("int16", -32768.0),
    ],
)
def test_a_value_is_matched_as_gdal_matches_it(dtype: str, nodata: float, tmp_path: Path) -> None:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        value = kind.type(np.clip(nodata, np.finfo(kind).min, np.finfo(kind).max))
        near = [value]
        for towards in (-np.inf, np.inf):
            each = value
            for _ in range(12):
                each = np.nextafter(each, kind.type(towards))
                near.append(each)
        near += [kind.type(v) for v in (1, -1, 1e30, -1e30, nodata / 2, nodata / 1e4)]
        values = np.array([v for v in near if np.isfinite(v)], kind)
    else:
        values = np.arange(np.iinfo(dtype).min, np.iinfo(dtype).max, 1 if kind.itemsize == 1 else 97).astype(kind)
        values = np.append(values, kind.type(nodata))
    image = tmp_path / "values.tif"
    with rasterio.open(
        image, "w", driver="GTiff", dtype=dtype, height=1, width=values.size, count=1, nodata=nodata, **HERE
    ) as file:
        file.write(values[None, None])
    ends = matched(nodata, kind)
    assert ends is not None
    with rasterio.open(image) as file, open_source(image) as source:
        held = source.read_present(0, source.levels[0].box)[1]
        assert held is not None
        assert np.array_equal(held[0, :, 0], file.dataset_mask()[0] > 0)


def masked_as_by_gdal(path: Path) -> bool:
    """Whether the first level's pixels that hold data are those of GDAL's dataset mask."""
    with open_source(path) as source, rasterio.open(path) as file:
        values, held = source.read_present(0, source.levels[0].box)
        ours = np.ones(values.shape[:2], np.bool_) if held is None else np.broadcast_to(held, values.shape).any(-1)
        return np.array_equal(ours, file.dataset_mask() > 0)


@pytest.mark.parametrize(
    ("bits", "nodata"), [(8, 0), (8, 255), (8, 7), (16, 0), (16, 9), (4, 0), (2, 3), (1, 0), (1, 1)]
)
@pytest.mark.parametrize("photometric", ["MINISWHITE", "MINISBLACK"])
def test_greys_that_are_turned_or_spread_are_matched_as_they_are_stored(
    bits: int, nodata: int, photometric: str, tmp_path: Path
) -> None:
    values = np.random.default_rng(bits).integers(0, min(2**bits, 12), (1, 40, 60)).astype(f"uint{max(8, bits)}")
    values[:, :5] = 2**bits - 1
    path = tmp_path / "greys.tif"
    more = {"nbits": bits} if bits < 8 else {}
    with rasterio.open(
        path, "w", driver="GTiff", dtype=values.dtype, height=40, width=60, count=1, nodata=nodata,
        photometric=photometric, **more, **HERE,
    ) as file:  # fmt: skip
        file.write(values)
    assert masked_as_by_gdal(path)
    with open_source(path) as source:
        held = source.read_present(0, source.levels[0].box)[1]
    assert held is not None
    assert np.array_equal(held[..., 0], values[0] != nodata)


@pytest.mark.parametrize("values", ["10 20 30", "10 10 10", "10 20", "10 x 30", "10.5 20 30"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("nodata", [None, 20])
def test_a_value_for_each_band_is_matched_as_gdal_matches_it(
    values: str, dtype: str, nodata: int | None, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).choice(np.array([10, 20, 30], dtype), (48, 64, 3))
    path = write_map(tmp_path / "tuple.tif", pixels, nodata=nodata, interleave="pixel")
    with rasterio.open(path, "r+") as file:
        file.update_tags(NODATA_VALUES=values)
    assert not list(tmp_path.glob("*.aux.xml"))
    assert masked_as_by_gdal(path)


def test_a_value_for_each_band_in_notes_beside_counts_too(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).choice(np.array([10, 20, 30], "uint8"), (48, 64, 3))
    path = write_map(tmp_path / "tuple.tif", pixels, nodata=None, interleave="pixel")
    with open_source(path) as source:
        assert not source.may_lack_data
    (tmp_path / "tuple.tif.aux.xml").write_text(
        '<PAMDataset><Metadata><MDI key="NODATA_VALUES">10 20 30</MDI></Metadata></PAMDataset>'
    )
    assert masked_as_by_gdal(path)
    with open_source(path) as source:
        assert source.may_lack_data


def test_a_value_for_each_band_stored_one_by_one_is_refused(tmp_path: Path) -> None:
    path = write_map(tmp_path / "tuple.tif", scene(), nodata=None, interleave="band")
    with rasterio.open(path, "r+") as file:
        file.update_tags(NODATA_VALUES="10 20 30")
    with pytest.raises(SourceError, match=r"NODATA_VALUES \(10 20 30\) of bands .* -co INTERLEAVE=PIXEL"):
        open_source(path)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("dtype", "nodata", "is_mask"),
    [("uint8", None, True), ("uint8", 0, False), ("uint8", -9999, True), ("float32", float("nan"), False)],
)
def test_a_value_for_no_data_counts_before_alpha_as_in_gdal(
    dtype: str, nodata: float | None, is_mask: bool, tmp_path: Path
) -> None:
    """Near infrared that is marked as alpha is 0 on water, where the other bands hold data."""
    pixels = np.concatenate([scene(), scene(1)[..., :1]], -1).astype(dtype)
    pixels[:30] = 0
    pixels[50:70, 20:60, 3] = 0
    path = tmp_path / "near infrared.tif"
    named = [] if nodata is None else [(42113, "s", 0, f"{nodata}", True)]
    tifffile.imwrite(
        path, pixels, photometric="rgb", extrasamples=["unassalpha"], metadata=None, tile=(32, 32), extratags=named
    )
    with open_source(path) as source, rasterio.open(path) as file:
        assert (source.bands, source.alpha) == (("red", "green", "blue"), ("alpha",))
        assert (MaskFlags.alpha in file.mask_flag_enums[0]) is is_mask
        values, held = source.read_present(0, source.levels[0].box)
        ours = np.ones(values.shape[:2], np.bool_) if held is None else np.asarray(held.any(-1))
        assert np.array_equal(ours, file.read_masks([1, 2, 3]).any(0))
        assert ours[50:70, 20:60].any() == ours[50:70, 20:60].all() == (not is_mask)


@pytest.mark.parametrize("mode", ["P", "RGB", "L", "1"])
def test_a_transparent_colour_of_a_png_is_no_data(mode: str, tmp_path: Path) -> None:
    """`tRNS`: it needs no alpha channel."""
    held = collar()
    grey = np.where(held, scene()[..., 0], 3).astype(np.uint8)
    grey[held & (grey == 3)] = 4
    if mode == "1":
        picture = Image.fromarray(held.astype(np.uint8) * 255).convert("1")
    else:
        picture = Image.fromarray(grey if mode != "RGB" else np.dstack([grey, grey, grey]))
    if mode == "P":
        picture.putpalette([value for index in range(256) for value in (index, 255 - index, 9)])
    path = tmp_path / "picture.png"
    picture.save(path, transparency={"P": 3, "RGB": (3, 3, 3), "L": 3, "1": 0}[mode])
    with open_source(path) as source:
        assert source.may_lack_data
        found = source.read_mask(0, source.levels[0].box)
    assert found is not None
    np.testing.assert_array_equal(found, held)
    picture.save(path)
    with open_source(path) as source:
        assert not source.may_lack_data
