"""Every network of the registry run: seams against one whole-image pass, and speed.

Seams: with few channels and random weights, a crop of the real slide walks the whole way of a run, from the file over
plan and worker to the mask, without Ray; its labels are counted against one plain pass over the mirrored crop. Speed:
the described configuration, one core of 512 px inside an image, float32, seconds of one thread's processor time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks import machine
from benchmarks.described import DESCRIBED, Described
from benchmarks.slide import tissue
from flows.config.run import SegmentConfig
from flows.run.intended import make_plan
from flows.run.model import find_footprint
from flows.run.prepare import prepare
from flows.worker.tile_worker import TileWorker
from flows.worker.tuning import tune
from tiling.plan import TilePlan
from tiling.source import open_source
from unet_core.bounds import unbounded_layers
from unet_core.bundles.bundle import Bundle, ClassInfo, Decision, ModelCard, Normalization, save_bundle
from unet_core.inference.decision import decide
from unet_core.inference.predictor import Predictor
from unet_core.models import build
from unet_core.models.patch_classifier import PatchClassifier
from unet_core.models.unet3p import UNet3Plus

Facts = dict[str, Any]
Pixels = NDArray[np.uint8]

CROP_PX = (512, 1536)  # wider than the widest halo on both sides of a core, so that no tile is the whole crop
CORE_PX, SPEED_CORE_PX = 256, 512
APPROXIMATE_HALO_PX = 112
# One pass that takes less is repeated: the first one also prepares the layers.
WORTH_REPEATING_S = 2.0
SQUARES = 64


def measure(message: Callable[[str], None]) -> Facts:
    """All that the table tells of what was run, row by row."""
    torch.set_num_threads(1)
    began = time.monotonic()
    name, pixels = crop()
    rows: dict[str, Facts] = {}
    for described in DESCRIBED:
        rows[described.key] = {**seams(described.small(), pixels), **speed(described)}
        message(f"{described.key}: {rows[described.key]}")
    sliding = sliding_window()
    message(f"patch_classifier, sliding: {sliding}")
    facts: Facts = {"machine": machine.describe(), "tissue": name, "crop_px": CROP_PX, "core_px": CORE_PX}
    minutes = (time.monotonic() - began) / 60
    return {**facts, "speed_core_px": SPEED_CORE_PX, "minutes": minutes, "rows": rows, "sliding": sliding}


def crop() -> tuple[str, Pixels]:
    """The part of the tissue in which there is most to see, mirrored out where it is smaller."""
    name, pixels_YXC = tissue()
    height, width = CROP_PX
    margins = ((0, max(0, height - pixels_YXC.shape[0])), (0, max(0, width - pixels_YXC.shape[1])), (0, 0))
    pixels_YXC = np.pad(pixels_YXC, margins, mode="symmetric")
    starts = range(0, pixels_YXC.shape[0] - height + 1, 64)
    best = max(starts, key=lambda y: float(pixels_YXC[y : y + height : 8, :width:8].std()))
    return name, np.ascontiguousarray(pixels_YXC[best : best + height, :width])


def seams(small: Described, pixels: Pixels) -> Facts:
    """Labels of a run that differ from those of one pass over the whole mirrored crop."""
    network = weighted(build(small.name, small.parameters))
    unbounded = bool(unbounded_layers(network, small.bands))
    with TemporaryDirectory() as name:
        folder = Path(name)
        tifffile.imwrite(folder / "crop.tif", pixels, photometric="rgb", tile=(256, 256))
        config = SegmentConfig(
            image=folder / "crop.tif",
            out=folder / "run",
            model=str(folder / "model"),
            core=CORE_PX,
            foreground="none",
            halo=f"approximate:{APPROXIMATE_HALO_PX}" if unbounded else "exact",
        )
        bundle = Bundle(card_of(small, 0.5), network, "")
        with open_source(config.image) as source:
            plan = make_plan(source, 0, CORE_PX, find_footprint(bundle, config))
        logits_NCHW = one_pass(bundle, pixels, plan)
        card = card_of(small, decision_for(logits_NCHW.numpy()))
        save_bundle(folder / "model", card, network)
        labels = segmented(config)
    expected = decide(logits_NCHW, card.decision)[0].numpy()
    differing = labels != expected
    threshold = card.decision.thresholds[0]
    from_decision = (logits_NCHW[0, 0] - math.log(threshold / (1 - threshold))).abs() / logits_NCHW.std()
    return {
        "differing": int(np.count_nonzero(differing)),
        "farthest": float(from_decision.numpy()[differing].max(initial=0.0)),
        "labels": labels.size,
        "foreground": round(float((expected > 0).mean()), 3),
        "tiles": plan.count,
        "exact": not unbounded,
    }


def decision_for(logits: NDArray[np.float32]) -> float:
    """The probability above which a label is 1: about half of them, as a mask of nothing would equal any other.

    In the widest gap between two logits near the median: rounding alone should flip no label.
    """
    near = np.sort(logits.ravel())[int(0.45 * logits.size) : int(0.55 * logits.size)].astype(np.float64)
    widest = int(np.diff(near).argmax())
    return float(1 / (1 + math.exp(-(near[widest] + near[widest + 1]) / 2)))


def segmented(config: SegmentConfig) -> NDArray[np.uint8]:
    """The mask of a run whose tiles are walked in this process."""
    run = prepare(config, 1, lambda request: tune(request, "cpu"))
    worker = TileWorker()
    for tile in run.plan.tiles():
        result = worker.process(run.path, tile.index, staged=False)
        if result.reason is not None:
            raise RuntimeError(f"tile {tile.name}: {result.reason}")
    return run.open_mask(read_only=True).read(run.plan.mask)


def one_pass(bundle: Bundle, pixels: Pixels, plan: TilePlan) -> torch.Tensor:
    """Logits (1, 1, y, x) of the plain network over the whole mirrored image, those of the mask's pixels."""
    frame, (height, width) = plan.frame, plan.extent
    margins = ((-frame.y0, frame.y1 - height), (-frame.x0, frame.x1 - width), (0, 0))
    seen_YXC = np.pad(pixels, margins, mode="reflect").astype(np.float32)
    normalization = bundle.card.normalization
    mean, std = (np.asarray(values, np.float32) for values in (normalization.mean, normalization.std))
    inputs_YXC = (seen_YXC - mean) / std
    with torch.inference_mode():
        logits_NCHW = bundle.module(torch.from_numpy(inputs_YXC).permute(2, 0, 1)[None].contiguous())
    (scale_y, scale_x), (lost_y, lost_x) = plan.grid.scale, plan.grid.offset
    y, x = int(-frame.y0 * scale_y) - lost_y, int(-frame.x0 * scale_x) - lost_x
    return logits_NCHW[:, :, y : y + plan.mask.height, x : x + plan.mask.width]


