"""Training examples, their fixed split and their groups. Arrays only: reading files is the caller's work."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet_core.card import ModelCard
from unet_core.errors import TrainingError


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One annotated image, held as it was read.

    `image_HWN` is in raw units, `labels_HW` holds the card's labels. `group` names the kind of image: a
    recipe says per group how often it is drawn and how it is varied. `instances_HW` numbers the objects from 1,
    0 is the ground; `weights_HW` says how much each pixel counts in a loss that weighs pixels.
    """

    name: str
    image_HWN: NDArray[Any]  # noqa: N815
    labels_HW: NDArray[np.uint8]  # noqa: N815
    group: str = "all"
    instances_HW: NDArray[np.integer] | None = None  # noqa: N815
    weights_HW: NDArray[np.float32] | None = None  # noqa: N815


def check_examples(examples: Sequence[Example], card: ModelCard) -> None:
    """Hold every example against the card; TrainingError names the first that doesn't fit."""
    if not examples:
        raise TrainingError("there are no images to learn from or to validate on: name a folder that holds some")
    for example in examples:
        image_HWN, labels_HW = example.image_HWN, example.labels_HW
        if image_HWN.ndim != 3 or image_HWN.shape[2] != len(card.bands) or image_HWN.dtype != card.dtype:
            raise TrainingError(
                f"image {example.name} is {image_HWN.dtype} {image_HWN.shape}, the card wants {card.dtype} "
                f"(height, width, {len(card.bands)} bands): convert it or correct the card"
            )
        if labels_HW.shape != image_HWN.shape[:2]:
            raise TrainingError(
                f"labels of {example.name} are {labels_HW.shape}, its image {image_HWN.shape[:2]}: "
                "they must be of one size; export the labels again at the image's size"
            )
        for kind, map_HW in (("instances", example.instances_HW), ("weights", example.weights_HW)):
            if map_HW is not None and map_HW.shape != labels_HW.shape:
                raise TrainingError(
                    f"{kind} of {example.name} are {map_HW.shape}, its labels {labels_HW.shape}: "
                    "they must be of one size; make them of the same image"
                )
        greatest = int(labels_HW.max(initial=0))
        if greatest >= len(card.classes):
            raise TrainingError(
                f"labels of {example.name} hold class {greatest}, the card ends at {len(card.classes) - 1}: "
                "add the class to the card or correct the labels"
            )


def check_measurable(examples: Sequence[Example]) -> None:
    """Raise TrainingError where validation examples hold no foreground: no figure would be defined."""
    if not any(example.labels_HW.any() for example in examples):
        raise TrainingError(
            f"none of the {len(examples)} images to validate on holds any foreground: no IoU could be measured "
            "and no bundle chosen; validate on others"
        )


def count_groups(examples: Sequence[Example]) -> dict[str, int]:
    """How many examples each group holds, by the group's name."""
    return dict(sorted(Counter(example.group for example in examples).items()))


def in_validation(stem: str, one_in: int = 10) -> bool:
    """Whether the image with this file name (without suffix) is for validation; the same on every machine."""
    return int(hashlib.sha1(stem.encode(), usedforsecurity=False).hexdigest(), 16) % one_in == 0


def modality(image_HWN: NDArray[np.uint8]) -> str:
    """`fluorescence` (dark ground), `stained` (bright and coloured) or `brightfield` (bright and grey)."""
    pixels = image_HWN.reshape(-1, image_HWN.shape[2])
    if float(pixels.mean()) < 110:
        return "fluorescence"
    spread = pixels.max(axis=1).astype(np.int16) - pixels.min(axis=1)
    return "stained" if float(spread.mean()) > 3 else "brightfield"
