"""A training file: where the examples come from, the card to be, and the training."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from unet_core.card import ModelCard
from unet_core.errors import TrainingError
from unet_core.recipe import TrainingConfig

_CONFIG = ConfigDict(frozen=True, extra="forbid")


class DataConfig(BaseModel):
    """Where images and labels lie: image files in one folder, labels of the matching name in another.

    `image_names` says which files are images; by default all in a format that overtile reads. `label_name` is the
    name of an image's labels: `{name}` stands for the image's file name, `{stem}` for it without its suffix.
    `classes`: labels are the card's; `mask`: every label above 0 is class 1; `instances`: so it is, and the labels
    number the objects from 1. For validation is an image whose
    stem matches a pattern in `validation`; where there are none, one image in `validation_one_in`, chosen by
    the hash of its stem.
    """

    model_config = _CONFIG

    images: Path
    labels: Path
    image_names: Annotated[str, Field(min_length=1)] = "*"
    label_name: Annotated[str, Field(min_length=1)] = "{name}"
    label_kind: Literal["instances", "mask", "classes"] = "classes"
    group_by: Literal["none", "modality"] = "none"
    validation: tuple[str, ...] = ()
    validation_one_in: PositiveInt = 10

    @model_validator(mode="after")
    def _label_name_follows_the_image(self) -> DataConfig:
        if "{name}" not in self.label_name and "{stem}" not in self.label_name:
            raise ValueError(f"label_name {self.label_name!r} gives every image the same labels: use {{stem}} in it")
        return self

    def label_path(self, image: Path) -> Path:
        """The file that holds an image's labels."""
        return self.labels / self.label_name.replace("{name}", image.name).replace("{stem}", image.stem)


class Recipe(BaseModel):
    """The whole of a training file."""

    model_config = _CONFIG

    data: DataConfig
    card: ModelCard
    training: TrainingConfig


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file; TrainingError names every entry that is wrong."""
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {' '.join(fault['msg'].split())}" for fault in error.errors()
        )
        raise TrainingError(f"recipe {str(path)!r} is not one: {faults}; correct it") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"recipe {str(path)!r} can't be read: {error}") from error
