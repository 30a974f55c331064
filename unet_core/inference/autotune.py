"""Tuning of the core's size: a short measurement, remembered per machine, network and precision.

A larger core computes less of its neighbours' halo again, and a core whose intermediates leave the processor's
cache waits for memory; which of the two wins is the machine's affair. A batch of reads is no candidate: one
read of the same area computes less.
"""

from __future__ import annotations

import functools
import heapq
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn

from unet_core.bounds import Network, has_strips, inferred, operations
from unet_core.bounds.footprint import footprint_of
from unet_core.bundles.bundle import Bundle
from unet_core.errors import FootprintError
from unet_core.files import cache_folder
from unet_core.inference.core_pace import is_quick, measured_rates
from unet_core.inference.memo import Memo
from unet_core.inference.memory import activation_bytes, rows_at_once
from unet_core.inference.tta import tta_footprint
from unet_core.inference.tuning_job import TuningJob

# In the order of measuring: the likely ones first, as the time may not suffice for all.
_CPU_CORES_PX, _GPU_CORES_PX = (512, 1024, 768, 1536), (2048, 4096, 1024, 3072)
_SMALL_CORES_PX = (384, 256, 128)
# Without a measurement: a core is large enough where the largest would save no more than this.
_WORTH_GROWING = 1.05
_COUNTED_UP_TO_PX = {"cpu": 1024, "cuda": 4096}
# Cores that a processor computes in strips, in the memory of a small one. They take long to measure, so they are
# counted, at the pace of strips (measured: 0.89 to 0.98 of a whole core's); and they skip less background than small
# ones, so they must save as much as this.
_STRIPPED_CORES_PX = (2048, 4096)
_STRIPS_PACE = 0.9
_WORTH_STRIPS = 1.25
_LONGEST_CORE_S = 120.0
_BALANCED_UP_TO_TILES = 4096


@dataclass(slots=True)
class _Cores:
    """Cores that a network may have.

    Attributes:
        fitting: those whose pass fits the memory, in the order of measuring.
        are_timed: whether timing them takes no longer than the budget; None until somebody asks.
        counted: the one that follows from the network alone; None until somebody asks.
        measured: rates that were asked about last. with_large: those, and what they say of cores in strips.
    """

    fitting: list[int]
    are_timed: bool | None = None
    counted: int | None = None
    measured: dict[int, float] = field(default_factory=dict[int, float])
    with_large: dict[int, float] = field(default_factory=dict[int, float])


_known: WeakKeyDictionary[nn.Module, dict[tuple[str, str, int, str], _Cores]] = WeakKeyDictionary()
"""Cores of networks by precision, device, memory and test-time augmentation: slides of an archive ask for the same."""


def measure_core(bundle: Bundle, job: TuningJob, memo: Memo | None = None) -> int:
    """The side of the core, in pixels, that labels an image soonest.

    The first call for a machine, network and precision takes about three seconds. Where the result can't be
    kept nothing is measured: the core then follows from the network alone and is the same in every run.
    """
    memo = memo or Memo(cache_folder() / "cores")
    cores, question = _cores(bundle, job), _question(bundle, job)
    answer = memo.recall(question)
    if answer is None and memo.is_open() and _are_timed(bundle, cores, job):
        rates = measured_rates(bundle, cores.fitting, job)
        answer = memo.keep(question, {str(core_px): rate for core_px, rate in rates.items()})
    rates = _rates(answer, cores.fitting)
    return _best(rates, bundle, cores, job) if rates else _counted(bundle, cores, job)


def recall_core(bundle: Bundle, job: TuningJob, memo: Memo | None = None) -> int | None:
    """Core that `measure_core` would give without measuring; None where it would have to measure."""
    memo = memo or Memo(cache_folder() / "cores")
    cores, answer = _cores(bundle, job), memo.recall(_question(bundle, job))
    if rates := _rates(answer, cores.fitting):
        return _best(rates, bundle, cores, job)
    would_measure = answer is None and memo.is_open() and _are_timed(bundle, cores, job)
    return None if would_measure else _counted(bundle, cores, job)


def _best(rates: dict[int, float], bundle: Bundle, cores: _Cores, job: TuningJob) -> int:
    if cores.measured != rates:
        network = inferred(bundle.module, len(bundle.card.bands))
        cores.measured, cores.with_large = rates, _with_large_cores(rates, bundle, network, job)
    return best_core(_useful(cores.with_large, job), job.extent, job.workers)


def _with_large_cores(rates: Mapping[int, float], bundle: Bundle, network: Network, job: TuningJob) -> dict[int, float]:
    """The rates with those of cores that are computed in strips, as counted from the fastest of the others."""
    if not job.in_strips or not has_strips(network):
        return dict(rates)
    bands, found = len(bundle.card.bands), dict(rates)
    fastest = max(sorted(rates), key=lambda core_px: rates[core_px])
    stride = int(np.lcm(*network.stride))
    try:
        counted = operations(bundle.module, bands, (fastest, fastest), network=network).ratio
        for wanted_px in _STRIPPED_CORES_PX:
            core_px = wanted_px - wanted_px % stride
            saved = _STRIPS_PACE * counted / operations(bundle.module, bands, (core_px, core_px), network=network).ratio
            rate = rates[fastest] * saved
            if (
                saved >= _WORTH_STRIPS
                and core_px**2 / rate <= _LONGEST_CORE_S
                and _bytes(bundle, network, core_px, job) <= job.memory_bytes
            ):
                found[core_px] = rate
    except FootprintError:
        return dict(rates)
    return found


