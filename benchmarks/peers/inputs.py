"""Inputs of all peers, the same for each: the network as it comes, normalised float32, one rule for labels."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unet_core.bundles.bundle import load_bundle
from unet_core.bundles.card import ModelCard

THREADS = 2


@dataclass(frozen=True, slots=True)
class Job:
    """What a peer is asked to do."""

    slide: Path
    labels: Path  # npy
    network: nn.Module
    card: ModelCard
    tile_px: int
    threads: int


def load_network(model: str) -> tuple[nn.Module, ModelCard]:
    """The bundle's module: float32, eval mode, nothing folded or reordered."""
    bundle = load_bundle(model)
    return bundle.module, bundle.card


def normalised(pixels_YXC: NDArray[np.generic], card: ModelCard) -> Tensor:
    """Pixels `(y, x, band)` to the network's input `(1, band, y, x)`, float32 and contiguous."""
    mean = torch.tensor(card.normalization.mean).view(-1, 1, 1)
    scale = 1.0 / torch.tensor(card.normalization.std).view(-1, 1, 1)
    pixels_CHW = torch.from_numpy(np.ascontiguousarray(pixels_YXC)).permute(2, 0, 1).float()
    return pixels_CHW.sub_(mean).mul_(scale).contiguous().unsqueeze(0)


def labels_of(logits_CHW: NDArray[np.float32], card: ModelCard) -> NDArray[np.uint8]:
    """Labels `(y, x)` from logits, by the card's rule."""
    if card.decision.rule == "argmax":
        return logits_CHW.argmax(0).astype(np.uint8)
    thresholds = np.array(card.decision.thresholds, np.float32)
    if len(thresholds) == 1:
        return (logits_CHW[0] > np.log(thresholds[0] / (1 - thresholds[0]))).astype(np.uint8)
    factor_CHW = 1 / (1 + np.exp(-logits_CHW)) / thresholds[:, None, None]
    return np.where(factor_CHW.max(0) > 1, factor_CHW.argmax(0) + 1, 0).astype(np.uint8)


def compete(segment: Callable[[Job], None], description: str) -> None:
    """Run a peer's `segment` on what the command line asks, and print its seconds from file to labels on disk.

    Importing, loading the weights and one pass over a small tile come before the clock starts.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("slide", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--model", default="nuclei-small")
    parser.add_argument("--threads", type=int, default=THREADS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    network, card = load_network(given.model)
    with torch.inference_mode():
        network(torch.zeros(1, len(card.bands), 256, 256))
    given.labels.unlink(missing_ok=True)
    started = time.perf_counter()
    segment(Job(given.slide, given.labels, network, card, given.tile, given.threads))
    seconds = time.perf_counter() - started
    height, width = np.load(given.labels, mmap_mode="r").shape
    pixels = height * width
    print(json.dumps({"pixels": pixels, "seconds": seconds, "pixels_per_second": pixels / seconds}))