def speed(described: Described) -> Facts:
    """Million image pixels per second of one thread, computing a core with image on every side."""
    network = weighted(build(described.name, described.parameters))
    bundle = Bundle(card_of(described, 0.5), network, "")
    approximate = bool(unbounded_layers(network, described.bands))
    predictor = Predictor(bundle, device="cpu", compiled=False, approximate=approximate)
    read_px, region = predictor.inside(SPEED_CORE_PX)
    tile_HWC = np.random.default_rng(0).integers(0, 256, (*read_px, described.bands)).astype(np.uint8)
    seconds = timed(lambda: predictor.predict(tile_HWC, region))
    return {"mpix_per_s": SPEED_CORE_PX**2 / 1e6 / seconds}


def sliding_window() -> Facts:
    """The patch classifier's sliding window: million pixels per second of one thread."""
    network = PatchClassifier(1, 2).eval()
    squares_NCHW = torch.rand(SQUARES, 1, network.side, network.side)
    with torch.inference_mode():
        seconds = timed(lambda: network.classify(squares_NCHW))
    return {"mpix_per_s": SQUARES / 1e6 / seconds}


def timed(run: Callable[[], object]) -> float:
    """Seconds of this thread's processor time, so that other work doesn't count."""
    began = time.thread_time()
    run()
    first = time.thread_time() - began
    if first > WORTH_REPEATING_S:
        return first
    began = time.thread_time()
    run()
    return time.thread_time() - began


def weighted(network: nn.Module) -> nn.Module:
    """Random weights that keep values of one size from layer to layer, so that every layer counts."""
    generator = torch.Generator().manual_seed(0)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None and part.running_var is not None:
            part.running_mean.copy_(0.2 * torch.randn(part.running_mean.shape, generator=generator))
            part.running_var.copy_(torch.rand(part.running_var.shape, generator=generator) + 0.5)
    for parameter in network.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            parameter.copy_(noise * gain(parameter) if parameter.dim() > 1 else 1 + 0.2 * noise)
    network.eval().requires_grad_(requires_grad=False)
    if isinstance(network, UNet3Plus) and network.presence is not None:
        # The module would call most random images empty, and a mask of nothing shows no seam.
        cast("torch.Tensor", network.presence.get_submodule("1").bias)[1] += 1e6
    return network


def gain(weight: torch.Tensor) -> float:
    """He et al. 2015: the deviation that keeps the variance through ReLU."""
    return math.sqrt(2 / max(1, weight[0].numel()))


def card_of(described: Described, threshold: float) -> ModelCard:
    """A card for 8-bit images; one class is decided by the threshold, several by the greatest logit."""
    bands, alone = described.bands, described.classes == 1
    classes = [ClassInfo(f"class {label}", "#e69f00") for label in range(described.classes + alone)]
    return ModelCard(
        name="described",
        description="",
        architecture=described.name,
        parameters=described.parameters,
        bands=tuple(f"band {band}" for band in range(bands)),
        dtype="uint8",
        classes=tuple(classes),
        decision=Decision("threshold", (threshold,)) if alone else Decision("argmax"),
        normalization=Normalization((128.0,) * bands, (64.0,) * bands),
        license="none",
    )