def _useful(rates: Mapping[int, float], job: TuningJob) -> dict[int, float]:
    """The rates without cores in strips of which a smaller one holds the whole image."""
    if job.extent is None or job.device_type == "cuda":
        return dict(rates)
    side = max(job.extent)
    holding = min((core_px for core_px in rates if core_px >= side), default=max(rates))
    return {core_px: rate for core_px, rate in rates.items() if core_px <= max(holding, *_CPU_CORES_PX)}


def best_core(rates: Mapping[int, float], extent: tuple[int, int] | None, workers: int) -> int:
    """The core whose run ends first; of equals the smallest. `rates`: pixels per second of a worker, per core."""
    if extent is None:
        return max(sorted(rates), key=lambda core_px: rates[core_px])
    return min(sorted(rates), key=lambda core_px: _busiest_px(core_px, extent, workers) / rates[core_px])


def _busiest_px(core_px: int, extent: tuple[int, int], workers: int) -> float:
    """Pixels that the busiest worker labels, when each takes the next tile as soon as it is free."""
    heights, widths = ([min(core_px, side - start) for start in range(0, side, core_px)] for side in extent)
    if len(heights) * len(widths) > _BALANCED_UP_TO_TILES:
        return extent[0] * extent[1] / workers
    loads = [0] * workers
    for height in heights:
        for width in widths:
            heapq.heapreplace(loads, loads[0] + height * width)
    return max(loads)


def _fitting(bundle: Bundle, network: Network, job: TuningJob) -> list[int]:
    """Cores on the stride grid whose pass fits the memory, in the order of measuring; small ones only if need be."""
    stride = int(np.lcm(*tta_footprint(footprint_of(network), job.tta).stride))
    preferred = _GPU_CORES_PX if job.device_type == "cuda" else _CPU_CORES_PX
    cores = [max(stride, px - px % stride) for px in (*preferred, *_SMALL_CORES_PX)]
    fitting: list[int] = []
    for core_px in cores:
        if fitting and core_px < min(cores[: len(preferred)]):
            break
        if core_px not in fitting and _bytes(bundle, network, core_px, job) <= job.memory_bytes:
            fitting.append(core_px)
    return fitting or [cores[-1]]


def _cores(bundle: Bundle, job: TuningJob) -> _Cores:
    known, key = _known.setdefault(bundle.module, {}), (job.precision, job.device_type, job.memory_bytes, job.tta)
    if key not in known:
        known[key] = _Cores(_fitting(bundle, inferred(bundle.module, len(bundle.card.bands)), job))
    return known[key]


def _are_timed(bundle: Bundle, cores: _Cores, job: TuningJob) -> bool:
    """True if there is a choice, and the smallest core can be timed within the budget even on a slow machine."""
    if cores.are_timed is None:
        cores.are_timed = len(cores.fitting) > 1 and is_quick(bundle, cores.fitting, job)
    return cores.are_timed


def _bytes(bundle: Bundle, network: Network, core_px: int, job: TuningJob) -> int:
    """Bytes that a worker takes for a core inside the image and the network's intermediates."""
    found, bands = tta_footprint(footprint_of(network), job.tta), len(bundle.card.bands)
    halo = found.halo_on_grid()
    height = core_px + halo.top + halo.bottom + network.remainder(0)
    width = core_px + halo.left + halo.right + network.remainder(1)
    rows = height
    if job.in_strips:
        rows = rows_at_once(bundle.module, bands, (height, width), found.stride, halo.sides)
    tile_bytes = bands * width * (4 * height + 8 * rows)
    return tile_bytes + activation_bytes(bundle.module, bands, (rows, width), job.precision)


def _counted(bundle: Bundle, cores: _Cores, job: TuningJob) -> int:
    """The smallest core that computes little more than the largest would, by counting alone."""
    if cores.counted is None:
        most_px = _COUNTED_UP_TO_PX[job.device_type]
        allowed = sorted(px for px in cores.fitting if px <= most_px) or [min(cores.fitting)]
        cores.counted = _least_growing(bundle, allowed)
    return cores.counted


def _least_growing(bundle: Bundle, allowed: Sequence[int]) -> int:
    bands = len(bundle.card.bands)
    network = inferred(bundle.module, bands)
    try:
        ratios = [operations(bundle.module, bands, (px, px), network=network).ratio for px in allowed]
    except FootprintError:
        return allowed[0]
    return next(px for px, ratio in zip(allowed, ratios, strict=True) if ratio <= _WORTH_GROWING * min(ratios))


def _rates(answer: Mapping[str, Any] | None, fitting: Sequence[int]) -> dict[int, float]:
    """Rates that were kept, as far as they are about cores that fit."""
    kept = {px: (answer or {}).get(str(px)) for px in fitting}
    return {px: float(rate) for px, rate in kept.items() if isinstance(rate, (int, float)) and rate > 0}


def _question(bundle: Bundle, job: TuningJob) -> dict[str, Any]:
    """All that a rate depends on; weights don't matter."""
    card = bundle.card
    return {
        "machine": _machine(job),
        "torch": torch.__version__,
        "architecture": card.architecture,
        "parameters": card.parameters,
        "bands": len(card.bands),
        "dtype": card.dtype,
        "precision": job.precision,
        "tta": job.tta,
    }


def _machine(job: TuningJob) -> str:
    return torch.cuda.get_device_name(job.device) if job.device_type == "cuda" else _processor()


@functools.cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{platform.machine()} {name or platform.processor()}"
