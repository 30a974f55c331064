"""Networks drawn at random from the operations that bounds inference knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = 2
BANDS = 1


@dataclass
class Skip:
    """What a level leaves for the way up."""

    value: Tensor
    indices: Tensor | None = None
    pooled: Tensor | None = None


class Level(nn.Module):
    """Layers, then a lower level between `down` and `up`, whose result meets the skip; then layers again."""

    def __init__(
        self, before: nn.Module, down: nn.Module, inner: nn.Module, up: nn.Module, after: nn.Module, merge: str
    ) -> None:
        super().__init__()
        self.before, self.down, self.inner, self.up, self.after = before, down, inner, up, after
        self.merge = merge
        self.join = nn.Conv2d(2 * CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.before(x)
        down = self.down(skip)
        unpools = isinstance(self.up, Unpool)
        low = self.up(self.inner(down[0]), down[1]) if unpools else self.up(self.inner(down))
        if self.merge == "none":
            return self.after(low)
        skip = _centre(skip, low)
        return self.after(self.join(torch.cat([skip, low], 1)) if self.merge == "cat" else skip + low)


def _centre(skip: Tensor, low: Tensor) -> Tensor:
    """`skip` cut to the extents of `low`, as in the original U-Net."""
    rows, columns = skip.shape[2] - low.shape[2], skip.shape[3] - low.shape[3]
    if rows == 0 and columns == 0:
        return skip
    top, left = rows // 2, columns // 2
    return skip[:, :, top : (top - rows) or None, left : left + low.shape[3]]


class Pool(nn.Module):
    """Max pooling that hands on its indices; `smooth` stands in for it where reach is measured by gradient."""

    def __init__(self, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.smooth = False

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.smooth:
            mean = functional.avg_pool2d(x, self.kernel, self.stride, self.padding)
            return mean, mean
        return functional.max_pool2d(x, self.kernel, self.stride, self.padding, return_indices=True)


class Unpool(nn.Module):
    """The inverse of `Pool` at its stride."""

    def __init__(self, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.smooth = False

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        height, width = x.shape[2] * self.stride, x.shape[3] * self.stride
        if self.smooth:
            extra = height - ((x.shape[2] - 1) * self.stride - 2 * self.padding + self.kernel)
            weight = torch.ones(CHANNELS, 1, self.kernel, self.kernel, dtype=x.dtype)
            return functional.conv_transpose2d(
                x + indices, weight, None, self.stride, self.padding, extra, groups=CHANNELS
            )
        sizes = [(size, size) for size in (self.kernel, self.stride, self.padding)]
        return functional.max_unpool2d(x, indices, *sizes, output_size=(height, width))


class Cut(nn.Module):
    """Crops by slicing, with a negative end."""

    def __init__(self, top: int, bottom: int, left: int, right: int) -> None:
        super().__init__()
        self.amounts = (top, bottom, left, right)

    def forward(self, x: Tensor) -> Tensor:
        top, bottom, left, right = self.amounts
        return x[:, :, top : x.shape[2] - bottom, left : -right or None]


class Residual(nn.Module):
    """Adds what its body makes, in place."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        y += x
        return y * 0.5 + y.abs()


class EveryOther(nn.Module):
    """Downsampling by slicing."""

    def forward(self, x: Tensor) -> Tensor:
        return x[..., ::2, 1::2]


class Resized(nn.Module):
    """Interpolation to a size computed from the input's."""

    def __init__(self, factor: float, mode: str) -> None:
        super().__init__()
        self.factor, self.mode = factor, mode

    def forward(self, x: Tensor) -> Tensor:
        size = [int(length * self.factor) for length in x.shape[2:]]
        return functional.interpolate(x, size=size, mode=self.mode)


Draw = Callable[[st.SearchStrategy[Any]], Any]


def conv(draw: Draw, *, valid: bool = False) -> nn.Module:
    """A convolution of stride 1 that keeps its extents, or loses some."""
    kernel, dilation = draw(st.sampled_from([1, 2, 3, 3, 4, 5])), draw(st.sampled_from([1, 1, 2]))
    groups = draw(st.sampled_from([1, CHANNELS]))
    mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate"]))
    padding = 0 if valid else "same"
    return nn.Conv2d(
        CHANNELS, CHANNELS, (kernel, 3), dilation=dilation, padding=padding, groups=groups, padding_mode=mode
    )


def padded(draw: Draw) -> nn.Module:
    """Explicit padding, and the convolution that takes it away again; not symmetric."""
    before, after = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    pad = draw(st.sampled_from([nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d]))
    return nn.Sequential(pad((before, after, after, before)), nn.Conv2d(CHANNELS, CHANNELS, before + after + 1))


def wide_then_cut(draw: Draw) -> nn.Module:
    """More padding than the kernel needs, cropped again, as in FCN."""
    extra, shift = draw(st.integers(1, 4)), draw(st.integers(-1, 1))
    return nn.Sequential(
        nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1 + extra),
        Cut(extra + shift, extra - shift, extra - shift, extra + shift),
    )


def activation(draw: Draw) -> nn.Module:
    """None whose rounding depends on a pixel's place in memory, as softmax's does: it would break ties of max
    pooling, and so move what is unpooled.
    """
    return draw(
        st.sampled_from(
            [nn.LeakyReLU(0.2), nn.LeakyReLU(0.3, inplace=True), nn.Dropout2d(0.4), nn.BatchNorm2d(CHANNELS)]
        )
    )


