# pyright: basic, reportMissingImports=false
"""MONAI's `sliding_window_inference`: overlap 0.25, gaussian blending, the whole image in memory."""

from __future__ import annotations

import numpy as np
import tifffile
import torch
from monai.inferers import sliding_window_inference

from benchmarks.peers.inputs import Job, compete, labels_of, normalised

OVERLAP = 0.25
BATCH = 1  # the fastest on two cores; 4 takes up to half as long again


def segment(job: Job) -> None:
    inputs_NCHW = normalised(tifffile.imread(job.slide, key=0), job.card)
    with torch.inference_mode():
        logits_NCHW = sliding_window_inference(
            inputs_NCHW, (job.tile_px, job.tile_px), BATCH, job.network, overlap=OVERLAP, mode="gaussian"
        )
    np.save(job.labels, labels_of(logits_NCHW[0].numpy(), job.card))


if __name__ == "__main__":
    compete(segment, "MONAI sliding window")
