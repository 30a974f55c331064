"""Evaluation of a network on whole annotated images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from unet_core.bundles.card import ModelCard
from unet_core.inference.decision import decide
from unet_core.training import metrics
from unet_core.training.data import Annotated
from unet_core.training.instances import Matches, match_labels, match_objects
from unet_core.training.output_grid import OutputGrid
from unet_core.training.separation import grown

GROWN_PX, LEAST_PX = 4, 20
"""How far a seed grows at most, and what is smaller than an object, where borders are a class."""


@dataclass(frozen=True, slots=True)
class Score:
    """Agreement over a set of images: the foreground classes' means per image, averaged over the images.

    `average_precision` is that of objects, as `unet_core.training.instances` counts them, averaged over the
    intersections over union 0.5 to 0.95; `ap50` counts objects that overlap by more than one half.
    """

    images: int
    mean_iou: float
    mean_dice: float
    precision: float
    recall: float
    average_precision: float
    ap50: float


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """Agreement of one image's predicted labels with its true ones."""

    name: str
    group: str
    confusion: NDArray[np.int64]
    matches: Matches

    @property
    def iou(self) -> float:
        """The foreground classes' mean; NaN where neither side holds any."""
        return _mean_or_nan(metrics.iou(self.confusion)[1:])


def evaluate(
    module: nn.Module,
    card: ModelCard,
    examples: Sequence[Annotated],
    grid: OutputGrid | None = None,
    *,
    separates: bool = False,
) -> dict[str, Score]:
    """Scores under `"all"` and per group. Each image is labelled in one float32 pass at its full size.

    With `separates` the card's classes are interiors and borders of one kind of object: both together are compared
    with the objects' pixels, and the objects grown from the interiors with the true ones.
    """
    found = OutputGrid.of(module, len(card.bands)) if grid is None else grid
    return scores_of([agreement(module, card, example, found, separates=separates) for example in examples])


def scores_of(agreements: Sequence[Agreement]) -> dict[str, Score]:
    """The scores of all images, under `"all"`, and of each group."""
    groups = {"all": list(agreements)}
    for each in agreements:
        if each.group != "all":
            groups.setdefault(each.group, []).append(each)
    return {name: _score(members) for name, members in groups.items()}


def agreement(
    module: nn.Module, card: ModelCard, example: Annotated, grid: OutputGrid, *, separates: bool = False
) -> Agreement:
    """Measure how well the network labels one image, on the grid of its output."""
    whole = example.whole()
    predicted_HW = whole_image_labels(module, card, whole.image_HWN, grid)
    labels_HW = grid.finer(whole.labels_HW)
    instances_HW = None if whole.instances_HW is None else grid.finer(whole.instances_HW)
    if separates and instances_HW is not None:
        found = match_objects(instances_HW, grown(predicted_HW, GROWN_PX, LEAST_PX))
        joined = metrics.confusion_matrix((labels_HW > 0).astype(np.uint8), (predicted_HW > 0).astype(np.uint8), 2)
        return Agreement(example.name, example.group, joined, found)
    classes = len(card.classes)
    return Agreement(
        example.name,
        example.group,
        metrics.confusion_matrix(labels_HW, predicted_HW, classes),
        match_labels(labels_HW, predicted_HW, classes, instances_HW),
    )


def whole_image_labels(
    module: nn.Module, card: ModelCard, image_HWN: NDArray[Any], grid: OutputGrid
) -> NDArray[np.uint8]:
    """Labels of one pass over the image, mirrored as the network needs it; `(H, W)`, or finer as its output is."""
    with torch.inference_mode():
        logits_1CHW = grid.run(module.eval(), image_HWN, card.normalization)
        return decide(logits_1CHW, card.decision)[0].cpu().numpy()


def _score(agreements: Sequence[Agreement]) -> Score:
    def mean(metric: metrics.Metric) -> float:
        return _mean([_mean_or_nan(metric(each.confusion)[1:]) for each in agreements])

    precisions = [each.matches.precision() for each in agreements]
    return Score(
        images=len(agreements),
        mean_iou=mean(metrics.iou),
        mean_dice=mean(metrics.dice),
        precision=mean(metrics.precision),
        recall=mean(metrics.recall),
        average_precision=_mean([float(each.mean()) for each in precisions]),
        ap50=_mean([float(each[0]) for each in precisions]),
    )


def _mean(per_image: Sequence[float]) -> float:
    return round(_mean_or_nan(np.array(per_image)), 4)


def _mean_or_nan(values: NDArray[np.float64]) -> float:
    """The mean of the values that are defined; NaN where none is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
