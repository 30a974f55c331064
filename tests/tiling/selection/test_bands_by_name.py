"""Band names of the image against the model's: another order is followed with a note, another meaning refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.enums import ColorInterp
from source_oracle import picture

from flows.config.recipe import RasterConfig
from flows.training.rasters import raster_examples
from tiling.errors import PlanError
from tiling.selection.band_names import BandsDifferError, match_bands
from tiling.selection.choose_view import choose_view
from tiling.selection.view_request import ModelRequirements, ViewRequest
from tiling.source import open_source
from unet_core.bundles.card import read_card
from unet_core.errors import TrainingError

RGB = ("red", "green", "blue")


@pytest.mark.parametrize(
    ("image", "model", "expected"),
    [
        (RGB, RGB, None),
        (("Red", "Green", "BLUE"), RGB, None),
        (("blue", "green", "red"), RGB, (2, 1, 0)),
        (("B", "G", "R"), RGB, (2, 1, 0)),
        (("R", "G", "B"), RGB, None),
        (("Cy3", "dapi", "FITC"), ("DAPI", "FITC", "Cy3"), (1, 2, 0)),
        (("B04", "B03", "B02"), ("B02", "B03", "B04"), (2, 1, 0)),
        (("near_infrared", "red"), ("Red", "Near Infrared"), (1, 0)),
        (("1", "2", "3"), RGB, None),
        (("Channel 1", "Channel:0:1", "C2"), RGB, None),
        (("gray",), ("DAPI",), None),
        (("DAPI",), ("gray",), None),
        (("DAPI", "FITC", "Cy3"), ("1", "2", "3"), None),
        (("DAPI", "2"), ("DAPI", "FITC"), None),
        (("DAPI", "FITC"), RGB, None),  # counts differ: reported elsewhere
    ],
)
def test_what_is_taken(image: tuple[str, ...], model: tuple[str, ...], expected: tuple[int, ...] | None) -> None:
    assert match_bands(image, model) == expected


@pytest.mark.parametrize(
    ("image", "model"),
    [
        (("DAPI", "FITC", "Cy3"), RGB),
        (RGB, ("nir", "red", "green")),
        (("DAPI",), ("FITC",)),
        (("red", "green", "red edge"), RGB),
        (("2", "red", "3"), RGB),
        (("2", "DAPI"), ("DAPI", "2")),
        (("DAPI", "DAPI"), ("DAPI", "FITC")),
    ],
)
def test_what_is_refused(image: tuple[str, ...], model: tuple[str, ...]) -> None:
    with pytest.raises(BandsDifferError):
        match_bands(image, model)


def scene(path: Path, described: tuple[str, ...] = (), colors: tuple[str, ...] = ()) -> Path:
    pixels = np.moveaxis(picture(3, height=60, width=80), -1, 0)
    options: dict[str, Any] = {"width": 80, "height": 60, "count": 3, "dtype": "uint8", "photometric": "minisblack"}
    with rasterio.open(path, "w", driver="GTiff", **options) as file:
        file.write(pixels)
        if described:
            file.descriptions = described
        if colors:
            file.colorinterp = [ColorInterp[color] for color in colors]
    return path


@pytest.mark.parametrize("how", [{"described": ("Blue", "Green", "Red")}, {"colors": ("blue", "green", "red")}])
def test_an_image_in_another_order_goes_into_the_model_in_its_own(tmp_path: Path, how: dict[str, Any]) -> None:
    path = scene(tmp_path / "bgr.tif", **how)
    requirements = ModelRequirements("any", None, "uint8", None, RGB)
    choice = choose_view(path, ViewRequest(), requirements)
    assert choice.notes["bands"] == (
        "by name, since their order differs: red from band 3, green from band 2, blue from band 1"
    )
    with open_source(path, choice.view) as source:
        assert [name.casefold() for name in source.bands] == list(RGB)
        expected = picture(3, height=60, width=80)[..., ::-1]
        np.testing.assert_array_equal(source.read(0, source.levels[0].box), expected)
    as_typed = choose_view(path, ViewRequest(bands="1,2,3"), requirements)
    assert as_typed.view is None
    assert "bands" not in as_typed.notes


def test_an_image_of_other_bands_is_refused_and_taken_where_a_person_says_so(tmp_path: Path) -> None:
    path = tmp_path / "cells.ome.tif"
    channels = np.moveaxis(picture(3, height=60, width=80), -1, 0)
    tifffile.imwrite(
        path,
        channels,
        photometric="minisblack",
        metadata={"axes": "CYX", "Channel": {"Name": ["DAPI", "FITC", "Cy3"]}},
    )
    requirements = ModelRequirements("nuclei", None, "uint8", None, RGB)
    with pytest.raises(PlanError, match=r"are DAPI, FITC, Cy3 and model nuclei takes red, green, blue.*--bands 1,2,3"):
        choose_view(path, ViewRequest(), requirements)
    assert choose_view(path, ViewRequest(bands="1,2,3"), requirements).view is None


def test_training_rasters_go_by_name_too(tmp_path: Path) -> None:
    path, labels = scene(tmp_path / "bgr.tif", described=("Blue", "Green", "Red")), tmp_path / "labels.tif"
    tifffile.imwrite(labels, np.eye(60, 80, dtype=np.uint8), metadata=None)
    card = read_card("nuclei")
    read, _ = raster_examples(RasterConfig(image=path, labels=labels), card)[0].read(0, 0, 60, 80)
    np.testing.assert_array_equal(read, picture(3, height=60, width=80)[..., ::-1])
    other = scene(tmp_path / "other.tif", described=("DAPI", "FITC", "Cy3"))
    with pytest.raises(TrainingError, match=r"are DAPI, FITC, Cy3 and the card's red, green, blue"):
        raster_examples(RasterConfig(image=other, labels=labels), card)


def test_a_plain_colour_image_is_as_before(tmp_path: Path) -> None:
    path = tmp_path / "rgb.tif"
    tifffile.imwrite(path, picture(3, height=60, width=80), photometric="rgb", metadata=None)
    choice = choose_view(path, ViewRequest(), ModelRequirements("nuclei", None, "uint8", None, RGB))
    assert (choice.view, choice.notes) == (None, {})
