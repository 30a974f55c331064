"""What single networks of the registry promise beyond what all of them do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unet_core.models import build
from unet_core.models.fcn import FCN, BilinearUpsampling
from unet_core.models.pretrained import load_classifier


def test_vgg16_parameters_have_torchvisions_names_and_convert() -> None:
    network = FCN(3, 5, first_channels=1, head_channels=4)
    weights = {
        "features.0.weight": torch.rand(1, 3, 3, 3),
        "features.28.bias": torch.rand(8),
        "classifier.0.weight": torch.rand(4, 8 * 49),
        "classifier.3.weight": torch.rand(4, 4),
        "classifier.6.weight": torch.rand(1000, 4),
        "classifier.9.bias": torch.rand(1),
    }
    done = load_classifier(network, weights)
    assert done.loaded == ("features.0.weight", "features.28.bias")
    assert done.converted == ("classifier.0.weight", "classifier.3.weight")
    assert done.unloadable == {
        "classifier.6.weight": "it is (1000, 4), the network needs (5, 4, 1, 1)",
        "classifier.9.bias": "the network has no such parameter",
    }
    assert "classifier.6.weight" in done.fresh


def test_converted_head_computes_what_the_classifier_did() -> None:
    network = FCN(3, 5, first_channels=1, head_channels=4)
    linear = nn.Linear(8 * 49, 4)
    load_classifier(network, {"classifier.0.weight": linear.weight, "classifier.0.bias": linear.bias})
    features = torch.rand(1, 8, 7, 7)
    assert torch.allclose(network.classifier[0](features)[0, :, 3, 3], linear(features.flatten(1))[0], atol=1e-5)


def test_vgg16_and_resnet34_have_as_many_weights_as_torchvisions() -> None:
    with torch.device("meta"):
        vgg, resnet = build("fcn32s", {"bands": 3, "classes": 100}), build("resnet34_unet", {"bands": 3, "classes": 1})
    sizes = {name: parameter.numel() for name, parameter in vgg.named_parameters()}
    assert sum(size for name, size in sizes.items() if name.split(".")[0] != "up") == 138_357_544 - 900 * 4097
    sizes = {name: parameter.numel() for name, parameter in resnet.named_parameters()}
    encoder = {name for name in sizes if name.split(".")[0] in {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}}
    assert sum(sizes[name] for name in encoder) == 21_797_672 - 513_000
    assert {"layer1.0.conv1.weight", "layer2.0.downsample.0.weight", "layer4.2.bn2.bias"} <= encoder


@pytest.mark.parametrize("factor", [2, 8])
def test_fixed_upsampling_is_bilinear_interpolation_off_the_edges(factor: int) -> None:
    scores = torch.rand(1, 2, 6, 6)
    fixed = BilinearUpsampling(2, factor)(scores)
    interpolated = nn.functional.interpolate(scores, scale_factor=factor, mode="bilinear", align_corners=False)
    inside = (..., slice(factor, -factor), slice(factor, -factor))
    assert torch.allclose(fixed[inside], interpolated[inside], atol=1e-6)


def test_learned_upsampling_starts_as_bilinear() -> None:
    learned, fixed = FCN(1, 2, 1, 1), FCN(1, 2, 1, 1, upsampling="fixed")
    scores = torch.rand(1, 2, 3, 3)
    assert torch.allclose(learned.up[-1](scores), fixed.up[-1](scores), atol=1e-6)
