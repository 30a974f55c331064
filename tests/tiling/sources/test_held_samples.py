"""Percentiles are of pixels that hold data, whatever an image says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from tiling.selection.normalisation import Normalisation
from tiling.source import open_source


@pytest.mark.parametrize("kind", ["internal", "alpha"])
def test_percentiles_leave_out_what_is_masked_or_transparent(kind: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(50, 200, (3, 256, 256)).astype(np.uint8)
    pixels[:, :, :200] = 0  # black where there is no data, as scenes often are
    valid = np.full((256, 256), 255, np.uint8)
    valid[:, :200] = 0
    held = pixels[:, :, 200:].reshape(3, -1)
    bands = np.concatenate([pixels, valid[np.newaxis]]) if kind == "alpha" else pixels
    options: dict[str, Any] = {"driver": "GTiff", "width": 256, "height": 256, "count": len(bands), "dtype": "uint8"}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(tmp_path / "scene.tif", "w", crs="EPSG:32617", **options) as file,
    ):
        if kind == "alpha":
            file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
        file.write(bands)
        if kind == "internal":
            file.write_mask(valid)
    with open_source(tmp_path / "scene.tif") as source:
        found = Normalisation.parse("percentiles:1,99").stretch(source, (2, 0), "uint8")
    expected = np.percentile(held[[2, 0]], (1, 99), axis=1)
    assert (found.low, found.high) == (tuple(expected[0]), tuple(expected[1]))
