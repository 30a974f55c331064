"""How well a network labels whole annotated images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unet_core import metrics
from unet_core.card import ModelCard, Normalization
from unet_core.data import Annotated
from unet_core.predictor import decide


@dataclass(frozen=True, slots=True)
class Score:
    """Agreement over a set of images: the foreground classes' means per image, averaged over the images."""

    images: int
    mean_iou: float
    mean_dice: float
    precision: float
    recall: float


def evaluate(module: nn.Module, card: ModelCard, examples: Sequence[Annotated], stride: int = 16) -> dict[str, Score]:
    """Scores under `"all"` and per group. Each image is labelled in one float32 pass at its full size."""
    confusions = [_confusion(module, card, example, stride) for example in examples]
    groups = {"all": confusions}
    for example, confusion in zip(examples, confusions, strict=True):
        if example.group != "all":
            groups.setdefault(example.group, []).append(confusion)
    return {name: _score(members) for name, members in groups.items()}


def whole_image_labels(module: nn.Module, card: ModelCard, image_HWN: NDArray[Any], stride: int) -> NDArray[np.uint8]:
    """Labels `(H, W)` of one pass over the image, mirrored at its right and bottom up to the stride."""
    height, width = image_HWN.shape[:2]
    margin = ((0, -height % stride), (0, -width % stride), (0, 0))
    image_HWN = np.pad(image_HWN, margin, mode="reflect")
    with torch.inference_mode():
        image_1NHW = torch.from_numpy(image_HWN.astype(np.float32)).permute(2, 0, 1)[None]
        logits_1CHW = module.eval()(normalized(image_1NHW, card.normalization))
        return decide(logits_1CHW, card.decision)[0, :height, :width].numpy()


def normalized(images_NCHW: Tensor, normalization: Normalization) -> Tensor:
    """Float images in raw units, normalised per band, channels last in memory."""
    mean, std = (torch.tensor(each).reshape(1, -1, 1, 1) for each in (normalization.mean, normalization.std))
    return ((images_NCHW - mean) / std).contiguous(memory_format=torch.channels_last)


def _confusion(module: nn.Module, card: ModelCard, example: Annotated, stride: int) -> NDArray[np.int64]:
    whole = example.whole()
    predicted_HW = whole_image_labels(module, card, whole.image_HWN, stride)
    return metrics.confusion_matrix(whole.labels_HW, predicted_HW, len(card.classes))


def _score(confusions: Sequence[NDArray[np.int64]]) -> Score:
    def mean(metric: metrics.Metric) -> float:
        per_image = [_mean_or_nan(metric(confusion)[1:]) for confusion in confusions]
        return round(_mean_or_nan(np.array(per_image)), 4)

    return Score(
        images=len(confusions),
        mean_iou=mean(metrics.iou),
        mean_dice=mean(metrics.dice),
        precision=mean(metrics.precision),
        recall=mean(metrics.recall),
    )


def _mean_or_nan(values: NDArray[np.float64]) -> float:
    """The mean of the values that are defined; NaN where none is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
