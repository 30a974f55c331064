"""Labels and foreground masks lie on their image by the places that both name, or are refused with both named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from case_files import case
from numpy.typing import NDArray
from rasterio.transform import Affine

from flows.config.recipe import DataConfig, RasterConfig
from flows.training.examples import read_examples
from tiling.errors import SourceError
from tiling.selection.find_foreground import find_foreground
from tiling.source import open_source
from unet_core.bundles.card import ClassInfo, Decision, ModelCard, Normalization
from unet_core.errors import TrainingError

HEIGHT, WIDTH = 40, 60
PLACE = Affine(0.5, 0, 500_000, 0, -0.5, 5_400_000)
LABELS = np.random.default_rng(2).integers(0, 2, (HEIGHT, WIDTH), np.uint8)
CARD = ModelCard(
    name="map",
    description="of a test",
    architecture="unet",
    parameters={"bands": 1, "classes": 1, "first_channels": 4, "depth": 2},
    bands=("gray",),
    dtype="uint8",
    classes=(ClassInfo("background", "#000000"), ClassInfo("field", "#56b4e9")),
    decision=Decision("threshold", (0.5,)),
    normalization=Normalization((180.0,), (60.0,)),
    license="Apache-2.0",
)


def write(path: Path, pixels: NDArray[np.uint8], transform: Affine | None, crs: str | None = "EPSG:32633") -> Path:
    path.parent.mkdir(exist_ok=True)
    made: dict[str, Any] = {"driver": "GTiff", "height": pixels.shape[0], "width": pixels.shape[1], "count": 1}
    place: dict[str, Any] = {} if transform is None else {"transform": transform, "crs": crs}
    with rasterio.open(path, "w", **made, dtype="uint8", **place) as file:
        file.write(pixels, 1)
    return path


def learnt(folder: Path, labels: NDArray[np.uint8], transform: Affine | None, crs: str | None = "EPSG:32633") -> Any:
    """The labels that a folder's and a raster's example get, of an image at PLACE."""
    image = write(folder / "images" / "a.tif", np.zeros((HEIGHT, WIDTH), np.uint8), PLACE)
    path = write(folder / "labels" / "a.tif", labels, transform, crs)
    rasters = tuple(RasterConfig(image=image, labels=path, role=role) for role in ("training", "validation"))
    data = DataConfig(images=image.parent, labels=path.parent, validation=("nothing",), rasters=rasters)
    training, validation = read_examples(data, CARD)
    found = [example.whole().labels_HW for example in training]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(validation[0].whole().labels_HW, found[0])
    return found[0]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("way", ["as they are", "no place", "south up", "mirrored", "larger", "rounded"])
def test_labels_are_read_where_they_lie(way: str, tmp_path: Path) -> None:
    y1 = 5_400_000 - HEIGHT * 0.5
    labels, place = {
        "as they are": (LABELS, PLACE),
        "no place": (LABELS, None),
        "south up": (LABELS[::-1], Affine(0.5, 0, 500_000, 0, 0.5, y1)),
        "mirrored": (LABELS[:, ::-1], Affine(-0.5, 0, 500_000 + WIDTH * 0.5, 0, -0.5, 5_400_000)),
        "larger": (np.pad(LABELS, ((7, 3), (5, 9))), Affine(0.5, 0, 499_997.5, 0, -0.5, 5_400_003.5)),
        "rounded": (LABELS, Affine(0.50001, 0, 500_000.004, 0, -0.49999, 5_400_000.003)),
    }[way]
    np.testing.assert_array_equal(learnt(tmp_path, labels, place), LABELS)


@pytest.mark.parametrize(
    ("labels", "place", "crs"),
    [
        (LABELS, Affine(0.5, 0, 500_020, 0, -0.5, 5_400_000), "EPSG:32633"),
        (LABELS, Affine(0.5, 0, 500_000.25, 0, -0.5, 5_400_000), "EPSG:32633"),
        (LABELS, Affine(1, 0, 500_000, 0, -1, 5_400_000), "EPSG:32633"),
        (LABELS, Affine(0.5, 0.01, 500_000, 0, -0.5, 5_400_000), "EPSG:32633"),
        (LABELS, PLACE, "EPSG:25833"),
        (LABELS[:-1], PLACE, "EPSG:32633"),
    ],
)
def test_labels_that_lie_elsewhere_are_refused(
    labels: NDArray[np.uint8], place: Affine, crs: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"a\.tif.*a\.tif") as raised:
        learnt(tmp_path, labels, place, crs)
    assert "\n" not in str(raised.value)


def test_the_cases_of_labels_beside_their_image(tmp_path: Path) -> None:
    for name, outcome in (("l01_labels_shifted.tif", "refused"), ("l01_labels_southup.tif", "aligned")):
        for folder, file in (("images", "b00_plain.tif"), ("labels", name)):
            (tmp_path / folder).mkdir(exist_ok=True)
            shutil.copyfile(case(file), tmp_path / folder / "a.tif")
        raster = RasterConfig(image=tmp_path / "images/a.tif", labels=tmp_path / "labels/a.tif", label_kind="mask")
        data = DataConfig(rasters=(raster, raster.model_copy(update={"role": "validation"})))
        if outcome == "refused":
            with pytest.raises(TrainingError, match=r"labels/a\.tif .* don't lie on .*images/a\.tif"):
                read_examples(data, CARD)
            continue
        labels_HW = read_examples(data, CARD)[0][0].whole().labels_HW
        with rasterio.open(case(name)) as theirs:
            np.testing.assert_array_equal(labels_HW, theirs.read(1)[::-1] > 0)


def test_a_foreground_mask_that_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    image = write(tmp_path / "image.tif", np.zeros((HEIGHT, WIDTH), np.uint8), PLACE)
    coarse = np.ones((HEIGHT // 4, WIDTH // 4), np.uint8)
    with open_source(image) as source:
        right = write(tmp_path / "right.tif", coarse, Affine(2, 0, 500_000, 0, -2, 5_400_000))
        assert find_foreground(source, 0, str(right)).coarse is not None
        for name, place, crs in (
            ("east", Affine(2, 0, 500_020, 0, -2, 5_400_000), "EPSG:32633"),
            ("south up", Affine(2, 0, 500_000, 0, 2, 5_399_980), "EPSG:32633"),
            ("half", Affine(1, 0, 500_000, 0, -1, 5_400_000), "EPSG:32633"),
            ("another CRS", Affine(2, 0, 500_000, 0, -2, 5_400_000), "EPSG:25833"),
        ):
            wrong = write(tmp_path / f"{name}.tif", coarse, place, crs)
            with pytest.raises(SourceError, match=rf"foreground mask .*{name}\.tif .*image\.tif"):
                find_foreground(source, 0, str(wrong))
