"""Devices that steps run on. A device owns its own lock, so that callers may come from any number of threads."""

from __future__ import annotations

import functools
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unet_core.bounds import footprint
from unet_core.errors import PredictionError
from unet_core.inference.allocator import keep_memory

logger = logging.getLogger(__name__)

Array = NDArray[Any]

_CPU_SAYS_FULL = ("not enough memory", "can't allocate memory", "defaultcpuallocator")


@dataclass(frozen=True, slots=True)
class Computed:
    """Result that came back from the device. `seconds` of computing: waiting for the device and copies don't count."""

    arrays: tuple[Array, ...]
    seconds: float


class Device(ABC):
    """Runs steps: modules that map one tile `(y, x, band)` to a tuple of small tensors."""

    torch_device: torch.device
    compiles: bool
    """True if compiling a network pays here."""
    strips: bool
    """True if large regions are computed strip by strip here."""

    @abstractmethod
    def run(self, tile_HWC: Array, step: nn.Module) -> Computed:
        """Copy the tile in, run the step, copy its tensors out."""

    def ready(self, step: nn.Module, tile_HWC: Array) -> nn.Module:
        """The step as this device runs it fastest, for tiles of this shape and dtype that come many times."""
        return step


class CpuDevice(Device):
    """The processor: one step at a time, in the threads that torch was given."""

    # Fused operators run as fast as compiled ones here, and half a minute sooner.
    compiles = False
    strips = True

    def __init__(self) -> None:
        keep_memory()
        self.torch_device = torch.device("cpu")
        self._lock = threading.Lock()

    def run(self, tile_HWC: Array, step: nn.Module) -> Computed:
        with self._lock, torch.inference_mode():
            start = time.perf_counter()
            outputs = self.forward(torch.from_numpy(tile_HWC), step)
            return Computed(tuple(output.numpy() for output in outputs), time.perf_counter() - start)

    def forward(self, tile_HWC: Tensor, step: nn.Module) -> Sequence[Tensor]:
        """One step, the lock held."""
        return cast("Sequence[Tensor]", step(tile_HWC))


@dataclass(slots=True)
class _CopyStream:
    """Copy stream of one thread to and from the GPU, with page-locked memory for it."""

    copies: torch.cuda.Stream
    pinned: dict[tuple[object, ...], Tensor] = field(default_factory=dict[tuple[object, ...], Tensor])

    def hold(self, name: object, like: Tensor) -> Tensor:
        """Page-locked memory of that shape and dtype, the same one from tile to tile."""
        key = (name, tuple(like.shape), like.dtype)
        if key not in self.pinned:
            self.pinned[key] = torch.empty(like.shape, dtype=like.dtype, pin_memory=True)
        return self.pinned[key]


