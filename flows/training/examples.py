"""The examples that a recipe's data section names."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from flows.config.recipe import DataConfig, GeneratedConfig
from flows.training.rasters import raster_examples
from tiling.errors import SourceError
from tiling.selection.alignment import Alignment
from tiling.source import open_source
from unet_core.bundles.card import ModelCard
from unet_core.errors import TrainingError
from unet_core.training.data import Annotated, Example, in_choice, in_validation, modality
from unet_core.training.synthetic import ellipses, tissue

_SUFFIXES = {".png", ".tif", ".tiff", ".jpg", ".jpeg", ".jp2", ".j2k", ".webp", ".svs"}


def read_examples(data: DataConfig, card: ModelCard) -> tuple[list[Annotated], list[Annotated]]:
    """The examples for training and for validation: those of the folders by name, of rasters, and generated ones.

    Raises TrainingError for a folder without images, for an image or labels that are missing or unreadable, and
    where nothing is left for training or for validation; TilingError for a raster that can't be read.
    """
    training: list[Annotated] = []
    validation: list[Annotated] = []
    if data.images is not None and data.labels is not None:
        for path in _images(data.images, data.image_names):
            labels = _labels_of(path, data.labels, data)
            if _is_held_back(path.stem, data):
                continue
            (validation if _validates(path.stem, data) else training).append(_read_example(path, labels, data))
    for raster in data.rasters:
        (validation if raster.role == "validation" else training).extend(raster_examples(raster, card))
    if data.generated is not None:
        training.extend(_generated(data.generated, "training", data.generated.training))
        validation.extend(_generated(data.generated, "validation", data.generated.validation))
    if not training:
        raise TrainingError(
            f"none of the {len(validation)} images is left to train on: add images, or narrow data.validation"
        )
    if not validation:
        raise TrainingError(
            f"none of the {len(training)} images is for validation: no figure could be measured; add images, correct "
            'data.validation or data.validation_one_in, or give a raster the role "validation"'
        )
    return training, validation


def _images(folder: Path, names: str) -> list[Path]:
    paths = [path for path in sorted(folder.glob(names)) if path.suffix.lower() in _SUFFIXES]
    if not paths:
        raise TrainingError(
            f"folder {str(folder)!r} holds no image called {names!r} in a known format "
            f"({', '.join(sorted(_SUFFIXES))}): there is nothing to learn from; correct data.images or data.image_names"
        )
    stems: dict[str, Path] = {}
    for path in paths:
        other = stems.setdefault(path.stem, path)
        if other is not path:
            raise TrainingError(
                f"{other.name!r} and {path.name!r} in {str(folder)!r} differ in their suffix alone: one image "
                "would count twice; remove one or narrow data.image_names"
            )
    return paths


def read_held_back(data: DataConfig) -> list[Example]:
    """The images that `held_back_one_in` keeps from training and validation, to report on; empty without it."""
    if data.images is None or data.labels is None:
        return []
    paths = [path for path in _images(data.images, data.image_names) if _is_held_back(path.stem, data)]
    return [_read_example(path, _labels_of(path, data.labels, data), data) for path in paths]


def _is_held_back(stem: str, data: DataConfig) -> bool:
    return data.held_back_one_in is not None and in_validation(stem, data.held_back_one_in)


def _labels_of(path: Path, folder: Path, data: DataConfig) -> Path:
    return folder / data.label_name.replace("{name}", path.name).replace("{stem}", path.stem)


def _validates(stem: str, data: DataConfig) -> bool:
    if data.held_back_one_in is not None and not data.validation:
        return in_choice(stem, data.validation_one_in)
    if data.validation:
        return any(fnmatchcase(stem, pattern) for pattern in data.validation)
    return in_validation(stem, data.validation_one_in)


def _read_example(path: Path, labels: Path, data: DataConfig) -> Example:
    image_HWN, labels_HW = _read_image(path), _on_image(path, labels, _read_labels(labels))
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


def _on_image(path: Path, labels: Path, labels_HW: NDArray[Any]) -> NDArray[Any]:
    """The labels that lie on an image where both say where they lie; else as they stand.

    A PNG of labels says nothing of its place, and isn't asked.
    """
    if labels.suffix.lower() == ".png":
        return labels_HW
    with open_source(path) as image, open_source(labels) as source:
        if image.georeference is None or source.georeference is None:
            return labels_HW
        try:
            aligned = Alignment.of(image, 0, source, 0)
        except SourceError as error:
            raise TrainingError(str(error)) from error
        return aligned.turned(labels_HW[aligned.box(image.levels[0].box).slices])


def _generated(config: GeneratedConfig, role: str, count: int) -> list[Example]:
    """Each image follows from the seed, the role and its number alone: more of them leave the first as they are."""
    examples: list[Example] = []
    for index in range(count):
        random = np.random.default_rng((config.seed, role == "validation", index))
        name = f"{config.task} {role} {index}"
        if config.task == "ellipses":
            image_HW, labels_HW = ellipses(config.side_px, config.side_px, random)
            examples.append(Example(name, image_HW[:, :, None], labels_HW))
        else:
            image_HWN, instances_HW = tissue(config.side_px, config.side_px, random)
            nuclei_HW = (instances_HW > 0).astype(np.uint8)
            examples.append(Example(name, image_HWN, nuclei_HW, instances_HW=instances_HW))
    return examples


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
