"""The U-Net and its registry."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unet_core.errors import BundleError
from unet_core.models import MODELS, build
from unet_core.models.unet import UNet

pytestmark = pytest.mark.usefixtures("on_one_thread")


def small_unet() -> UNet:
    torch.manual_seed(0)
    return UNet(bands=2, classes=3, first_channels=4)


def test_described_configuration_has_its_parameter_count() -> None:
    with torch.device("meta"):
        network = UNet(1, 1, 64)
    assert sum(parameter.numel() for parameter in network.parameters()) == 31_036_481


@pytest.mark.parametrize(("height", "width"), [(16, 16), (48, 32), (16, 80)])
def test_logits_are_on_the_input_grid(height: int, width: int) -> None:
    assert small_unet().eval()(torch.rand(2, 2, height, width)).shape == (2, 3, height, width)


def test_gradients_reach_every_parameter() -> None:
    network = small_unet()
    network(torch.rand(2, 2, 32, 32)).square().mean().backward()
    silent = [
        name for name, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert silent == []


def test_traced_network_computes_the_same_at_any_extent() -> None:
    network = small_unet().eval()
    traced = torch.fx.symbolic_trace(network)
    for height, width in ((32, 48), (80, 16)):
        images_NCHW = torch.rand(1, 2, height, width)
        assert torch.equal(traced(images_NCHW), network(images_NCHW))


def test_every_level_halves_the_grid_and_doubles_the_channels() -> None:
    seen: list[tuple[int, ...]] = []
    network = small_unet().eval()
    for level in [*network.down, network.bottom]:
        level.register_forward_hook(lambda _m, _i, features: seen.append(tuple(features.shape[1:])))
    network(torch.rand(1, 2, 64, 32))
    assert seen == [(4, 64, 32), (8, 32, 16), (16, 16, 8), (32, 8, 4), (64, 4, 2)]


def test_registry_builds_by_name() -> None:
    network = build("unet", {"bands": 1, "classes": 2, "first_channels": 4, "depth": 2})
    assert isinstance(network, UNet)
    assert all(issubclass(network_class, nn.Module) for network_class in MODELS.values())


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("u-net", {"bands": 1, "classes": 1}, "known ones are .*unet"),
        ("unet", {"bands": 1}, "classes"),
        ("unet", {"bands": 1, "classes": 1, "dropout": 0.5}, "dropout"),
        ("unet", {"bands": 1, "classes": 1, "depth": 1_000_000}, r"depth must lie in 1\.\.8"),
        ("unet", {"bands": "three", "classes": 1}, "can't be built"),
    ],
)
def test_unbuildable_network_is_named(name: str, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        build(name, parameters)
