"""Peak memory of a forward pass, known without running it."""

from __future__ import annotations

import math
from weakref import WeakKeyDictionary

import torch
from torch import fx, nn

from unet_core.bounds import has_strips, inferred
from unet_core.bounds.trace import record
from unet_core.inference.strip_height import STRIP_PX, strip_height

_Peaks = dict[tuple[int, tuple[int, int], str], int]

_known: WeakKeyDictionary[nn.Module, _Peaks] = WeakKeyDictionary()
"""Peaks of networks by bands, read and precision: an archive plans thousands of slides for one network."""

_can_be_cut: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Networks that can be computed in strips."""

_VIEWS = {"getitem", "permute", "view", "reshape", "contiguous", "narrow", "slice", "dropout"}


def activation_bytes(module: nn.Module, bands: int, read_px: tuple[int, int], precision: str) -> int:
    """Peak of the tensors that live at one time in a forward pass over one read, in bytes.

    Walks the recorded calls with shapes alone: a tensor lives from the call that makes it to the last one that
    uses it. Convolutions may take scratch space on top, for which the input of the heaviest call is counted once
    more.

    Args:
        module: the network.
        bands: channels of its input.
        read_px: height and width of the read.
        precision: of the arithmetic: float32, bfloat16 or float16.

    Raises:
        FootprintError: a network that can't be recorded on such reads.
    """
    peaks = _known.setdefault(module, {})
    key = bands, read_px, precision
    if key not in peaks:
        peaks[key] = _peak(module, bands, read_px, _itemsize(getattr(torch, precision)))
    return peaks[key]


def rows_at_once(
    module: nn.Module, bands: int, read_px: tuple[int, int], stride: tuple[int, int], halo: tuple[int, int, int, int]
) -> int:
    """Rows of a read that the network sees at one time at most, where a processor computes large cores in strips.

    What a strip and the kept rows take together is no more than a pass over so many rows.

    Args:
        module: the network, with finite bounds.
        bands: channels of its input.
        read_px: height and width of the read.
        stride: the network's along y and x, in pixels.
        halo: top, bottom, left and right of the core, in pixels.
    """
    height, width = read_px
    top, bottom, left, right = (-(-side // stride[i // 2]) * stride[i // 2] for i, side in enumerate(halo))
    rows = strip_height(STRIP_PX, width - left - right, stride[0]) + top + bottom
    rows += (height - rows) % stride[0]  # of networks that are made for extents off the stride grid
    if rows >= height:
        return height
    if module not in _can_be_cut:
        _can_be_cut[module] = has_strips(inferred(module, bands))
    return rows if _can_be_cut[module] else height


def _peak(module: nn.Module, bands: int, read_px: tuple[int, int], itemsize: int) -> int:
    nodes = [node for node in record(module, bands, read_px).nodes if node.op != "output"]
    sizes = {node: _bytes(node, itemsize) for node in nodes}
    last_use = {argument: position for position, node in enumerate(nodes) for argument in node.all_input_nodes}
    live = peak = 0
    for position, node in enumerate(nodes):
        live += sizes[node]
        scratch = max((sizes[argument] for argument in node.all_input_nodes), default=0)
        peak = max(peak, live + scratch)
        live -= sum(sizes[other] for other in {*node.all_input_nodes} if last_use[other] == position)
    return peak


def _bytes(node: fx.Node, itemsize: int) -> int:
    """Bytes of a call's result: nothing for parameters, which are there anyway, and for views.

    Of a call with several results the items count.
    """
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if node.meta["constant"] or node.meta.get("many") or name in _VIEWS:
        return 0
    dtype: torch.dtype = node.meta["dtype"]
    return math.prod(node.meta["shape"]) * (itemsize if dtype.is_floating_point else _itemsize(dtype))


def _itemsize(dtype: torch.dtype) -> int:
    return torch.empty(0, dtype=dtype).element_size()
