"""The examples that a recipe's data section names."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from flows.recipe import DataConfig
from tiling.errors import SourceError
from tiling.source import open_source
from unet_core.data import Example, in_validation, modality
from unet_core.errors import TrainingError

_SUFFIXES = {".png", ".tif", ".tiff", ".jpg", ".jpeg", ".jp2", ".j2k", ".webp", ".svs"}


def read_examples(data: DataConfig) -> tuple[list[Example], list[Example]]:
    """The examples for training and for validation, by name.

    Raises TrainingError for a folder without images, and for an image or labels that are missing or unreadable.
    """
    training: list[Example] = []
    validation: list[Example] = []
    paths = _images(data)
    for path in paths:
        (validation if _validates(path.stem, data) else training).append(_read_example(path, data))
    if not training:
        raise TrainingError(
            f"none of the {len(paths)} images in {str(data.images)!r} is left to train on: "
            "add images or narrow data.validation"
        )
    if not validation:
        raise TrainingError(
            f"none of the {len(paths)} images in {str(data.images)!r} is for validation: no figure could be "
            "measured; add images, correct data.validation or lower data.validation_one_in"
        )
    return training, validation


def _images(data: DataConfig) -> list[Path]:
    paths = [path for path in sorted(data.images.glob(data.image_names)) if path.suffix.lower() in _SUFFIXES]
    if not paths:
        raise TrainingError(
            f"folder {str(data.images)!r} holds no image called {data.image_names!r} in a known format "
            f"({', '.join(sorted(_SUFFIXES))}): there is nothing to learn from; correct data.images or data.image_names"
        )
    stems: dict[str, Path] = {}
    for path in paths:
        other = stems.setdefault(path.stem, path)
        if other is not path:
            raise TrainingError(
                f"{other.name!r} and {path.name!r} in {str(data.images)!r} differ in their suffix alone: one image "
                "would count twice; remove one or narrow data.image_names"
            )
    return paths


def _validates(stem: str, data: DataConfig) -> bool:
    if data.validation:
        return any(fnmatchcase(stem, pattern) for pattern in data.validation)
    return in_validation(stem, data.validation_one_in)


def _read_example(path: Path, data: DataConfig) -> Example:
    image_HWN, labels_HW = _read_image(path), _read_labels(data.label_path(path))
    instances_HW = labels_HW if data.label_kind == "instances" else None
    if data.label_kind != "classes":
        labels_HW = labels_HW > 0
    elif int(labels_HW.max(initial=0)) > 254:
        raise TrainingError(
            f"labels of {path.name} go up to {labels_HW.max()}: classes end at 254, 255 means not predicted; "
            'correct the labels, or set data.label_kind = "instances" where they number objects'
        )
    group = modality(image_HWN) if data.group_by == "modality" else "all"
    return Example(path.stem, image_HWN, labels_HW.astype(np.uint8), group, instances_HW)


def _read_image(path: Path) -> NDArray[Any]:
    """Pixels `(height, width, band)` of the first level."""
    try:
        with open_source(path) as source:
            return source.read(0, source.levels[0].box)
    except SourceError as error:
        raise TrainingError(f"image {error}: replace or remove it") from error


def _read_labels(path: Path) -> NDArray[Any]:
    """Labels `(height, width)`; a palette's indices, where the file has one, not its colours."""
    if not path.is_file():
        raise TrainingError(f"labels {str(path)!r} are missing: every image needs its own; see data.label_name")
    labels_HW = _read_png(path) if path.suffix.lower() == ".png" else _read_image(path)
    if labels_HW.ndim == 3 and labels_HW.shape[2] == 1:
        labels_HW = labels_HW[:, :, 0]
    if labels_HW.ndim != 2 or not (labels_HW.dtype == np.bool_ or np.issubdtype(labels_HW.dtype, np.integer)):
        raise TrainingError(
            f"labels {str(path)!r} are {labels_HW.dtype} {labels_HW.shape}: labels are one band of whole numbers; "
            "export class or object numbers, not a coloured picture of them"
        )
    if int(labels_HW.min(initial=0)) < 0:
        raise TrainingError(f"labels {str(path)!r} go down to {labels_HW.min()}: labels are 0 and up; correct them")
    return labels_HW.view(np.uint8) if labels_HW.dtype == np.bool_ else labels_HW


def _read_png(path: Path) -> NDArray[Any]:
    try:
        with Image.open(path) as image:
            return np.array(image)
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise TrainingError(f"{str(path)!r} can't be read as an image: {error}; replace or remove it") from error
