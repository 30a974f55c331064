"""Training examples, their fixed split and their groups. Reading files is the caller's work."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from unet_core.bundles.card import ModelCard
from unet_core.errors import TrainingError


class Annotated(Protocol):
    """An annotated image, held in memory or read as it is needed."""

    @property
    def name(self) -> str:
        """Name in messages, which tells one training from another."""
        ...

    @property
    def group(self) -> str:
        """The kind of image: a recipe says per group how often it is drawn and how it is varied."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width, bands."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the image's pixels."""
        ...

    def around(self, y0: int, x0: int, y1: int, x1: int) -> tuple[Example, int, int]:
        """Pixels that hold all of the box that is inside the image, and the row and column where they start."""
        ...

    def whole(self) -> Example:
        """All of it, in memory."""
        ...


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

    @property
    def shape(self) -> tuple[int, ...]:
        return self.image_HWN.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.image_HWN.dtype

    def around(self, y0: int, x0: int, y1: int, x1: int) -> tuple[Example, int, int]:
        """The example itself, which starts at its own corner: it is in memory anyway."""
        return self, 0, 0

    def whole(self) -> Example:
        return self


Pixels = tuple[NDArray[Any], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True, eq=False)
class LazyExample:
    """An annotated image of which only what a crop shows is read, so that it never has to fit into memory.

    `shape` is height, width, bands. `read(y0, x0, y1, x1)` returns the image `(y1 - y0, x1 - x0, bands)` in raw
    units and its labels, below `classes`, for any box inside the image.
    """

    name: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    classes: int
    read: Callable[[int, int, int, int], Pixels]
    group: str = "all"

    def around(self, y0: int, x0: int, y1: int, x1: int) -> tuple[Example, int, int]:
        """The part of the box that is inside the image; TrainingError where its labels aren't the card's."""
        height, width, _ = self.shape
        top, left = max(0, y0), max(0, x0)
        image_HWN, labels_HW = self.read(top, left, min(height, y1), min(width, x1))
        example = Example(self.name, image_HWN, labels_HW, self.group)
        _check_pixels(example, self.classes)
        return example, top, left

    def whole(self) -> Example:
        return self.around(0, 0, *self.shape[:2])[0]


def check_examples(examples: Sequence[Annotated], card: ModelCard) -> None:
    """Hold every example against the card; TrainingError names the first that doesn't fit.

    The labels of an image that is read as needed are held against the card whenever they are read.
    """
    if not examples:
        raise TrainingError("there are no images to learn from or to validate on: name a folder that holds some")
    for example in examples:
        if len(example.shape) != 3 or example.shape[2] != len(card.bands) or example.dtype != card.dtype:
            raise TrainingError(
                f"image {example.name} is {example.dtype} {example.shape}, the card wants {card.dtype} "
                f"(height, width, {len(card.bands)} bands): convert it or correct the card"
            )
        if isinstance(example, Example):
            _check_pixels(example, len(card.classes))


def _check_pixels(example: Example, classes: int) -> None:
    labels_HW = example.labels_HW
    if labels_HW.shape != example.shape[:2]:
        raise TrainingError(
            f"labels of {example.name} are {labels_HW.shape}, its image {example.shape[:2]}: "
            "they must be of one size; export the labels again at the image's size"
        )
    for kind, map_HW in (("instances", example.instances_HW), ("weights", example.weights_HW)):
        if map_HW is not None and map_HW.shape != labels_HW.shape:
            raise TrainingError(
                f"{kind} of {example.name} are {map_HW.shape}, its labels {labels_HW.shape}: "
                "they must be of one size; make them of the same image"
            )
    greatest = int(labels_HW.max(initial=0))
    if greatest >= classes:
        raise TrainingError(
            f"labels of {example.name} hold class {greatest}, the card ends at {classes - 1}: "
            "add the class to the card or correct the labels"
        )


def check_measurable(examples: Sequence[Annotated]) -> None:
    """Raise TrainingError where validation examples hold no foreground: no figure would be defined."""
    if not any(example.whole().labels_HW.any() for example in examples):
        raise TrainingError(
            f"none of the {len(examples)} images to validate on holds any foreground: no IoU could be measured "
            "and no bundle chosen; validate on others"
        )


def count_groups(examples: Sequence[Annotated]) -> dict[str, int]:
    """Number of examples of each group, by the group's name."""
    return dict(sorted(Counter(example.group for example in examples).items()))


def in_validation(stem: str, one_in: int = 10) -> bool:
    """True if the image with this file name (without suffix) is for validation; the same on every machine."""
    return int(hashlib.sha1(stem.encode(), usedforsecurity=False).hexdigest(), 16) % one_in == 0


def in_choice(stem: str, one_in: int = 10) -> bool:
    """True if an image that isn't held back is one that checkpoints are chosen on: another hash than the split's."""
    return in_validation(f"choice:{stem}", one_in)


def modality(image_HWN: NDArray[np.uint8]) -> str:
    """`fluorescence` (dark ground), `stained` (bright and coloured) or `brightfield` (bright and grey)."""
    pixels = image_HWN.reshape(-1, image_HWN.shape[2])
    if float(pixels.mean()) < 110:
        return "fluorescence"
    spread = pixels.max(axis=1).astype(np.int16) - pixels.min(axis=1)
    return "stained" if float(spread.mean()) > 3 else "brightfield"
