# pyright: basic, reportMissingImports=false, reportArgumentType=false, reportPrivateImportUsage=false
"""pytorch-toolbelt's `ImageSlicer` and `TileMerger`, as its README shows them: steps of three quarters of a tile,
pyramid weights."""

from __future__ import annotations

import benchmarks.peers.torchvision_ops  # noqa: F401  # isort: skip

import numpy as np
import tifffile
import torch
from pytorch_toolbelt.inference.tiles import ImageSlicer, TileMerger
from torch.utils.data import DataLoader

from benchmarks.peers.inputs import Job, compete, labels_of, normalised

BATCH = 1  # the fastest on two cores; 4 takes up to half as long again


def segment(job: Job) -> None:
    image_YXC = tifffile.imread(job.slide, key=0)
    slicer = ImageSlicer(image_YXC.shape, job.tile_px, job.tile_px * 3 // 4, weight="pyramid")
    tiles = [normalised(tile_HWC, job.card)[0] for tile_HWC in slicer.split(image_YXC)]
    merger = TileMerger(slicer.target_shape, channels=1, weight=slicer.weight)
    pairs = list(zip(tiles, slicer.crops, strict=True))
    with torch.inference_mode():
        for tiles_NCHW, crops in DataLoader(pairs, batch_size=BATCH):
            merger.integrate_batch(job.network(tiles_NCHW), crops)
    merged_YXC = np.moveaxis(merger.merge().numpy(), 0, -1)
    logits_YXC = slicer.crop_to_orignal_size(merged_YXC)
    np.save(job.labels, labels_of(np.moveaxis(logits_YXC, -1, 0), job.card))


if __name__ == "__main__":
    compete(segment, "pytorch-toolbelt tiles")
