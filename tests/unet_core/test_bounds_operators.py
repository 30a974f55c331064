"""Operators one by one: each computes on the core what it computes in the whole image, or is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from tiled import Tiled, unlike_fresh
from torch import Tensor, nn
from torch.nn import functional

from unet_core.bounds import approximate_footprint, footprint, unbounded_layers
from unet_core.errors import FootprintError

CHANNELS = 4


class Steps(nn.Module):
    """A forward pass written as one function of the layers `a` and `b` and the input."""

    def __init__(self, steps: Callable[[Any, Tensor], Any], a: nn.Module | None = None, b: nn.Module | None = None):
        super().__init__()
        self.steps = steps
        self.a, self.b = a or conv(), b or conv()
        self.gain = nn.Parameter(torch.ones(CHANNELS))

    def forward(self, x: Tensor) -> Any:
        return self.steps(self, x)


def conv(channels_out: int = CHANNELS, kernel: int = 3, **options: Any) -> nn.Module:
    options = {"padding": kernel // 2, **options}
    return nn.Conv2d(CHANNELS, channels_out, kernel, **options)


def pad_to(x: Tensor, like: Tensor) -> Tensor:
    """As many published U-Nets do before they concatenate."""
    rows, columns = like.size(2) - x.size(2), like.size(3) - x.size(3)
    return functional.pad(x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])


def cut_to(x: Tensor, like: Tensor, start: int) -> Tensor:
    return x[:, :, start : start + like.shape[2], start : start + like.shape[3]]


def layer_norm_over_channels(net: Any, x: Tensor) -> Tensor:
    return net.b(net.a(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def gated(net: Any, x: Tensor) -> Tensor:
    value, gate = net.a(x).chunk(2, dim=1)
    return value * torch.sigmoid(gate)


BOUNDED: dict[str, nn.Module] = {
    "in place chain": Steps(lambda net, x: net.a(x).add_(x).relu_().mul_(2)),
    "in place on a view": Steps(
        lambda net, x: functional.relu(net.a(x)[:, :, 1:-1, 1:-1], inplace=True), conv(padding=2)
    ),
    "one layer twice": Steps(lambda net, x: net.a(functional.relu(net.a(x)))),
    "gain per channel": Steps(lambda net, x: net.a(x) * net.gain.view(1, -1, 1, 1)),
    "layer norm over channels": Steps(layer_norm_over_channels, None, nn.LayerNorm(CHANNELS)),
    "linear over channels": Steps(layer_norm_over_channels, None, nn.Linear(CHANNELS, 3)),
    "gated halves": Steps(gated, conv(8)),
    "split and swap": Steps(lambda net, x: torch.cat(net.a(x).split([1, 3], dim=1)[::-1], 1)),
    "mean over channels": Steps(lambda net, x: x - net.a(x).mean(1, keepdim=True)),
    "maximum over channels": Steps(lambda net, x: x - net.a(x).max(dim=1, keepdim=True)[0]),
    "larger of two": Steps(lambda net, x: torch.max(net.a(x), x)),
    "softmax over channels": Steps(lambda net, x: net.a(x).softmax(1)),
    "channels sliced": Steps(lambda net, x: net.a(x)[:, 1:3] + x[:, :2]),
    "channels expanded": Steps(lambda net, x: net.a(x) + net.b(x).amax(1, keepdim=True).expand(-1, 4, -1, -1)),
    "where": Steps(lambda net, x: torch.where(net.a(x) > 0, x, -x)),
    "activations": nn.Sequential(conv(), nn.PReLU(CHANNELS), conv(), nn.GELU(), nn.Hardswish(), nn.ELU(), nn.SiLU()),
    "instance norm with running statistics": nn.InstanceNorm2d(CHANNELS, track_running_stats=True),
    "weights computed": torch.nn.utils.parametrizations.weight_norm(conv()),
    "padded to the skip": Steps(
        lambda net, x: torch.cat([net.a(x), pad_to(net.b(functional.max_pool2d(x, 2)), x)], 1),
        None,
        nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, 2),
    ),
    "interpolated to the skip": Steps(
        lambda net, x: x + functional.interpolate(net.a(functional.avg_pool2d(x, 4)), size=x.shape[2:], mode="bilinear")
    ),
    "wide padding cut after upsampling": Steps(
        lambda net, x: cut_to(net.b(functional.max_pool2d(net.a(x), 8)), x, 19),
        conv(padding=20),
        nn.ConvTranspose2d(CHANNELS, 2, 16, 8),
    ),
    "channels padded": Steps(
        lambda net, x: net.a(x) + functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)), conv(8, stride=2)
    ),
    "ceil mode": nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), nn.MaxPool2d(2), nn.Upsample(scale_factor=4)),
    "strides differ": nn.Sequential(
        nn.Conv2d(CHANNELS, CHANNELS, (3, 5), (2, 3), (1, 2)), nn.Upsample(scale_factor=(2, 3))
    ),
    "bilinear by 3": nn.Sequential(conv(), nn.AvgPool2d(3), nn.Upsample(scale_factor=3, mode="bilinear")),
    "wide transposed": nn.Sequential(
        conv(stride=4), nn.ConvTranspose2d(CHANNELS, CHANNELS, 7, 4, padding=2, output_padding=1)
    ),
    "dilated pooling, nothing padded": nn.Sequential(
        conv(padding=0, kernel=4), nn.MaxPool2d(2, 1), conv(padding=0, dilation=2), nn.MaxPool2d(2, 1, dilation=2)
    ),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_core_equals_the_whole_image_pass(name: str) -> None:
    torch.manual_seed(0)
    network = BOUNDED[name] if name == "weights computed" else unlike_fresh(BOUNDED[name])
    assert Tiled(network.eval(), CHANNELS).worst_at_all_edges() < 1e-12


def test_finer_and_coarser_outputs_have_their_scale() -> None:
    finer = nn.Sequential(conv(9 * 2), nn.PixelShuffle(3))
    coarser = nn.Sequential(conv(stride=2), nn.MaxPool2d(2))
    assert footprint(finer, CHANNELS).scale == (Fraction(3), Fraction(3))
    assert footprint(coarser, CHANNELS).scale == (Fraction(1, 4), Fraction(1, 4))
    assert footprint(finer, CHANNELS).need((8, 8, 16, 24), (4, 8)) == (12, 0, 36, 48)
    with pytest.raises(FootprintError, match="whole output pixels"):
        footprint(coarser, CHANNELS).need((2, 0, 4, 4), (0, 0))


UNBOUNDED: dict[str, tuple[nn.Module, str, str]] = {
    "group norm": (nn.Sequential(conv(), nn.GroupNorm(2, CHANNELS)), "1", "mean and variance over the whole image"),
    "instance norm": (nn.Sequential(conv(), nn.InstanceNorm2d(CHANNELS)), "1", "mean and variance"),
    "batch norm without statistics": (
        nn.Sequential(conv(), nn.BatchNorm2d(CHANNELS, track_running_stats=False)),
        "1",
        "statistics of the whole tile",
    ),
    "squeeze and excitation": (
        Steps(
            lambda net, x: net.a(x) * torch.sigmoid(net.b(x)),
            None,
            nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(kernel=1)),
        ),
        "b.0",
        "adaptive pooling",
    ),
    "mean over space": (Steps(lambda net, x: net.a(x) - x.mean((2, 3), keepdim=True)), "mean", "over space"),
    "softmax over space": (Steps(lambda net, x: net.a(x).softmax(dim=3)), "softmax", "over space"),
    "align_corners": (
        nn.Sequential(nn.AvgPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)),
        "1",
        "align_corners=True",
    ),
    "circular padding": (nn.Sequential(conv(padding_mode="circular")), "0", "opposite edges"),
    "fixed crop": (Steps(lambda net, x: net.a(x)[:, :, :64, :64]), "getitem", "depends on the extent"),
    "divided by the extent": (Steps(lambda net, x: net.a(x) / x.shape[2]), "div", "depends on the extent"),
    "coordinates": (
        Steps(lambda net, x: net.a(x) + torch.arange(x.shape[3]).view(1, 1, 1, -1)),
        "add",
        "differs from place to place",
    ),
}


@pytest.mark.parametrize("name", UNBOUNDED)
def test_layer_without_finite_bounds_is_named_with_its_path(name: str) -> None:
    network, layer, why = UNBOUNDED[name]
    named = unbounded_layers(network, CHANNELS)
    assert named[0].layer == layer
    assert why in named[0].why
    with pytest.raises(FootprintError, match=f"no finite footprint \\({layer}: "):
        footprint(network, CHANNELS)


def test_attention_is_unbounded_and_its_network_still_has_a_stride() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(CHANNELS, 1, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            batch, channels, height, width = x.shape
            tokens = x.flatten(2).transpose(1, 2)
            seen = self.attention(tokens, tokens, tokens)[0]
            return seen.transpose(1, 2).reshape(batch, channels, height, width)

    network = nn.Sequential(nn.MaxPool2d(4), Attention(), conv(), nn.Upsample(scale_factor=4))
    assert unbounded_layers(network, CHANNELS)
    found = approximate_footprint(network, CHANNELS, 64)
    assert (found.stride, found.scale, found.halo.top) == ((4, 4), (Fraction(1), Fraction(1)), 64)


REFUSED: dict[str, tuple[Callable[[Any, Tensor], Any], str]] = {
    "branch on pixels": (lambda net, x: net.a(x) if x.max() > 0 else x, "can't be traced"),
    "other layers at other extents": (
        lambda net, x: net.a(x) if x.shape[2] % 2 else net.a(x).relu(),
        "other steps",
    ),
    "two outputs": (lambda net, x: (net.a(x), x), "must return one tensor"),
    "one number": (lambda net, x: net.a(x).mean((2, 3)), "not .batch, class, y, x. pixels"),
    "write through a view": (lambda net, x: _written(net.a(x)), "written in place"),
    "write into a part": (lambda net, x: _assigned(net.a(x)), "writes into part of a tensor"),
    "unregistered tensor": (lambda net, x: net.a(x) + UNREGISTERED, "neither a parameter nor a buffer"),
}
UNREGISTERED = torch.ones(1)


def _written(y: Tensor) -> Tensor:
    y[:, :2].relu_()
    return y


def _assigned(y: Tensor) -> Tensor:
    y[:, 0] = 0
    return y


@pytest.mark.parametrize("name", REFUSED)
def test_network_that_cannot_be_followed_is_refused(name: str) -> None:
    steps, why = REFUSED[name]
    network = Steps(steps)
    with pytest.raises(FootprintError, match=why):
        footprint(network, CHANNELS)
    assert network.training
