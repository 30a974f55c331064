"""Promises of single networks of the registry beyond those of all."""

from __future__ import annotations

import json
from typing import cast

import pytest
import torch
from tiled import unlike_fresh
from torch import Tensor, nn

from benchmarks import models
from benchmarks.described import DESCRIBED
from unet_core.bounds import Halo, approximate_footprint, footprint, unbounded_layers
from unet_core.errors import BundleError, FootprintError
from unet_core.models import build
from unet_core.models.fcn import FCN, BilinearUpsampling
from unet_core.models.patch_classifier import PatchClassifier
from unet_core.models.pretrained import load_classifier
from unet_core.models.unet3p import UNet3Plus
from unet_core.models.unetpp import UNetPlusPlus


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


def test_unet_original_maps_572_to_388_px() -> None:
    with torch.device("meta"):
        network = build("unet_original", {"bands": 1, "classes": 2})
        assert network(torch.empty(1, 1, 572, 572)).shape == (1, 2, 388, 388)
    found = footprint(network, 1)
    assert found.offset == (92, 92)
    # 96 px, not 92, at the top and left: mirrored rows shift the poolings, whose grid is 16 px.
    assert found.context == Halo(96, 92, 96, 92)


def test_unet_original_on_a_mirrored_image_labels_every_pixel() -> None:
    network = unlike_fresh(build("unet_original", {"bands": 1, "classes": 2, "first_channels": 2}))
    context = footprint(network, 1).context
    mirrored = nn.functional.pad(
        torch.rand(1, 1, 128, 112), (context.left, context.right, context.top, context.bottom), mode="reflect"
    )
    with torch.no_grad():
        logits = network(mirrored)
    # Its first 4 rows and columns belong to the mirrored pixels that keep the poolings on their grid.
    assert logits.shape == (1, 2, 128 + 4, 112 + 4)


@pytest.mark.parametrize(("name", "side"), [("unet_bn_deconv", 224), ("unet_dice", 128)])
def test_same_padded_network_returns_its_input_extent(name: str, side: int) -> None:
    with torch.device("meta"):
        network = build(name, {"bands": 1, "classes": 1})
        assert network(torch.empty(1, 1, side, side)).shape == (1, 1, side, side)


def test_x3_network_has_a_grid_three_times_finer() -> None:
    network = unlike_fresh(build("unet_x3", {"bands": 3, "classes": 3, "first_channels": 2, "depth": 2}))
    assert network(torch.rand(1, 3, 8, 12)).shape == (1, 3, 24, 36)
    assert footprint(network, 3).scale == (3, 3)


def test_max_unpooling_without_padding_is_refused() -> None:
    with pytest.raises(BundleError, match="max-unpooling"):
        build("unet_configurable", {"bands": 1, "classes": 1, "up": "max_unpool", "padding": "valid"})


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_pruned_network_is_the_full_networks_head_at_that_level(level: int) -> None:
    full = unlike_fresh(UNetPlusPlus(1, 2, first_channels=2, deep_supervision=True))
    pruned = cast("UNetPlusPlus", full).pruned(level)
    image = torch.rand(1, 1, 48, 32)
    with torch.no_grad():
        assert torch.equal(pruned(image), cast("UNetPlusPlus", full).supervised(image)[level - 1])
    assert len(pruned.nodes) == (level + 1) * (level + 2) // 2
    assert not pruned.training


def test_pruning_to_a_level_without_a_head_is_refused() -> None:
    with pytest.raises(ValueError, match="level 2 has no head"):
        UNetPlusPlus(1, 1, first_channels=1).pruned(2)


def guided() -> UNet3Plus:
    network = UNet3Plus(1, 2, first_channels=2, skip_channels=2, deep_supervision=True, classification_guided=True)
    return cast("UNet3Plus", unlike_fresh(network))


def test_classification_guided_module_is_reported_as_unbounded() -> None:
    assert [found.layer for found in unbounded_layers(guided(), 1)] == ["presence.2"]
    with pytest.raises(FootprintError, match="presence"):
        footprint(guided(), 1)
    assert approximate_footprint(guided(), 1, 128).stride == (16, 16)


@pytest.mark.parametrize(("favoured", "kept"), [(0, False), (1, True)])
def test_classification_guided_module_switches_the_logits(favoured: int, kept: bool) -> None:
    network, image = guided(), torch.rand(2, 1, 32, 32)
    assert network.presence is not None
    conv = network.presence.get_submodule("1")
    with torch.no_grad():
        cast("Tensor", conv.bias)[favoured] += 1e6
        logits, plain = network(image), network.supervised(image)[0]
    assert torch.equal(logits, plain if kept else torch.zeros_like(plain))


@pytest.mark.parametrize("kernels", [(4, 5, 4, 4), (3, 2)])
def test_dense_pass_equals_the_sliding_window_pixel_by_pixel(kernels: tuple[int, ...]) -> None:
    network = PatchClassifier(2, 3, channels=4, hidden=5, kernels=kernels)
    unlike_fresh(network)
    side = network.side
    assert side == {4: 95, 2: 16}[len(kernels)]
    image = torch.rand(1, 2, side + 6, side + 3)
    with torch.no_grad():
        dense = network(image)
        squares = torch.cat([image[:, :, y : y + side, x : x + side] for y in range(7) for x in range(4)])
        slid = network.classify(squares)
    assert dense.shape == (1, 3, 7, 4)
    assert torch.allclose(dense[0].flatten(1).T, slid, atol=1e-5)


def test_documented_table_is_what_the_networks_are() -> None:
    facts = json.loads(models.RESULTS.read_text(encoding="utf-8"))
    assert models.PAGE.read_text(encoding="utf-8") == models.page(facts), "run python -m benchmarks.models --draw"


def test_every_documented_network_was_run_and_its_seams_are_ties_at_most() -> None:
    rows = json.loads(models.RESULTS.read_text(encoding="utf-8"))["rows"]
    assert set(rows) == {described.key for described in DESCRIBED}
    for key, row in rows.items():
        assert 0.4 < row["foreground"] < 0.6, key
        assert row["farthest"] < 1e-4, key
        assert row["tiles"] > 1, key
        assert row["mpix_per_s"] > 0, key
