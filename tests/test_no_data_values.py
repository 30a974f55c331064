"""Which pixels hold data, by what a file says of them, is what GDAL makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from no_data_images import HERE, scene, write_map

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
