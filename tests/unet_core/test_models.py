"""Every network of the registry, held to one set of promises."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from small_bundles import bundle_of, noise, tiles_of, whole_labels
from tiled import Tiled, unlike_fresh
from torch import Tensor, nn

from unet_core.bounds import Footprint, footprint, operations
from unet_core.bundles.bundle import ClassInfo, Decision, ModelCard, Normalization, load_bundle, save_bundle
from unet_core.inference.predictor import Predictor
from unet_core.models import MODELS, build


@dataclass(frozen=True)
class Case:
    """A network small enough to run here."""

    name: str
    bands: int = 2
    classes: int = 3
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    bounded: bool = True
    on_input_grid: bool = True

    @property
    def parameters(self) -> dict[str, Any]:
        return {"bands": self.bands, "classes": self.classes, **self.options}

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{key}={value}" for key, value in self.options.items() if value is not True)])


TINY_VGG: dict[str, Any] = {"first_channels": 1, "head_channels": 4}
TINY_UNET: dict[str, Any] = {"first_channels": 4, "depth": 3}
GUIDED: dict[str, Any] = {"deep_supervision": True, "classification_guided": True}
CASES = (
    Case("unet", options={"first_channels": 4, "depth": 2}),
    Case("unet_original", options={"first_channels": 2, "depth": 2}, on_input_grid=False),
    Case("unet_configurable", options={**TINY_UNET, "skips": False}),
    Case("unet_configurable", options={**TINY_UNET, "factor": 3, "convolutions": 1, "up": "bilinear"}),
    Case("unet_configurable", options={**TINY_UNET, "padding": "valid", "up": "nearest"}, on_input_grid=False),
    Case("unet_configurable", options={**TINY_UNET, "batch_norm": True, "up": "pixel_shuffle"}),
    Case("unet_configurable", options={**TINY_UNET, "up": "max_unpool"}),
    Case("unet_dice", options={"first_channels": 4, "depth": 3, "dropout": 0.2}),
    Case("unet_strided", options={"first_channels": 4, "depth": 3}),
    Case("unet_x1", options={"first_channels": 4, "depth": 3}),
    Case("unet_x3", options={"first_channels": 4, "depth": 2}, on_input_grid=False),
    Case("unet_bn_deconv", options={"first_channels": 4, "depth": 3}),
    Case("unet_bn", options={"first_channels": 4, "depth": 3}),
    Case("unetpp", options={"first_channels": 4, "deep_supervision": True}),
    Case("unetpp", options={"first_channels": 4, "level": 2}),
    Case("unet3p", options={"first_channels": 2, "skip_channels": 4}),
    Case("unet3p", options={"first_channels": 2, "skip_channels": 4, "deep_supervision": True}),
    Case("unet3p", options={"first_channels": 2, "skip_channels": 4, **GUIDED}, bounded=False),
    Case(
        "patch_classifier",
        options={"channels": 4, "hidden": 6, "kernels": [4, 3], "last_kernel": 2},
        on_input_grid=False,
    ),
    Case("resnet34_unet", options={"first_channels": 4}),
    Case("fcn32s", options=TINY_VGG),
    Case("fcn16s", options={**TINY_VGG, "upsampling": "interpolated"}),
    Case("fcn8s", options={**TINY_VGG, "upsampling": "fixed"}),
    Case("fcn8s", options=TINY_VGG),
)
BOUNDED = [case for case in CASES if case.bounded]
each = pytest.mark.parametrize("case", CASES, ids=str)
each_bounded = pytest.mark.parametrize("case", BOUNDED, ids=str)


pytestmark = pytest.mark.usefixtures("on_one_thread")


def network_of(case: Case) -> nn.Module:
    """The small network with weights that make every layer count, in evaluation mode."""
    return unlike_fresh(build(case.name, case.parameters))


def softened(module: nn.Module) -> nn.Module:
    """The same network without units that a negative input switches off."""
    for name, part in module.named_children():
        setattr(module, name, nn.Softplus() if isinstance(part, nn.ReLU) else softened(part))
    return module


@cache
def footprint_of(case_index: int) -> Footprint:
    case = CASES[case_index]
    with torch.device("meta"):
        return footprint(build(case.name, case.parameters), case.bands)


def image_of(case: Case, strides: tuple[int, int] = (1, 3), batch: int = 1) -> Tensor:
    """An image of so many strides in height and width, with the context that the network asks for."""
    generator = torch.Generator().manual_seed(2)
    if not case.bounded:
        return torch.randn(batch, case.bands, 32, 48, generator=generator)
    found = footprint_of(CASES.index(case))
    (y, x), context = found.stride, found.context
    height, width = strides[0] * y + context.top + context.bottom, strides[1] * x + context.left + context.right
    return torch.randn(batch, case.bands, height, width, generator=generator)


def test_every_registered_network_is_tested() -> None:
    assert {case.name for case in CASES} == set(MODELS)
    assert all(issubclass(network_class, nn.Module) for network_class in MODELS.values())


@each
def test_networks_have_no_tensors_but_parameters_and_buffers(case: Case) -> None:
    """A bundle's network is made without memory, and loading it could not tell that another tensor has no value."""
    with torch.device("meta"):
        network = build(case.name, case.parameters)
    assert not [key for part in network.modules() for key, value in vars(part).items() if isinstance(value, Tensor)]