class CudaDevice(Device):
    """A GPU. All steps compute in one stream, one after the other; every thread copies in a stream of its own.

    So while one thread's tile computes, another's is on its way in and a third's labels are on their way out.
    The lock is held while work is queued, never while it runs.
    """

    compiles = True
    # Its memory is large, and it is fast on large tensors alone.
    strips = False

    def __init__(self, name: str) -> None:
        self.torch_device = torch.device(name)
        # TF32 keeps 10 bits of a float32's 23: its labels would not be those of a float32 pass.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
        self._compute = torch.cuda.Stream(self.torch_device)
        self._pool = torch.cuda.graph_pool_handle()
        self._lock = threading.Lock()
        self._local = threading.local()

    def run(self, tile_HWC: Array, step: nn.Module) -> Computed:
        with torch.cuda.device(self.torch_device), torch.inference_mode():
            lane = self._copy_stream()
            host = torch.from_numpy(tile_HWC)
            pinned = lane.hold("tile", host)
            pinned.copy_(host)
            with torch.cuda.stream(lane.copies):
                tile = pinned.to(self.torch_device, non_blocking=True)
                arrived = torch.cuda.Event()
                arrived.record()
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            with self._lock, torch.cuda.stream(self._compute):
                self._compute.wait_event(arrived)
                start.record()
                outputs = cast("Sequence[Tensor]", step(tile))
                end.record()
            with torch.cuda.stream(lane.copies):
                lane.copies.wait_event(end)
                landed = [lane.hold(place, out).copy_(out, non_blocking=True) for place, out in enumerate(outputs)]
            # All that this tile used is done with after this wait, so its memory may go back to either stream.
            lane.copies.synchronize()
            return Computed(tuple(out.numpy().copy() for out in landed), start.elapsed_time(end) / 1000)

    def ready(self, step: nn.Module, tile_HWC: Array) -> nn.Module:
        """The step as a CUDA graph: one launch for all its kernels. Stays as it is where that can't be had."""
        with torch.cuda.device(self.torch_device), torch.inference_mode(), self._lock:
            tile = torch.from_numpy(tile_HWC).to(self.torch_device)
            _warm_up(step, tile, self._compute)
            try:
                return _Captured(step, tile, self._compute, self._pool)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                logger.warning("no CUDA graph (%s); kernels are launched one by one", error)
                return step

    def _copy_stream(self) -> _CopyStream:
        if not hasattr(self._local, "lane"):
            self._local.lane = _CopyStream(torch.cuda.Stream(self.torch_device))
        return cast("_CopyStream", self._local.lane)


def _warm_up(step: nn.Module, tile_HWC: Tensor, stream: torch.cuda.Stream) -> None:
    """The first passes load kernels and let cuDNN time its own, neither of which may be recorded."""
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(tile_HWC)
    stream.synchronize()


class _Captured(nn.Module):
    """A step recorded as a CUDA graph. It reads and writes fixed memory, so only one replay runs at a time."""

    def __init__(self, step: nn.Module, tile_HWC: Tensor, stream: torch.cuda.Stream, pool: Any) -> None:
        super().__init__()
        self._tile = tile_HWC
        self._graph = torch.cuda.CUDAGraph()
        # Other threads go on copying while this one records.
        with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            self._outputs = cast("Sequence[Tensor]", step(self._tile))

    def forward(self, tile_HWC: Tensor) -> list[Tensor]:
        self._tile.copy_(tile_HWC, non_blocking=True)
        self._graph.replay()
        return [output.clone() for output in self._outputs]


@functools.cache
def device_for(name: str) -> Device:
    """The device of that name, one object per process, so that all models on it share its lock."""
    return CudaDevice(name) if torch.device(name).type == "cuda" else CpuDevice()


def device_name(asked: Literal["auto", "cpu", "cuda"]) -> str:
    """The device of this process: `auto` takes a GPU where there is one.

    Raises PredictionError where a GPU is asked for and torch finds none.
    """
    has_gpu = torch.cuda.is_available() if asked != "cpu" else False
    if asked == "cuda" and not has_gpu:
        raise PredictionError(
            f"device cuda needs a GPU, and torch {torch.__version__} finds none: give device cpu, or install the torch "
            f"that fits the driver"
        )
    return "cuda" if has_gpu else "cpu"


@contextmanager
def few_threads(most: int) -> Generator[None]:
    """While inside, torch computes in so many threads at most: it counts processors that a quota doesn't grant."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, most)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def is_out_of_memory(error: BaseException) -> bool:
    """True if a step failed for want of memory, on a GPU or on a CPU, where torch has no type for it."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _CPU_SAYS_FULL)


def is_compiler_failure(error: BaseException) -> bool:
    """True if compiling failed, as where no C++ compiler or Triton is installed, and not the network itself."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))


def as_tile(tile_HWC: NDArray[np.generic]) -> Array:
    """The tile as torch takes it: writable memory in row order; copied only where it isn't that already."""
    return np.require(tile_HWC, requirements=["C", "W"])


def warm_up() -> None:
    """Infer a tiny footprint: the first one of a process loads several hundred modules."""
    footprint(nn.Conv2d(1, 1, 3, padding=1), 1)
