"""Shapes of what the calls of most networks return, without torch's own way for tensors without data.

For those, torch runs Python that checks shapes as symbols: its first call alone imports a thousand modules in a second,
and each later one takes a hundred times as long as the call on real tensors. Whatever isn't plainly one of the calls
below, with arguments that plainly fit, stays torch's, which also says what doesn't fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter, functional

from unet_core.bounds.torch_calls import pair

Rule = Callable[..., "tuple[int, ...] | None"]


def result_of(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The tensor without data that a call returns; None where torch itself has to be asked."""
    rule = _RULES.get(func)
    if rule is None:
        return None
    tensors = [each for each in (*_flat(args), *kwargs.values()) if isinstance(each, Tensor)]
    if not tensors or not all(_is_plain(each, tensors[0]) for each in tensors):
        return None
    try:
        shape = rule(*args, **kwargs)
    except (TypeError, ValueError):  # no call of these; torch says so in its own words
        return None
    if shape is None or min(shape) <= 0:
        return None
    return torch.empty(shape, dtype=tensors[0].dtype, device="meta")


def _flat(args: tuple[Any, ...]) -> list[Any]:
    return [item for arg in args for item in (arg if isinstance(arg, (list, tuple)) else (arg,))]


def _is_plain(tensor: Tensor, first: Tensor) -> bool:
    known = type(tensor) in (Tensor, Parameter) and tensor.is_meta and tensor.is_floating_point()
    return known and tensor.dtype == first.dtype and tensor.is_contiguous()


def _conv2d(
    input: Tensor,  # noqa: A002  the names are torch's
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[int, ...] | None:
    count, channels, *extent = input.shape
    made, taken, *kernel = weight.shape
    if (
        len(extent) != 2
        or len(kernel) != 2
        or channels != taken * groups
        or made % groups
        or not _is_vector(bias, made)
    ):
        return None
    return count, made, *_windows(extent, kernel, stride, padding, dilation)


def _conv_transpose2d(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> tuple[int, ...] | None:
    count, channels, *extent = input.shape
    taken, made, *kernel = weight.shape
    made *= groups
    if len(extent) != 2 or len(kernel) != 2 or channels != taken or taken % groups or not _is_vector(bias, made):
        return None
    steps, before, after, apart = (_pair(each) for each in (stride, padding, output_padding, dilation))
    if min(before + after) < 0 or any(after[axis] >= max(steps[axis], apart[axis]) for axis in (0, 1)):
        return None
    return (
        count,
        made,
        *(
            (extent[axis] - 1) * steps[axis] - 2 * before[axis] + apart[axis] * (kernel[axis] - 1) + after[axis] + 1
            for axis in (0, 1)
        ),
    )


def _max_pool2d(
    input: Tensor,  # noqa: A002
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[int, ...] | None:
    *outer, height, width = input.shape
    kernel, before = _pair(kernel_size), _pair(padding)
    if len(outer) != 2 or ceil_mode or return_indices or any(2 * before[axis] > kernel[axis] for axis in (0, 1)):
        return None
    return *outer, *_windows((height, width), kernel, kernel_size if stride is None else stride, padding, dilation)


def _batch_norm(
    input: Tensor,  # noqa: A002
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[int, ...] | None:
    if training or running_mean is None or running_var is None or input.dim() != 4:
        return None
    fits = all(_is_vector(each, input.shape[1]) for each in (running_mean, running_var, weight, bias))
    return tuple(input.shape) if fits else None


def _cat(tensors: Sequence[Tensor], dim: int = 0) -> tuple[int, ...] | None:
    first = tensors[0]
    if not 0 <= dim < first.dim() or any(each.dim() != first.dim() for each in tensors):
        return None
    shapes = [(*each.shape[:dim], *each.shape[dim + 1 :]) for each in tensors]
    if any(shape != shapes[0] for shape in shapes):
        return None
    return *first.shape[:dim], sum(each.shape[dim] for each in tensors), *first.shape[dim + 1 :]


def _leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> tuple[int, ...] | None:  # noqa: A002
    return None if inplace else tuple(input.shape)


def _add(input: Tensor, other: Any) -> tuple[int, ...] | None:  # noqa: A002
    alike = isinstance(other, Tensor) and other.shape == input.shape
    return tuple(input.shape) if alike else None


def _interpolate(
    input: Tensor,  # noqa: A002
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> tuple[int, ...] | None:
    is_known = mode == "bilinear" or (mode == "nearest" and align_corners is None)
    if (
        not is_known
        or input.dim() != 4
        or recompute_scale_factor
        or antialias
        or (size is None) == (scale_factor is None)
    ):
        return None
    if size is not None:
        return *input.shape[:2], *_pair(size)
    scales = scale_factor if isinstance(scale_factor, (list, tuple)) else (scale_factor, scale_factor)
    return *input.shape[:2], *(int(float(n) * scale) for n, scale in zip(input.shape[2:], scales, strict=True))


def _windows(extent: Sequence[int], kernel: Sequence[int], stride: Any, padding: Any, dilation: Any) -> tuple[int, int]:
    steps, before, apart = _pair(stride), _pair(padding), _pair(dilation)
    if min(before) < 0 or min(steps + apart) < 1:
        raise ValueError("no window")
    lengths = [extent[axis] + 2 * before[axis] - apart[axis] * (kernel[axis] - 1) - 1 for axis in (0, 1)]
    if min(lengths) < 0:
        raise ValueError("no window fits")
    return lengths[0] // steps[0] + 1, lengths[1] // steps[1] + 1


def _pair(value: Any) -> tuple[int, int]:
    y, x = pair(value)
    if type(y) is not int or type(x) is not int:
        raise TypeError("no pixels")
    return y, x


def _is_vector(tensor: Tensor | None, length: int) -> bool:
    return tensor is None or tuple(tensor.shape) == (length,)


_RULES: dict[Callable[..., Any], Rule] = {
    torch.conv2d: _conv2d,
    torch.conv_transpose2d: _conv_transpose2d,
    functional.max_pool2d: _max_pool2d,
    functional.batch_norm: _batch_norm,
    functional.leaky_relu: _leaky_relu,
    functional.interpolate: _interpolate,
    torch.cat: _cat,
    torch.Tensor.add: _add,
}
