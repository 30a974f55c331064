"""The one oracle: labels of a single float32 pass over the whole image, by the plain network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from flows.config.run import SegmentConfig
from flows.run.prepare import prepare
from flows.worker.tile_worker import TileWorker
from flows.worker.tuning import tune
from tiling.runs.run import Run
from unet_core.bundles.bundle import Bundle

Image = NDArray[np.generic]
Labels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Whole:
    """How one pass over a whole image is run: figures from the network's paper, none from its footprint.

    stride: extents are multiples of it, plus `rest`. lost: input pixels above and left of the first output pixel.
    before: pixels mirrored above and left of the image, so that the outputs cover it. scale: output pixels per pixel.
    """

    stride: int = 16
    rest: int = 0
    lost: int = 0
    before: int = 0
    scale: Fraction = Fraction(1)

    def margins(self, extent: int) -> tuple[int, int]:
        return self.before, self.lost + (self.rest - self.lost - self.before - extent) % self.stride

    def outputs(self, extent: int) -> slice:
        first = int((self.before - self.lost) * self.scale)
        return slice(first, first + math.ceil(extent * self.scale))


def whole_image_logits(bundle: Bundle, pixels_HWC: Image, stride: int = 16, whole: Whole | None = None) -> torch.Tensor:
    """Logits `(C, y, x)` of one pass over the mirrored image, those of the image itself.

    Nothing of the predictor is used: batch norm isn't folded, memory is NCHW, and no tile is cut.
    """
    whole = whole or Whole(stride)
    height, width = pixels_HWC.shape[:2]
    mirrored = np.pad(pixels_HWC, (whole.margins(height), whole.margins(width), (0, 0)), mode="reflect")
    inputs_NCHW = torch.from_numpy(np.ascontiguousarray(mirrored)).permute(2, 0, 1)[None].float().contiguous()
    mean = torch.tensor(bundle.card.normalization.mean).view(1, -1, 1, 1)
    std = torch.tensor(bundle.card.normalization.std).view(1, -1, 1, 1)
    with torch.inference_mode():
        return bundle.module((inputs_NCHW - mean) / std)[0, :, whole.outputs(height), whole.outputs(width)]


def whole_image_labels(bundle: Bundle, pixels_HWC: Image, whole: Whole | None = None) -> Labels:
    """Labels `(y, x)`: the class of the greatest logit, or one thresholded class at 0.5."""
    logits_CHW = whole_image_logits(bundle, pixels_HWC, whole=whole)
    if bundle.card.decision.rule == "argmax":
        return logits_CHW.argmax(0).to(torch.uint8).numpy()
    assert bundle.card.decision.thresholds == (0.5,)
    return (logits_CHW[0] > 0).to(torch.uint8).numpy()


def segment_here(image: Path, folder: Path, core: int | None, **options: object) -> Run:
    """The run of an image, every tile walked in this process: the path of a worker without Ray around it.

    The model is the quicker of those for nuclei, unless another is asked for.
    """
    fields = {"image": image, "out": folder, "core": core, "foreground": "none", "model": "nuclei-small"}
    config = SegmentConfig.model_validate({**fields, **options})
    run = prepare(config, 1, partial(tune, device="cpu"))
    worker = TileWorker()
    for tile in run.plan.tiles():
        result = worker.process(run.path, tile.index, staged=False)
        assert result.reason is None, result.reason
    return run