@pytest.mark.parametrize("network_class", MODELS.values(), ids=list(MODELS))
def test_every_network_says_which_paper_it_follows(network_class: type[nn.Module]) -> None:
    text = sys.modules[network_class.__module__].__doc__ or ""
    assert re.search(r"\b20\d\d\b", text)
    assert "Shapes:" in (network_class.__doc__ or "") or "`FCN`" in (network_class.__doc__ or "")


COUNTS: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("unet", {"bands": 1, "classes": 1}, 31_036_481),
    ("unet_original", {"bands": 1, "classes": 2}, 31_030_658),
    ("unet_configurable", {"bands": 1, "classes": 1}, 31_030_593),
    ("unet_dice", {"bands": 1, "classes": 1}, 7_759_521),
    ("unet_strided", {"bands": 3, "classes": 3}, 32_090_627),
    ("unet_x1", {"bands": 3, "classes": 6}, 7_759_782),
    ("unet_x3", {"bands": 3, "classes": 3}, 7_760_475),
    ("unet_bn_deconv", {"bands": 1, "classes": 1}, 487_449),
    ("unet_bn", {"bands": 3, "classes": 1}, 7_765_985),
    ("unetpp", {"bands": 1, "classes": 1, "deep_supervision": True}, 9_041_700),
    ("unetpp", {"bands": 1, "classes": 1, "level": 1}, 100_961),
    ("unetpp", {"bands": 1, "classes": 1, "level": 2}, 511_105),
    ("unetpp", {"bands": 1, "classes": 1, "level": 3}, 2_204_961),
    ("unetpp", {"bands": 1, "classes": 1, "level": 4}, 9_041_601),
    ("unet3p", {"bands": 3, "classes": 1}, 26_971_777),
    ("unet3p", {"bands": 3, "classes": 1, "deep_supervision": True}, 26_989_637),
    ("unet3p", {"bands": 3, "classes": 1, **GUIDED}, 26_991_687),
    ("resnet34_unet", {"bands": 3, "classes": 1}, 21_656_897),
)


