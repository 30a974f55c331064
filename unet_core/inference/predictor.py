"""Tiles in, labels out, as fast as the device allows.

What makes it fast, and keeps the labels: batch norm folded into the convolution before it, channels-last
memory, inference mode, each layer computed only where the core needs it (`unet_core.bounds`), fewer passes over
memory (`unet_core.inference.fusing`) that is kept from tile to tile (`unet_core.inference.allocator`), and one byte
per pixel leaving the device.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from unet_core.bounds import Edges, has_strips, inferred, minimal, minimal_strips
from unet_core.bounds.footprint import footprint_of
from unet_core.bundles.bundle import Bundle
from unet_core.errors import PredictionError
from unet_core.inference.decision import Decide, decide
from unet_core.inference.device import Array, Device, as_tile, device_for, is_compiler_failure, is_out_of_memory
from unet_core.inference.fusing import fold, fuse
from unet_core.inference.output_region import OutputRegion, halve
from unet_core.inference.step import Normalize, Pass, Step, StripStep
from unet_core.inference.strip_height import STRIP_PX, strip_height
from unet_core.inference.tta import SYMMETRIES, Symmetry, Tta, tta_footprint

logger = logging.getLogger(__name__)

__all__ = ["MATHS_VERSION", "OutputRegion", "Precision", "Prediction", "Predictor", "Tta", "decide", "fold"]

MATHS_VERSION = 1
"""Raised by every change that can change a label, so that no run resumes across it."""

Precision = Literal["float32", "bfloat16", "float16"]
_DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# A plan has a handful of kinds of tiles (inside, and along each side); a worker has a few plans.
_STEPS_KEPT = 64

_Key = tuple[tuple[int, int], OutputRegion, bool]


@dataclass(frozen=True, slots=True)
class Prediction:
    """Prediction of one region.

    labels: `(y, x)` uint8. probabilities: `(class, y, x)` uint8, 255 being certainty, where they were asked
    for. seconds: of computing; waiting for the device, which other threads may hold, doesn't count.
    """

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.uint8] | None
    seconds: float


class Predictor:
    """A network ready to label tiles on one device. Any number of threads may predict at once.

    Args:
        bundle: the model.
        precision: the dtype of the network's arithmetic.
        device: where it runs: a torch device's name, or a device.
        tta: test-time augmentation; reads must hold `tta_footprint`'s halo then.
        compiled: whether to compile the network for tiles inside the image (minutes at first); None: where it
            pays, on a GPU.
        approximate: whether to run a network without finite bounds, on its reads as they are.
        strip_px: input pixels of a strip. On a processor larger regions are computed strip by strip, so that they
            take the memory of a strip; regions of no more are computed as a whole.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        precision: Precision = "float32",
        device: str | Device = "cpu",
        tta: Tta = "none",
        compiled: bool | None = None,
        approximate: bool = False,
        strip_px: int = STRIP_PX,
    ) -> None:
        self._card = bundle.card
        self.device = device_for(device) if isinstance(device, str) else device
        self._compiled = self.device.compiles if compiled is None else compiled
        self._dtype = _DTYPES[precision]
        self._tta: Tta = tta
        self._approximate = approximate
        self._strip_px = strip_px
        folded = fold(bundle.module)
        self._recorded = inferred(folded, len(bundle.card.bands))
        self._footprint = footprint_of(self._recorded)
        self._augmented = tta_footprint(self._footprint, tta)
        self._network = folded.to(self.device.torch_device, self._dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._steps: OrderedDict[_Key, nn.Module] = OrderedDict()
        self._too_large: set[_Key] = set()
        self._building = threading.Lock()

    def predict(self, tile_HWC: NDArray[np.generic], region: OutputRegion) -> NDArray[np.uint8]:
        """Label the wanted region of one tile.

        Args:
            tile_HWC: the read, `(y, x, band)`, in the card's bands and dtype.
            region: which part of it is wanted.

        Returns:
            Labels `(y, x)` of the wanted region.

        Raises:
            PredictionError: other bands or another dtype than the card's, logits that aren't finite, or a
                device without memory for even the smallest part.
            FootprintError: a read that doesn't hold what the region needs.
        """
        return self.run(tile_HWC, region).labels

    def run(self, tile_HWC: NDArray[np.generic], region: OutputRegion, *, probabilities: bool = False) -> Prediction:
        """As `predict`, with 8-bit probabilities when asked, from the same forward pass."""
        self._check(tile_HWC)
        return self._run(as_tile(tile_HWC), region, probabilities)

    @property
    def stride(self) -> tuple[int, int]:
        """The network's stride along y and x, in pixels."""
        return self._recorded.stride

    @property
    def remainder(self) -> tuple[int, int]:
        """Remainder of a read that is a whole image beyond a multiple of the stride; 0 for padded networks."""
        return self._recorded.remainder(0), self._recorded.remainder(1)

    def whole(self, height: int, width: int) -> OutputRegion:
        """The region of a read that is the whole image: every side an edge, all that the network gives of it."""
        y, x = (self._recorded.extents(axis, px)[self._recorded.output] for axis, px in enumerate((height, width)))
        return OutputRegion.whole(y, x)

    def inside(self, core_px: int) -> tuple[tuple[int, int], OutputRegion]:
        """The read's shape, and the region, of a core of `core_px` square pixels with image on every side."""
        halo = self._augmented.halo_on_grid()
        core = (halo.top, halo.left, halo.top + core_px, halo.left + core_px)
        read = (core[2] + halo.bottom, core[3] + halo.right)
        edges = Edges(top=False, bottom=False, left=False, right=False)
        return read, OutputRegion(self._footprint.need(core, (0, 0)), edges)

    def _run(self, tile_HWC: Array, region: OutputRegion, probabilities: bool) -> Prediction:
        """Compute the region, or its halves where the device has no memory for the whole."""
        height, width = tile_HWC.shape[:2]
        key = ((height, width), region, probabilities)
        if key in self._too_large:
            return self._run_halves(tile_HWC, region, probabilities)
        try:
            computed = self.device.run(tile_HWC, self._step(key, tile_HWC))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._forget(key)
        else:
            is_finite, labels, *rest = computed.arrays
            if not is_finite:
                raise PredictionError(
                    "the network gave logits that are not finite: a label would be noise; "
                    "check the image for NaN and the model's weights, or use --precision float32"
                )
            return Prediction(labels, rest[0] if rest else None, computed.seconds)
        # Outside the handler: the error's frames would keep alive what the halves need.
        return self._run_halves(tile_HWC, region, probabilities)

    def _run_halves(self, tile_HWC: Array, region: OutputRegion, probabilities: bool) -> Prediction:
        height, width = tile_HWC.shape[:2]
        halves = None if self._approximate else halve(region, (height, width), self._augmented)
        if halves is None:
            raise PredictionError(
                f"{self.device.torch_device} has no memory for a region of {region.shape[0]} x {region.shape[1]} px, "
                f"which can't be cut further; use a smaller core, fewer workers or another device"
            )
        first, second = (
            self._run(as_tile(tile_HWC[part.rows, part.cols]), part.region, probabilities) for part in halves.parts
        )
        together = None
        if first.probabilities is not None and second.probabilities is not None:
            together = np.concatenate([first.probabilities, second.probabilities], axis=halves.axis + 1)
        labels = np.concatenate([first.labels, second.labels], axis=halves.axis)
        return Prediction(labels, together, first.seconds + second.seconds)

    def _step(self, key: _Key, tile_HWC: Array) -> nn.Module:
        """The step for one kind of tile."""
        with self._building:
            if key not in self._steps:
                self._steps[key] = self._build(key, tile_HWC)
                while len(self._steps) > _STEPS_KEPT:
                    self._steps.popitem(last=False)
            self._steps.move_to_end(key)
            return self._steps[key]

    def _build(self, key: _Key, tile_HWC: Array) -> nn.Module:
        region = key[1]
        step = self._assembled(key)
        if not region.is_inside:
            return step
        if self._compiled:
            try:
                self.device.run(tile_HWC, step)
            except RuntimeError as error:
                if not is_compiler_failure(error):
                    raise
                logger.warning("the network runs uncompiled (%s)", str(error).strip().split("\n")[0])
                self._compiled = False
                step = self._assembled(key)
        return self.device.ready(step, tile_HWC)

    def _assembled(self, key: _Key) -> nn.Module:
        read_px, region, probabilities = key
        height_px = self._strip_height_px(region)
        if height_px is not None:
            return self._in_strips(key, height_px)
        passes = [self._pass(symmetry, read_px, region) for symmetry in SYMMETRIES[self._tta]]
        step = Step(passes, Decide(self._card.decision), probabilities=probabilities).eval()
        return step.to(self.device.torch_device)

    def _strip_height_px(self, region: OutputRegion) -> int | None:
        """Height of the strips in which a region is computed, in input pixels; None where it is computed as a whole."""
        if not self.device.strips or self._compiled or self._approximate or self._tta != "none":
            return None
        if not has_strips(self._recorded):
            return None
        height, width = (int(px / scale) for px, scale in zip(region.shape, self._footprint.scale, strict=True))
        height_px = strip_height(self._strip_px, width, self._recorded.stride[0])
        return height_px if height_px < height else None

    def _in_strips(self, key: _Key, height_px: int) -> nn.Module:
        read_px, region, probabilities = key
        strips = minimal_strips(
            self._network,
            len(self._card.bands),
            read_px=read_px,
            need=region.need,
            edges=region.edges,
            height_px=height_px,
            network=self._recorded,
            rewrite=self._fuse,
        )
        normalize = Normalize(self._card.normalization, read_px[1], self._dtype)
        return StripStep(strips, normalize, Decide(self._card.decision), probabilities=probabilities).eval()

    def _pass(self, symmetry: Symmetry, read_px: tuple[int, int], region: OutputRegion) -> Pass:
        read = symmetry.of_read(read_px)
        network = self._minimal(read, symmetry.of_region(region, read_px, self._footprint))
        return Pass(network, symmetry, self._card.normalization, read[1], self._dtype)

    def _minimal(self, read_px: tuple[int, int], region: OutputRegion) -> nn.Module:
        """The network for one kind of read: only what the region needs."""
        if self._approximate:
            return _Cut(self._network, region)
        graph = minimal(
            self._network,
            len(self._card.bands),
            read_px=read_px,
            need=region.need,
            edges=region.edges,
            network=self._recorded,
            rewrite=None if self._compiled else self._fuse,
        )
        if not self._compiled:
            return graph
        # Kinds of tiles at the image's edges are many and their tiles few: those would compile for nothing.
        return cast("nn.Module", torch.compile(graph, dynamic=False)) if region.is_inside else graph

    def _fuse(self, graph: fx.Graph) -> None:
        fuse(graph, self.device.torch_device.type, self._dtype)

    def _forget(self, key: _Key) -> None:
        """Remember that this kind of tile is too large, and give back what was kept for it."""
        self._too_large.add(key)
        with self._building:
            self._steps.pop(key, None)
        if self.device.torch_device.type == "cuda":
            torch.cuda.empty_cache()

    def _check(self, tile_HWC: NDArray[np.generic]) -> None:
        bands, dtype = len(self._card.bands), self._card.dtype
        if tile_HWC.ndim != 3 or tile_HWC.shape[-1] != bands or tile_HWC.dtype != np.dtype(dtype):
            raise PredictionError(
                f"model {self._card.name} takes {bands} band(s) of {dtype}, this tile is {tile_HWC.shape} of "
                f"{tile_HWC.dtype}; use a model for such images or convert them"
            )


class _Cut(nn.Module):
    """A network run on a read as it is, with the wanted region cut out of its logits."""

    def __init__(self, network: nn.Module, region: OutputRegion) -> None:
        super().__init__()
        self.network = network
        self.need = region.need

    def forward(self, inputs_NCHW: Tensor) -> Tensor:
        y0, x0, y1, x1 = self.need
        return cast("Tensor", self.network(inputs_NCHW))[:, :, y0:y1, x0:x1]
