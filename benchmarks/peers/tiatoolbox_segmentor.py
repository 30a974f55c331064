# pyright: basic, reportMissingImports=false, reportArgumentType=false, reportPrivateImportUsage=false
"""TIAToolbox's `SemanticSegmentor`: tiles of 512 px whose inner 320 px are kept, merged on its canvas, saved as Zarr.

Its release 2.1.3 pins torch < 2.13; here it runs on the torch of all the others.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import benchmarks.peers.torchvision_ops  # noqa: F401  # isort: skip

import numpy as np
import torch
import zarr
from tiatoolbox.models.engine.io_config import IOSegmentorConfig
from tiatoolbox.models.engine.semantic_segmentor import SemanticSegmentor
from tiatoolbox.models.models_abc import ModelABC

from benchmarks.peers.inputs import Job, compete

KEPT_PX = 320
BATCH = 1  # the fastest on two cores; 4 takes up to half as long again
BASELINE = ({"units": "baseline", "resolution": 1.0},)


class Wrapped(ModelABC):
    """The network in TIAToolbox's clothes; it hands back what 512 px tiles say of their inner 320 px."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.network = job.network
        self.mean = torch.tensor(job.card.normalization.mean).view(1, -1, 1, 1)
        self.scale = 1.0 / torch.tensor(job.card.normalization.std).view(1, -1, 1, 1)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.network((images_NCHW - self.mean) * self.scale))

    @staticmethod
    def infer_batch(model: Wrapped, batch_data: torch.Tensor, *, device: str) -> np.ndarray:
        del device
        with torch.inference_mode():
            found_NCHW = model(batch_data.permute(0, 3, 1, 2).float().contiguous())
        start = (found_NCHW.shape[-1] - KEPT_PX) // 2
        inner = slice(start, start + KEPT_PX)
        return found_NCHW[:, :, inner, inner].permute(0, 2, 3, 1).numpy()

    @staticmethod
    def postproc(image: np.ndarray) -> np.ndarray:
        return (image[..., 0] > 0.5).astype(np.uint8)


def segment(job: Job) -> None:
    folder = job.labels.with_suffix(".tiatoolbox")
    shutil.rmtree(folder, ignore_errors=True)
    config = IOSegmentorConfig(
        input_resolutions=[*BASELINE],
        output_resolutions=[*BASELINE],
        patch_input_shape=(job.tile_px, job.tile_px),
        patch_output_shape=(KEPT_PX, KEPT_PX),
        stride_shape=(KEPT_PX, KEPT_PX),
        save_resolution=BASELINE[0],
    )
    engine = SemanticSegmentor(model=Wrapped(job), batch_size=BATCH, num_workers=0, device="cpu", verbose=False)
    found = engine.run(
        [job.slide],
        patch_mode=False,
        ioconfig=config,
        save_dir=folder,
        output_type="zarr",
        auto_get_mask=False,
        overwrite=True,
    )
    labels_YX = zarr.open_group(Path(found[job.slide]), mode="r")["predictions"][:]
    np.save(job.labels, np.asarray(labels_YX, np.uint8))


if __name__ == "__main__":
    compete(segment, "TIAToolbox semantic segmentor")
