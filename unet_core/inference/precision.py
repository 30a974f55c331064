"""Choice of precision: bfloat16 where the hardware has it and this image's labels don't suffer."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unet_core.bundles.bundle import Bundle
from unet_core.errors import PredictionError
from unet_core.inference.predictor import Precision, Predictor

AGREEMENT_WANTED = 0.999

CPU_INFO = Path("/proc/cpuinfo")
# Linux names a processor's abilities so: x86 (vdpbf16ps and the AMX tiles) and Arm (FEAT_BF16).
_CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
_AMPERE = (8, 0)  # the first GPUs that multiply bfloat16


@dataclass(frozen=True, slots=True)
class PrecisionChoice:
    """agreement: the share of sample pixels whose label is float32's; None where nothing was measured."""

    precision: Precision
    agreement: float | None
    reason: str


def choose_precision(
    bundle: Bundle, samples: Sequence[NDArray[np.generic]], device: str = "cpu", *, approximate: bool = False
) -> PrecisionChoice:
    """bfloat16 where the device multiplies it natively and at least 99.9 % of the samples' labels agree.

    Args:
        bundle: the model.
        samples: tiles `(y, x, band)` of the image in the card's dtype, from where there is something to see.
        device: where the run will compute.
        approximate: for a network without finite bounds.
    """
    lacking = lacks_bfloat16(device)
    if lacking is not None:
        return PrecisionChoice("float32", None, f"float32: {lacking}")
    exact = Predictor(bundle, device=device, compiled=False, approximate=approximate)
    rounded = Predictor(bundle, precision="bfloat16", device=device, compiled=False, approximate=approximate)
    pixels = same = 0
    for sample in samples:
        tile = _on_grid(sample, exact)
        if tile.size == 0:
            continue
        region = exact.whole(*tile.shape[:2])
        expected = exact.predict(tile, region)
        try:
            labels = rounded.predict(tile, region)
        except PredictionError as error:
            return PrecisionChoice("float32", None, f"float32: bfloat16 fails on a sample tile ({error})")
        pixels += labels.size
        same += int(np.count_nonzero(labels == expected))
    if not pixels:
        return PrecisionChoice("float32", None, "float32: there is no sample tile to compare bfloat16 on")
    agreement = same / pixels
    share = f"{100 * agreement:.4f} % of {pixels / 1e6:.1f} million labels of sample tiles agree with float32"
    if agreement < AGREEMENT_WANTED:
        return PrecisionChoice("float32", agreement, f"float32: in bfloat16 only {share}")
    return PrecisionChoice("bfloat16", agreement, f"bfloat16: native here, and {share}")


def lacks_bfloat16(device: str) -> str | None:
    """Reason why the device doesn't multiply bfloat16 natively; None where it does."""
    if torch.device(device).type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability >= _AMPERE:
            return None
        return f"compute capability {capability[0]}.{capability[1]} has no bfloat16 arithmetic (8.0 and up have)"
    if _cpu_flags() & _CPU_FLAGS:
        return None
    return f"this processor ({platform.machine()}) has no bfloat16 arithmetic (AVX-512 BF16, AMX or Arm BF16)"


def _cpu_flags() -> set[str]:
    """Flags of the processor, as far as the system shows them."""
    try:
        text = CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    lines = (line.partition(":") for line in text.splitlines())
    return {flag for name, _, flags in lines if name.strip() in {"flags", "Features"} for flag in flags.split()}


def _on_grid(tile_HWC: NDArray[np.generic], predictor: Predictor) -> NDArray[np.generic]:
    """As much of the tile as the network is made for."""
    sides = zip(tile_HWC.shape[:2], predictor.stride, predictor.remainder, strict=True)
    height, width = (max(0, side - (side - rest) % stride) for side, stride, rest in sides)
    return tile_HWC[:height, :width]
