"""Hardware of this machine, found out by computing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from unet_core.inference.precision import lacks_bfloat16


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One GPU as torch sees it. `failure` says why it can't compute, where it can't."""

    name: str
    memory_bytes: int
    failure: str | None
    lacks_bfloat16: str | None


@dataclass(frozen=True, slots=True)
class Machine:
    """The processor and the GPUs.

    Attributes:
        torch: version, with its local part.
        cuda: the CUDA that torch was built for; None for a CPU build.
        vectors: the widest instructions that torch uses: AVX512, AVX2, NEON, … or DEFAULT for none.
        lacks_bfloat16: why the processor doesn't multiply bfloat16 natively; None where it does.
        accelerators: the GPUs, in torch's order.
    """

    torch: str
    cuda: str | None
    vectors: str
    lacks_bfloat16: str | None
    accelerators: tuple[Accelerator, ...]


def detect_machine() -> Machine:
    """Ask torch, and let every GPU compute something small."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return Machine(
        torch=torch.__version__,
        cuda=torch.version.cuda,
        vectors=torch.backends.cpu.get_cpu_capability(),
        lacks_bfloat16=lacks_bfloat16("cpu"),
        accelerators=tuple(_detect_gpu(index) for index in range(count)),
    )


def _detect_gpu(index: int) -> Accelerator:
    device = f"cuda:{index}"
    facts = torch.cuda.get_device_properties(index)
    failure = None
    try:
        with torch.inference_mode():
            nn.Conv2d(1, 1, 3, device=device)(torch.ones(1, 1, 8, 8, device=device)).sum().item()
    except RuntimeError as error:
        failure = str(error).splitlines()[0]
    return Accelerator(facts.name, facts.total_memory, failure, lacks_bfloat16(device))
