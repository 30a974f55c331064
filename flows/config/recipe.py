"""A training file: where the examples come from, the card to be, and the training."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from unet_core.bundles.card import ModelCard
from unet_core.errors import TrainingError
from unet_core.training.recipe import TrainingConfig

_CONFIG = ConfigDict(frozen=True, extra="forbid")


class RasterConfig(BaseModel):
    """A large image with a label raster of the same size or with polygons (`.geojson`, `.json`), read by crops.

    Only `box` (`y0, x0, y1, x1` in pixels of `level`) is used, by default all of it: one image can so serve for
    training and, in another box, for validation, where it is measured in squares of `validation_px`. `mask`:
    every label above 0, and every polygon, is class 1; `classes`: labels are the card's, and polygons name their
    class in the property `class_property`. `series` says which image of a file of several, by number from 0 or by name.
    `coordinates` of polygons: see `tiling.selection.geojson.read_geojson`.
    """

    model_config = _CONFIG

    image: Path
    labels: Path
    role: Literal["training", "validation"] = "training"
    level: Annotated[int, Field(ge=0)] = 0
    series: str | None = None
    box: tuple[int, int, int, int] | None = None
    label_kind: Literal["mask", "classes"] = "classes"
    coordinates: Literal["pixels", "crs"] = "pixels"
    class_property: str = "classification"
    group: str = "all"
    validation_px: PositiveInt = 1024


class GeneratedConfig(BaseModel):
    """Images of `unet_core.training.synthetic`, squares of `side_px`: `training` and `validation` are their numbers."""

    model_config = _CONFIG

    task: Literal["ellipses", "tissue"]
    training: PositiveInt
    validation: PositiveInt
    side_px: Annotated[int, Field(ge=16, le=4096)] = 256
    seed: Annotated[int, Field(ge=0)] = 0


class DataConfig(BaseModel):
    """Data to train on: a folder of images and one of labels, `rasters`, `generated`, or several of these.

    `image_names` says which files are images; by default all in a format that overtile reads. `label_name` is the
    name of an image's labels: `{name}` stands for the image's file name, `{stem}` for it without its suffix.
    `classes`: labels are the card's; `mask`: every label above 0 is class 1; `instances`: so it is, and the labels
    number the objects from 1. For validation is an image whose stem matches a pattern in `validation`; where there
    are none, one image in `validation_one_in`, chosen by the hash of its stem. With `held_back_one_in` images chosen
    that way are held back, neither trained nor validated on, so that they can be reported on; validation is then
    on a part of the others, by another hash.
    """

    model_config = _CONFIG

    images: Path | None = None
    labels: Path | None = None
    image_names: Annotated[str, Field(min_length=1)] = "*"
    label_name: Annotated[str, Field(min_length=1)] = "{name}"
    label_kind: Literal["instances", "mask", "classes"] = "classes"
    group_by: Literal["none", "modality"] = "none"
    validation: tuple[str, ...] = ()
    validation_one_in: PositiveInt = 10
    held_back_one_in: PositiveInt | None = None
    rasters: tuple[RasterConfig, ...] = ()
    generated: GeneratedConfig | None = None

    @model_validator(mode="after")
    def _names_a_source(self) -> DataConfig:
        if (self.images is None) != (self.labels is None):
            raise ValueError("images and labels belong together: name both folders (they may be the same)")
        if self.images is None and not self.rasters and self.generated is None:
            raise ValueError("there is nothing to learn from: name images and labels, rasters or generated")
        if "{name}" not in self.label_name and "{stem}" not in self.label_name:
            raise ValueError(f"label_name {self.label_name!r} gives every image the same labels: use {{stem}} in it")
        return self


class Recipe(BaseModel):
    """The whole of a training file."""

    model_config = _CONFIG

    data: DataConfig
    card: ModelCard
    training: TrainingConfig


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file; TrainingError names every entry that is wrong."""
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {' '.join(fault['msg'].split())}" for fault in error.errors()
        )
        raise TrainingError(f"recipe {str(path)!r} is not one: {faults}; correct it") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"recipe {str(path)!r} can't be read: {error}") from error
