"""The reference: labels of one float32 pass of the plain network over the whole image.

    python -m benchmarks.reference slide.svs labels.npy

The network is the bundle's module as it comes: not folded, not channels-last, not cut. It takes about 350 bytes
per pixel for the 16-channel U-Net, so it is for slides that fit. What differs is counted in bounded memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray

from benchmarks.peers.inputs import labels_of, load_network, normalised
from tiling.geometry import Box
from tiling.runs.run import Run

ROWS_AT_ONCE = 1024


def write_reference(slide: Path, model: str, target: Path) -> None:
    """Label the whole slide in one pass and save the labels `(y, x)` as npy."""
    network, card = load_network(model)
    pixels_YXC = tifffile.imread(slide, key=0)
    with torch.inference_mode():
        inputs_NCHW = normalised(pixels_YXC, card)
        labels_HW = labels_of(network(inputs_NCHW)[0].numpy(), card)
    partial = target.with_name(f".{target.name}.npy")
    np.save(partial, labels_HW)
    partial.rename(target)


def name_of(slide: Path, digest: str) -> str:
    """A name that changes with the slide's content and the weights."""
    content = hashlib.sha256(slide.read_bytes()).hexdigest()[:12]
    return f"reference-{content}-{digest[-12:]}.npy"


def differing(reference: Path, labels: Path) -> int:
    """Pixels whose label is another one than the reference's; `labels` is an npy file or a run folder."""
    expected_YX: NDArray[np.uint8] = np.load(reference, mmap_mode="r")
    height, width = expected_YX.shape
    if labels.is_dir():
        mask = Run.open(labels).open_mask(read_only=True)
        rows = (mask.read(Box(y, 0, min(y + ROWS_AT_ONCE, height), width)) for y in range(0, height, ROWS_AT_ONCE))
    else:
        found_YX: NDArray[np.uint8] = np.load(labels, mmap_mode="r")
        if found_YX.shape != expected_YX.shape:
            raise ValueError(f"{labels} has labels of {found_YX.shape}, the slide {expected_YX.shape} px")
        rows = (found_YX[y : y + ROWS_AT_ONCE] for y in range(0, height, ROWS_AT_ONCE))
    starts = range(0, height, ROWS_AT_ONCE)
    return sum(int((part != expected_YX[y : y + ROWS_AT_ONCE]).sum()) for y, part in zip(starts, rows, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description="Label a slide in one pass of the plain network.")
    parser.add_argument("slide", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--model", default="nuclei-small")
    given = parser.parse_args()
    write_reference(given.slide, given.model, given.target)
    print(json.dumps({"labels": str(given.target)}))


if __name__ == "__main__":
    main()
