"""Bands that are computed: formulas of names, values in the bands' own units, and no data."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from described_scenes import asset, source_xml, write_item, write_vrt
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scenes import cut, scene_pixels, write_landsat, write_raster, write_sentinel2

from tiling.errors import PlanError, SourceError
from tiling.geometry import Box
from tiling.selection.choose_view import choose_view
from tiling.selection.view_request import ModelRequirements, ViewRequest
from tiling.source import open_source
from tiling.sources.formula import by_number, computed

PIXELS = scene_pixels(60, 70, 2)
RED, NIR = PIXELS[..., 0].astype(np.float64), PIXELS[..., 1].astype(np.float64)
MODEL = ModelRequirements("m", None, "float32")


def values(path: Path, bands: str | None, **more: Any) -> tuple[tuple[str, ...], NDArray[Any], NDArray[np.bool_]]:
    """Names, values, and which of them are data, of what a person asks for."""
    choice = choose_view(path, ViewRequest(as_is=True, bands=bands, **more), MODEL)
    with open_source(path, choice.view) as source:
        pixels, held = source.read_present(0, source.levels[0].box)
        inner = Box(3, 5, 40, 33)
        assert np.array_equal(source.read(0, inner), pixels[inner.slices], equal_nan=True)
        return source.bands, pixels, np.ones(pixels.shape, np.bool_) if held is None else held


def test_a_formula_of_names_is_a_band_in_float32(tmp_path: Path) -> None:
    for band, name in enumerate(("red", "nir")):
        write_raster(tmp_path / f"{name}.tif", PIXELS[..., band : band + 1])
    names, pixels, held = values(tmp_path / "red=red.tif,nir=nir.tif", "(NIR-red)/(nir+red), red, 2*b1 - -1")
    assert names == ("(NIR-red)/(nir+red)", "red", "2*b1 - -1")
    assert pixels.dtype == np.float32
    assert held.all()
    expected = np.stack([(NIR - RED) / (NIR + RED), RED, 2 * RED + 1], axis=-1)
    assert np.array_equal(pixels, expected.astype(np.float32))


def test_there_is_no_data_where_a_band_has_none_or_nothing_comes_out(tmp_path: Path) -> None:
    pixels = PIXELS.astype(np.int16)
    pixels[:10, :, 0] = -1  # red lacks data
    pixels[10:20] = 0  # 0 / 0
    pixels[20:30, :, 0], pixels[20:30, :, 1] = 5, -5  # a share of 0
    image = write_raster(tmp_path / "a.tif", pixels, nodata=-1)
    _, index, held = values(image, "(b2-b1)/(b2+b1)")
    assert not held[:30].any()
    assert held[30:].all()
    assert np.isnan(index[:30]).all()
    assert np.isfinite(index[30:]).all()


def test_values_are_in_the_units_that_the_file_says(tmp_path: Path) -> None:
    image = write_raster(tmp_path / "a.tif", PIXELS)
    with rasterio.open(image, "r+") as file:
        file.scales, file.offsets = (0.0001, 0.0002), (-0.1, 0.3)
        file.descriptions = ("red", "nir")
    red, nir = (RED * 0.0001 - 0.1), (NIR * 0.0002 + 0.3)
    _, pixels, _ = values(image, "nir/red,red")
    assert np.allclose(pixels, np.stack([nir / red, red], axis=-1), rtol=1e-6)
    names, pixels, _ = values(image, "nir", scaled=True)
    assert names == ("nir",)
    assert np.allclose(pixels[..., 0], nir, rtol=1e-6)
    _, stored, _ = values(image, "nir")
    assert np.array_equal(stored[..., 0], PIXELS[..., 1])
    cut(tmp_path / "parts", PIXELS)
    with pytest.raises(PlanError, match="says neither scale nor offset"):
        values(tmp_path / "parts", None, scaled=True)
    note = choose_view(image, ViewRequest(as_is=True, bands="nir", scaled=True), MODEL).notes["values"]
    assert "nir = stored x 0.0002 +0.3" in note


def test_deliveries_say_their_scales(tmp_path: Path) -> None:
    safe = write_sentinel2(tmp_path, {"B04": (10, PIXELS[..., 0]), "B08": (10, PIXELS[..., 1])})
    red, nir = (RED - 1000) / 10000, (NIR - 900) / 10000
    _, pixels, _ = values(safe, "(B08-B04)/(B08+B04)")
    assert np.allclose(pixels[..., 0], (nir - red) / (nir + red), rtol=1e-4)
    folder = write_landsat(tmp_path, {"SR_B4": PIXELS[..., 0], "SR_B5": PIXELS[..., 1], "ST_B10": PIXELS[..., 1]})
    _, pixels, _ = values(folder, None, scaled=True)
    expected = np.stack([RED * 2.75e-05 - 0.2, NIR * 2.75e-05 - 0.2, NIR * 0.00341802 + 149.0], axis=-1)
    assert np.allclose(pixels, expected, rtol=1e-5)
    metadata = next(folder.glob("*_MTL.txt"))
    with open_source(folder) as source:
        before = source.fingerprint()
    metadata.write_text(metadata.read_text().replace("149.0", "150.0"))
    with open_source(folder) as source:
        assert source.fingerprint() != before
    metadata.write_text(metadata.read_text().replace("150.0", "high"))
    with pytest.raises(SourceError, match="holds no number"):
        open_source(folder)


def test_an_item_and_a_vrt_say_scales(tmp_path: Path) -> None:
    write_raster(tmp_path / "r.tif", PIXELS[..., :1])
    for more in ({"raster:bands": [{"scale": 0.5, "offset": 3}]}, {"raster:scale": 0.5, "raster:offset": 3}):
        item = write_item(tmp_path / "item.json", {"red": asset("r.tif", "B04", **more)})
        _, pixels, _ = values(item, "red", scaled=True)
        assert np.array_equal(pixels[..., 0], RED * 0.5 + 3)
    scaled = source_xml("r.tif", (60, 70), (0, 0), 1) + "<Offset>3</Offset><Scale>0.5</Scale>"
    _, pixels, _ = values(write_vrt(tmp_path / "a.vrt", (60, 70), "uint16", [scaled]), "b1*1")
    assert np.array_equal(pixels[..., 0], RED * 0.5 + 3)
    with pytest.raises(SourceError, match="is no number"):
        open_source(write_item(tmp_path / "item.json", {"red": asset("r.tif", "B04", **{"raster:scale": "big"})}))


def test_files_of_one_band_with_other_scales_are_refused(tmp_path: Path) -> None:
    for number, file in enumerate(cut(tmp_path, PIXELS)):
        with rasterio.open(file, "r+") as part:
            part.scales = (0.1 if number else 0.2, 1.0)
    with pytest.raises(SourceError, match="different scales or offsets"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("(nir-red", "can't be read"),
        ("__import__('os').system('true')+nir", "all it may"),
        ("nir.real-red", "all it may"),
        ("nir**9**9**9/red", "all it may"),
        ("nir-swir", "names 'swir', and the bands are red, nir"),
        ("nir-b3", "names 'b3'"),
        ("1/2", "names no band"),
        ("nir if red else -1", "all it may"),
        ("nir-'red'", "all it may"),
        ("nir-True", "all it may"),
        ("nir-1e999", "all it may"),
        ("-" * 200 + "nir", "nested deeper"),
        ("(" * 300 + "nir" + ")" * 300, "can't be read"),
        ("nir+" * 300 + "red", "over 1000"),
    ],
)
def test_what_is_no_arithmetic_on_bands_is_refused(formula: str, message: str) -> None:
    with pytest.raises(PlanError) as error:
        by_number(formula, {"red": 0, "nir": 1})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_number_is_not_taken_for_a_band_that_others_are_called_like() -> None:
    with pytest.raises(PlanError, match="names 'B8'"):
        by_number("B8-B7", {"b7": 6, "b9": 7})


@settings(max_examples=50, deadline=None)
@given(st.text("abnir0123456789.+-*/()[]{}'\"\\:,=_ \n\0", max_size=40))
def test_any_text_is_a_formula_or_refused(text: str) -> None:
    ones = np.ones(3)
    with suppress(PlanError):
        assert np.shape(computed(by_number(text, {"nir": 0, "b": 1}), {0: ones, 1: ones})) == (3,)