def layers(draw: Draw, *, valid: bool = False) -> nn.Module:
    """One to three layers of stride 1."""
    made: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 2))):
        kind = draw(st.sampled_from(["conv", "conv", "padded", "cut", "pool", "residual"]))
        if kind == "conv" or valid:
            made.append(conv(draw, valid=valid))
        elif kind == "padded":
            made.append(padded(draw))
        elif kind == "cut":
            made.append(wide_then_cut(draw))
        elif kind == "pool":
            made.append(draw(st.sampled_from([nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1, count_include_pad=False)])))
        else:
            made.append(Residual(conv(draw)))
        made.append(activation(draw))
    return nn.Sequential(*made)


def down_by_2(draw: Draw) -> nn.Module:
    return draw(
        st.sampled_from(
            [
                nn.MaxPool2d(2),
                nn.MaxPool2d(3, 2, 1),
                nn.MaxPool2d(3, 2, ceil_mode=True),
                nn.AvgPool2d(2),
                nn.AvgPool2d(3, 2, 1, count_include_pad=False),
                nn.AvgPool2d(4, 2, 1),
                nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1),
                nn.Conv2d(CHANNELS, CHANNELS, 2, stride=2),
                nn.Conv2d(CHANNELS, CHANNELS, 1, stride=2),
                nn.Conv2d(CHANNELS, CHANNELS, 5, stride=2, padding=2, padding_mode="reflect"),
                nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * CHANNELS, CHANNELS, 1)),
                Resized(0.5, "bilinear"),
                EveryOther(),
            ]
        )
    )


def up_by_2(draw: Draw) -> nn.Module:
    return draw(
        st.sampled_from(
            [
                nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, stride=2),
                nn.ConvTranspose2d(CHANNELS, CHANNELS, 4, stride=2, padding=1),
                nn.ConvTranspose2d(CHANNELS, CHANNELS, 3, stride=2, padding=1, output_padding=1),
                nn.ConvTranspose2d(CHANNELS, CHANNELS, 3, stride=2, padding=2, output_padding=1, dilation=2),
                nn.ConvTranspose2d(CHANNELS, CHANNELS, 1, stride=2, output_padding=1),
                nn.Upsample(scale_factor=2),
                nn.Upsample(scale_factor=2, mode="bilinear"),
                nn.Upsample(scale_factor=2, mode="bicubic"),
                Resized(2, "bilinear"),
                nn.Sequential(nn.Conv2d(CHANNELS, 4 * CHANNELS, 1), nn.PixelShuffle(2)),
            ]
        )
    )


def down_by_3(draw: Draw) -> nn.Module:
    return draw(
        st.sampled_from(
            [nn.MaxPool2d(3), nn.Conv2d(CHANNELS, CHANNELS, 5, stride=3, padding=1), Resized(1 / 3, "nearest-exact")]
        )
    )


def up_by_3(draw: Draw) -> nn.Module:
    return draw(
        st.sampled_from(
            [
                nn.ConvTranspose2d(CHANNELS, CHANNELS, 3, stride=3),
                nn.ConvTranspose2d(CHANNELS, CHANNELS, 5, stride=3, padding=1),
                nn.Upsample(scale_factor=3),
                nn.Sequential(nn.Conv2d(CHANNELS, 9 * CHANNELS, 1), nn.PixelShuffle(3)),
            ]
        )
    )


def level(draw: Draw, depth: int) -> nn.Module:
    if depth == 0:
        return layers(draw)
    way = draw(st.sampled_from(["2", "2", "2", "3", "unpool"]))
    if way == "unpool":
        sizes = draw(st.sampled_from([(2, 2, 0), (3, 2, 1)]))
        down, up = Pool(*sizes), Unpool(*sizes)
    elif way == "3":
        down, up = down_by_3(draw), up_by_3(draw)
    else:
        down, up = down_by_2(draw), up_by_2(draw)
    merge = draw(st.sampled_from(["cat", "add", "none"]))
    return Level(layers(draw), down, level(draw, depth - 1), up, layers(draw), merge)


@st.composite
def same_padded(draw: Draw) -> nn.Module:
    """Encoder and decoder, or a chain; output on the input's grid, a finer one, or a coarser one."""
    body = [nn.Conv2d(BANDS, CHANNELS, 1), level(draw, draw(st.integers(0, 2)))]
    ending = draw(st.sampled_from(["", "", "finer", "finer by 3", "coarser"]))
    if ending == "finer":
        body.append(up_by_2(draw))
    elif ending == "finer by 3":
        body.append(up_by_3(draw))
    elif ending == "coarser":
        body += [down_by_2(draw), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)]
    return nn.Sequential(*body)


@st.composite
def unpadded(draw: Draw) -> nn.Module:
    """Nothing padded, skips centre-cropped, as in the original U-Net."""
    inner = layers(draw, valid=True)
    for _ in range(draw(st.integers(0, 2))):
        down = draw(st.sampled_from([nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Conv2d(CHANNELS, CHANNELS, 2, stride=2)]))
        up = draw(st.sampled_from([nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, stride=2), nn.Upsample(scale_factor=2)]))
        merge = draw(st.sampled_from(["cat", "add"]))
        inner = Level(layers(draw, valid=True), down, inner, up, layers(draw, valid=True), merge)
    return nn.Sequential(nn.Conv2d(BANDS, CHANNELS, 1), inner)
