"""The machine's limit: the predictor's own network, bare, on tiles in memory; no halo, no file, no other work.

    python -m benchmarks.limit --precision bfloat16 --tile 512 --processes 2 --threads 1

Two forms are measured and the faster one is the limit: the folded channels-last network alone (float input ready
made, logits thrown away), and the predictor's own `predict` on whole uint8 tiles. Only what all processes did
during the time that they share is counted. A third form, `minimal`, is no limit but a step on the way: the
predictor on reads in memory whose halo is real, counted in core pixels.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

import numpy as np
import torch
from numpy.typing import NDArray

from unet_core.bounds import Edges, footprint
from unet_core.bundles.bundle import Bundle, load_bundle
from unet_core.inference.predictor import OutputRegion, Precision, Predictor, fold

INSIDE = Edges(top=False, bottom=False, left=False, right=False)
WHOLE = Edges(top=True, bottom=True, left=True, right=True)
SEED = 7


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How the machine is used: so many processes of so many threads, on square tiles."""

    precision: Precision
    tile_px: int
    processes: int
    threads: int
    form: str  # "network", "predictor" or "minimal"
    model: str
    seconds: float


def step_of(asked: Arrangement) -> Callable[[], object]:
    """One tile's work, with everything that can be done beforehand done."""
    bundle = load_bundle(asked.model)
    if asked.form == "network":
        return _bare(bundle, asked.precision, torch.from_numpy(_noise(asked.tile_px, bundle)))
    predictor = Predictor(bundle, precision=asked.precision)
    if asked.form == "predictor":
        halo_px, edges = 0, WHOLE
    else:
        found = footprint(bundle.module, len(bundle.card.bands))
        # A little more than the halo where that is off the stride grid, as a plan reads it.
        halo_px, edges = -(-found.halo.top // found.stride[0]) * found.stride[0], INSIDE
    tile_HWC = _noise(asked.tile_px + 2 * halo_px, bundle)
    region = OutputRegion((halo_px, halo_px, halo_px + asked.tile_px, halo_px + asked.tile_px), edges)
    return lambda: predictor.predict(tile_HWC, region)


def _noise(side_px: int, bundle: Bundle) -> NDArray[np.uint8]:
    return np.random.default_rng(SEED).integers(0, 256, (side_px, side_px, len(bundle.card.bands)), np.uint8)


def _bare(bundle: Bundle, precision: Precision, tile_HWC: torch.Tensor) -> Callable[[], object]:
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    network = fold(bundle.module).to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs_NCHW = (tile_HWC.permute(2, 0, 1).unsqueeze(0).float() / 128 - 1).to(dtype)
    inputs_NCHW = inputs_NCHW.contiguous(memory_format=torch.channels_last)

    def step() -> torch.Tensor:
        with torch.inference_mode():
            return network(inputs_NCHW)

    return step


def _work(asked: Arrangement, start: Barrier, ends: Queue[list[float]]) -> None:
    torch.set_num_threads(asked.threads)
    step = step_of(asked)
    step()
    step()
    start.wait()
    moments = [time.perf_counter()]
    while moments[-1] - moments[0] < asked.seconds:
        step()
        moments.append(time.perf_counter())
    ends.put(moments)


def shared_rate(moments: list[list[float]], pixels: int) -> float:
    """Pixels per second of all processes together, over the interval that they share.

    Args:
        moments: for each process, when it began and when each of its tiles was ready; one clock for all.
        pixels: of one tile.
    """
    begin, end = max(each[0] for each in moments), min(each[-1] for each in moments)
    tiles = sum(np.interp([begin, end], each, np.arange(len(each))) @ [-1, 1] for each in moments)
    return float(tiles) * pixels / (end - begin)


def measure(asked: Arrangement) -> float:
    """Pixels per second of one arrangement."""
    spawn = get_context("spawn")
    start, ends = spawn.Barrier(asked.processes), spawn.Queue()
    workers = [spawn.Process(target=_work, args=(asked, start, ends)) for _ in range(asked.processes)]
    for worker in workers:
        worker.start()
    moments = [ends.get(timeout=120 + 10 * asked.seconds) for _ in workers]
    for worker in workers:
        worker.join()
    return shared_rate(moments, asked.tile_px**2)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the bare forward pass.")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--form", choices=("network", "predictor", "minimal"), default="network")
    parser.add_argument("--model", default="nuclei-small")
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    asked = Arrangement(
        given.precision, given.tile, given.processes, given.threads, given.form, given.model, given.seconds
    )
    print(json.dumps({**asdict(asked), "pixels_per_second": measure(asked)}))


if __name__ == "__main__":
    main()
