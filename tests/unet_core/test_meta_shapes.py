"""Shapes of calls are those that torch itself returns; what isn't plain is left to torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from unet_core.bounds.shapes import result_of

PLAN = """
import sys
from unet_core.bounds import footprint
from unet_core.inference.memory import activation_bytes
from unet_core.models import build
module = build("unetpp", dict(bands=3, classes=2)).eval()
footprint(module, 3)
activation_bytes(module, 3, (512, 512), "bfloat16")
print(*{"sympy", "torch._dynamo"} & set(sys.modules))
"""


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


TILE, WEIGHT, VECTOR = empty(2, 8, 37, 64), empty(8, 8, 3, 3), empty(8)
KNOWN: dict[str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = {
    "conv": (torch.conv2d, (TILE, WEIGHT, VECTOR, (1, 1), (1, 1), (1, 1), 1), {}),
    "strided": (torch.conv2d, (TILE, WEIGHT), {"stride": 2, "padding": (0, 2)}),
    "dilated": (torch.conv2d, (TILE, WEIGHT), {"dilation": [3, 2]}),
    "grouped": (torch.conv2d, (TILE, empty(16, 2, 5, 1), empty(16)), {"groups": 4}),
    "transposed": (torch.conv_transpose2d, (TILE, empty(8, 5, 2, 2), empty(5), 2), {}),
    "transposed grouped": (torch.conv_transpose2d, (TILE, empty(8, 3, 3, 4), None, (2, 3), 1, (1, 2), 2, 3), {}),
    "pool": (functional.max_pool2d, (TILE, 2), {}),
    "pool padded": (functional.max_pool2d, (TILE, (3, 2), 2, 1), {"dilation": 2}),
    "pool ceil": (functional.max_pool2d, (TILE, 2, 2, 0, 1), {"ceil_mode": False, "return_indices": False}),
    "norm": (functional.batch_norm, (TILE, VECTOR, VECTOR, VECTOR, VECTOR, False, 0.1, 1e-5), {}),
    "norm without weights": (functional.batch_norm, (TILE, VECTOR, VECTOR), {}),
    "cat": (torch.cat, ([TILE, empty(2, 3, 37, 64)], 1), {}),
    "cat of rows": (torch.cat, ((TILE, empty(2, 8, 1, 64)),), {"dim": 2}),
    "leaky": (functional.leaky_relu, (TILE, 0.2), {}),
    "add": (torch.Tensor.add, (TILE, TILE), {}),
    "nearest": (functional.interpolate, (TILE,), {"scale_factor": 2}),
    "bilinear": (functional.interpolate, (TILE, None, 2.0, "bilinear", True), {}),
    "to a size": (functional.interpolate, (TILE,), {"size": (40, 41), "mode": "bilinear", "align_corners": False}),
    "to less": (functional.interpolate, (TILE,), {"scale_factor": (0.3, 0.7)}),
}
TORCHS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = {
    "channels that don't fit": (torch.conv2d, (TILE, empty(8, 7, 3, 3)), {}),
    "a kernel that is too large": (torch.conv2d, (TILE, empty(8, 8, 99, 3)), {}),
    "a bias that doesn't fit": (torch.conv2d, (TILE, WEIGHT, empty(7)), {}),
    "another dtype": (torch.conv2d, (TILE, empty(8, 8, 3, 3, dtype=torch.float64)), {}),
    "padding by name": (torch.conv2d, (TILE, WEIGHT), {"padding": "same"}),
    "a batch that is none": (torch.conv2d, (empty(8, 37, 64), WEIGHT), {}),
    "a call without a weight": (torch.conv2d, (TILE,), {}),
    "statistics of the tile": (functional.batch_norm, (TILE, VECTOR, VECTOR), {"training": True}),
    "too few statistics": (functional.batch_norm, (TILE, empty(7), VECTOR), {}),
    "rows that don't fit": (torch.cat, ([TILE, empty(2, 8, 36, 64)], 1), {}),
    "counted from the end": (torch.cat, ([TILE, TILE], -1), {}),
    "other strides": (functional.leaky_relu, (TILE.transpose(2, 3),), {}),
    "in place": (functional.leaky_relu, (TILE,), {"inplace": True}),
    "indices too": (functional.max_pool2d, (TILE, 2), {"return_indices": True}),
    "rounded up": (functional.max_pool2d, (TILE, 2), {"ceil_mode": True}),
    "padded by more than half": (functional.max_pool2d, (TILE, 2, 2, 2), {}),
    "broadcast": (torch.Tensor.add, (TILE, empty(1, 8, 1, 1)), {}),
    "of whole numbers": (torch.cat, ([empty(2, 3, dtype=torch.int64)] * 2,), {}),
    "size and scale": (functional.interpolate, (TILE, 40, 2), {}),
    "smoothed": (functional.interpolate, (TILE, 40), {"mode": "bilinear", "antialias": True}),
    "cubic": (functional.interpolate, (TILE, 40), {"mode": "bicubic"}),
    "to nothing": (functional.interpolate, (TILE,), {"scale_factor": 0.001}),
    "no call of the table": (torch.relu, (TILE,), {}),
}


@pytest.mark.parametrize("call", KNOWN.values(), ids=list(KNOWN))
def test_a_plain_call_has_the_shape_that_torch_returns(call: tuple[Any, ...]) -> None:
    func, args, kwargs = call
    found, wanted = result_of(func, args, kwargs), func(*args, **kwargs)
    assert found is not None
    assert (found.shape, found.dtype, found.stride()) == (wanted.shape, wanted.dtype, wanted.stride())


@pytest.mark.parametrize("call", TORCHS.values(), ids=list(TORCHS))
def test_what_is_not_plain_is_left_to_torch(call: tuple[Any, ...]) -> None:
    assert result_of(*call) is None


def test_planning_a_networks_tiles_loads_no_compiler() -> None:
    command = [sys.executable, "-c", PLAN]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert printed.split() == []
