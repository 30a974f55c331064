"""Pace of cores: how long one worker takes for them, measured on noise in processor time."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from unet_core.bounds import inferred, operations
from unet_core.bundles.bundle import Bundle
from unet_core.errors import FootprintError, PredictionError
from unet_core.inference.device import is_out_of_memory
from unet_core.inference.predictor import Predictor
from unet_core.inference.tta import SYMMETRIES
from unet_core.inference.tuning_job import TuningJob

BUDGET_S = 3.0
# Multiply-accumulates per second below which measuring would take too long.
_CPU_AT_LEAST, _GPU_AT_LEAST = 2e10, 2e13
_MEASURED_PX = 1024


def is_quick(bundle: Bundle, fitting: Sequence[int], job: TuningJob) -> bool:
    """True if the smallest core can be timed within the budget even on a slow machine."""
    try:
        counted = operations(bundle.module, len(bundle.card.bands), (min(fitting), min(fitting)))
    except FootprintError:
        return False
    least = _GPU_AT_LEAST if job.device_type == "cuda" else _CPU_AT_LEAST
    return 2 * counted.computed * len(SYMMETRIES[job.tta]) / least <= BUDGET_S


def measured_rates(bundle: Bundle, fitting: Sequence[int], job: TuningJob) -> dict[int, float]:
    """Pixels per second of one worker, for as many cores as the budget allows."""
    predictor = Predictor(bundle, precision=job.precision, device=job.device, tta=job.tta, compiled=False)
    rates: dict[int, float] = {}
    left, seconds_per_px = BUDGET_S, 0.0
    with _as_a_worker(job.device_type):
        for core_px in fitting:
            if rates and 2 * seconds_per_px * core_px**2 > left:
                continue
            began = time.perf_counter()
            try:
                seconds = _timed(predictor, bundle, core_px)
            except (PredictionError, RuntimeError, MemoryError) as error:
                if not isinstance(error, PredictionError) and not is_out_of_memory(error):
                    raise
                continue
            left -= time.perf_counter() - began
            seconds_per_px = seconds / core_px**2
            rates[core_px] = 1 / seconds_per_px
    return rates


def seconds_per_core(bundle: Bundle, job: TuningJob, core_px: int) -> float:
    """Seconds that one worker takes for a core inside the image.

    Measured on noise, in a second or two; of a core that is computed in strips a smaller one is measured, and the rest
    counted.
    """
    network = inferred(bundle.module, len(bundle.card.bands))
    is_bounded = all(operator.problem is None for operator in network.operators.values())
    predictor = Predictor(
        bundle, precision=job.precision, device=job.device, tta=job.tta, compiled=False, approximate=not is_bounded
    )
    measured_px = core_px
    if is_bounded and job.in_strips:
        stride = int(np.lcm(*network.stride))
        measured_px = min(core_px, max(stride, _MEASURED_PX - _MEASURED_PX % stride))
    with _as_a_worker(job.device_type):
        seconds = _timed(predictor, bundle, measured_px)
    if measured_px == core_px:
        return seconds
    all_of_it, measured = (
        operations(bundle.module, len(bundle.card.bands), (px, px), network=network) for px in (core_px, measured_px)
    )
    return seconds * all_of_it.computed / measured.computed


def _timed(predictor: Predictor, bundle: Bundle, core_px: int) -> float:
    """Seconds of one core inside the image; of the processor's time, so that other work doesn't count."""
    read_px, region = predictor.inside(core_px)
    noise = np.random.default_rng(0).integers(0, 256, (*read_px, len(bundle.card.bands)))
    tile_HWC = noise.astype(bundle.card.dtype)
    predictor.predict(tile_HWC, region)
    began = time.thread_time()
    device_s = predictor.run(tile_HWC, region).seconds
    on_cpu = predictor.device.torch_device.type == "cpu"
    return time.thread_time() - began if on_cpu else device_s


@contextmanager
def _as_a_worker(device_type: str) -> Generator[None]:
    """One thread, as each of the workers has."""
    threads = torch.get_num_threads()
    if device_type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
