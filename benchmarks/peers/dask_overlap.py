# pyright: basic, reportMissingImports=false, reportArgumentType=false, reportPrivateImportUsage=false
"""dask's `map_overlap` with a halo of 96 px, chunk by chunk: exact for this network, because 96 is a multiple of
its stride and more than its halo, and because `boundary="none"` lets the network meet the image's edge."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import tifffile
import torch
import zarr

from benchmarks.peers.inputs import Job, compete, labels_of, normalised

HALO_PX = 96


def segment(job: Job) -> None:
    stored = zarr.open_array(tifffile.imread(job.slide, key=0, aszarr=True), mode="r")
    image = da.from_zarr(stored).rechunk((job.tile_px, job.tile_px, 3))
    overlapped = da.overlap.overlap(image, depth={0: HALO_PX, 1: HALO_PX, 2: 0}, boundary="none")
    labels = overlapped.map_blocks(_label, job, dtype=np.uint8, drop_axis=2)
    labels = da.overlap.trim_internal(labels, {0: HALO_PX, 1: HALO_PX}, boundary="none")
    target = np.lib.format.open_memmap(job.labels, mode="w+", dtype=np.uint8, shape=image.shape[:2])
    # One task per core, each of one thread: faster than one task at a time whose convolutions use all threads.
    torch.set_num_threads(1)
    with dask.config.set(scheduler="threads", num_workers=job.threads):
        da.store(labels, target, lock=False)
    target.flush()


def _label(tile_YXC: np.ndarray, job: Job) -> np.ndarray:
    if tile_YXC.size == 0:
        return np.zeros(tile_YXC.shape[:2], np.uint8)
    with torch.inference_mode():
        return labels_of(job.network(normalised(tile_YXC, job.card))[0].numpy(), job.card)


if __name__ == "__main__":
    compete(segment, "dask map_overlap")