@pytest.mark.parametrize(("name", "parameters", "count"), COUNTS)
def test_described_configuration_has_its_parameter_count(name: str, parameters: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        network = build(name, parameters)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@each
@pytest.mark.parametrize("strides", [(1, 1), (1, 3), (5, 2)])
def test_logits_cover_the_image_at_any_multiple_of_the_stride(case: Case, strides: tuple[int, int]) -> None:
    images = image_of(case, strides, batch=2)
    with torch.no_grad():
        logits = network_of(case)(images)
    assert logits.shape[:2] == (2, case.classes)
    assert logits.isfinite().all()
    if not case.bounded:
        assert logits.shape[2:] == images.shape[2:]
        return
    found = footprint_of(CASES.index(case))
    context = found.context
    extent = (strides[0] * found.stride[0], strides[1] * found.stride[1])
    y0, x0, y1, x1 = found.need((0, 0, *extent), (-context.top, -context.left))
    assert 0 <= y0 < y1 <= logits.shape[2]
    assert 0 <= x0 < x1 <= logits.shape[3]
    assert (y1 - y0, x1 - x0) == (extent[0] * found.scale[0], extent[1] * found.scale[1])


@each
def test_gradients_reach_every_parameter(case: Case) -> None:
    network = softened(network_of(case))
    run: Callable[[Tensor], Tensor | tuple[Tensor, ...]] = getattr(network, "supervised", network)
    outputs = run(image_of(case))
    for output in [outputs] if isinstance(outputs, Tensor) else outputs:
        (output * torch.rand_like(output)).sum().backward(retain_graph=True)
    silent = [
        name for name, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert silent == []


@each
def test_bundle_gives_the_same_logits_back(case: Case, tmp_path: Path) -> None:
    card = ModelCard(
        name="small",
        description="",
        architecture=case.name,
        parameters=case.parameters,
        bands=tuple(f"band {index}" for index in range(case.bands)),
        dtype="uint8",
        classes=tuple(ClassInfo(f"class {label}", "#000000") for label in range(case.classes)),
        decision=Decision("argmax"),
        normalization=Normalization((0.0,) * case.bands, (1.0,) * case.bands),
        license="none",
    )
    network = network_of(case)
    save_bundle(tmp_path, card, network)
    with torch.no_grad():
        assert torch.equal(load_bundle(tmp_path).module(image_of(case)), network(image_of(case)))


@each_bounded
@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-9), (torch.float32, 1e-5), (torch.bfloat16, 0.15)])
def test_tiles_equal_the_whole_image_pass_inside_and_in_the_corners(
    case: Case, dtype: torch.dtype, most: float
) -> None:
    with torch.no_grad():
        spread = network_of(case)(image_of(case)).std().item()
    tiled = Tiled(network_of(case), case.bands, dtype)
    halo, stride = tiled.footprint.halo_on_grid(), tiled.footprint.stride
    height, width = halo.top + halo.bottom + 3 * stride[0], halo.left + halo.right + 3 * stride[1]
    y, x = halo.top + stride[0], halo.left + stride[1]
    inside = (y, x, y + stride[0], x + stride[1])
    corners = [(0, 0, *stride), (height - stride[0], width - stride[1], height, width)]
    assert tiled.worst_of((height, width), [inside, *corners]) < most * spread


@pytest.mark.parametrize("case", [case for case in BOUNDED if case.on_input_grid], ids=str)
def test_fused_predictor_labels_tiles_as_the_whole_image(case: Case) -> None:
    found = footprint_of(CASES.index(case))
    bundle = bundle_of(build(case.name, {**case.parameters, "bands": 3}))
    stride, halo = found.stride[0], found.halo_on_grid()
    core_px = -(-48 // stride) * stride
    side = halo.top + core_px + halo.bottom + stride
    image, predictor = noise(side, side), Predictor(bundle)
    labels, tiles = whole_labels(bundle, image), list(tiles_of(image, core_px, found))
    for tile, region, place in (tiles[0], tiles[len(tiles) // 2], tiles[-1]):
        assert (predictor.predict(tile, region) != labels[place]).mean() <= 1e-6


@each_bounded
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_precisions_agree(case: Case, dtype: torch.dtype, most: float) -> None:
    image = image_of(case)
    with torch.no_grad():
        expected = network_of(case).double()(image.double())
        logits = network_of(case).to(dtype)(image.to(dtype))
    assert logits.dtype == dtype
    spread = expected.std().item()
    assert (logits.double() - expected).abs().mean().item() < most * spread


@each_bounded
def test_minimal_computation_costs_no_more_than_a_plain_halo(case: Case) -> None:
    with torch.device("meta"):
        network = build(case.name, case.parameters)
    core = 4 * math.lcm(*footprint_of(CASES.index(case)).stride)
    counted = operations(network, case.bands, (core, core))
    assert counted.useful <= counted.computed <= counted.plain
