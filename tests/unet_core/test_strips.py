"""The minimal computation in strips: the same outputs, each feature once, whatever the network."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from random_networks import BANDS, Pool, Unpool, same_padded, unpadded
from small_bundles import Coarser, Finer, Lopsided, Unpadded, bundle_of, noise, small_unet, stitched, whole_labels
from tiled import InStrips, unlike_fresh
from torch import Tensor, nn

from unet_core.bounds import Edges, footprint_of, inferred, minimal, minimal_strips
from unet_core.errors import FootprintError, PredictionError
from unet_core.inference.memory import rows_at_once
from unet_core.inference.predictor import Precision, Predictor
from unet_core.models import build
from unet_core.models.unet import UNet

INSIDE = Edges(top=False, bottom=False, left=False, right=False)
QUICK = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    derandomize=True,
    database=None,
)


pytestmark = pytest.mark.usefixtures("on_one_thread")


def check(drawn: nn.Module, strip_strides: int) -> None:
    # A drawn layer may be one object of the strategy, shared between examples.
    network = unlike_fresh(copy.deepcopy(drawn))
    if not any(isinstance(part, Unpool) for part in network.modules()):
        assert InStrips(network, BANDS, strip_strides=strip_strides).worst_at_all_edges() < 1e-9


@settings(QUICK, max_examples=5)
@given(same_padded())
def test_padded_networks_in_strips_equal_the_whole_pass(drawn: nn.Module) -> None:
    check(drawn, 2)


@settings(QUICK, max_examples=5)
@given(unpadded())
def test_networks_that_pad_nothing_in_strips_equal_the_whole_pass(drawn: nn.Module) -> None:
    check(drawn, 2)


@pytest.mark.slow
@settings(QUICK, max_examples=40)
@given(same_padded())
def test_many_networks_in_strips_of_one_stride_equal_the_whole_pass(drawn: nn.Module) -> None:
    check(drawn, 1)


def small(name: str) -> nn.Module:
    few = {"first_channels": 4} | ({"head_channels": 8} if name.startswith("fcn") else {})
    return unlike_fresh(build(name, {"bands": 3, "classes": 2, **few}))


@pytest.mark.parametrize("name", ["resnet34_unet", "fcn8s"])
def test_networks_of_wide_halos_in_strips_equal_the_whole_pass(name: str) -> None:
    tiled = InStrips(small(name), 3, strip_strides=2)
    assert tiled.worst_difference(extent=(640, 96), core=(320, 96)) < 1e-9


def macs(graph: torch.fx.Graph) -> int:
    return sum(node.meta.get("macs", 0) for node in graph.nodes)


@pytest.mark.parametrize(("name", "most"), [("unet", 1.03), ("resnet34_unet", 1.01), ("fcn8s", 1.01)])
def test_strips_compute_hardly_more_than_the_region(name: str, most: float) -> None:
    with torch.device("meta"):
        described = {"first_channels": 16} if name == "unet" else {}
        module = build(name, {"bands": 3, "classes": 2, **described})
    network = inferred(module, 3)
    halo = footprint_of(network).halo_on_grid()
    read_px = (halo.top + 2048 + halo.bottom, halo.left + 2048 + halo.right)
    need = (halo.top, halo.left, halo.top + 2048, halo.left + 2048)
    strips = minimal_strips(module, 3, read_px=read_px, need=need, edges=INSIDE, height_px=512, network=network)
    whole = macs(minimal(module, 3, read_px=read_px, need=need, edges=INSIDE, network=network).graph)
    assert whole <= sum(macs(strip.module.graph) for strip in strips) < most * whole


def test_strips_far_from_the_edges_share_one_module() -> None:
    network = UNet(3, 2, first_channels=4, depth=2)
    strips = minimal_strips(network, 3, read_px=(560, 80), need=(24, 24, 536, 56), edges=INSIDE, height_px=32)
    assert len(strips) == 17
    assert len({id(strip.module) for strip in strips}) <= 5


@pytest.mark.parametrize("module", [small_unet(depth=2).module, Finer(3), Coarser(3), Unpadded(3), Lopsided(3)])
def test_predictor_gives_the_same_bytes_in_strips(module: nn.Module) -> None:
    bundle, pixels = bundle_of(copy.deepcopy(module)), noise(128, 96)
    whole, strips = Predictor(bundle), Predictor(bundle, strip_px=1024)
    for probabilities in (False, True):
        expected = whole.run(pixels, whole.whole(128, 96), probabilities=probabilities)
        found = strips.run(pixels, strips.whole(128, 96), probabilities=probabilities)
        np.testing.assert_array_equal(found.labels, expected.labels)
        if expected.probabilities is not None and found.probabilities is not None:
            np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    np.testing.assert_array_equal(expected.labels, whole_labels(bundle, pixels))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_tiles_in_strips_fit_together(precision: Precision) -> None:
    bundle, pixels = small_unet(depth=2), noise(108, 96)
    whole, strips = Predictor(bundle, precision=precision), Predictor(bundle, precision=precision, strip_px=512)
    found = footprint_of(inferred(bundle.module, 3))
    np.testing.assert_array_equal(stitched(strips, pixels, 48, found), stitched(whole, pixels, 48, found))


def test_logits_that_are_not_finite_in_any_strip_are_refused() -> None:
    bundle = small_unet(depth=1)
    with torch.no_grad():
        bundle.module.get_parameter("head.bias").fill_(float("nan"))
    predictor = Predictor(bundle, strip_px=1024)
    with pytest.raises(PredictionError, match="not finite"):
        predictor.predict(noise(128, 64), predictor.whole(128, 64))


class Unpooling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = Pool(2, 2, 0), Unpool(2, 2, 0)
        self.head = nn.Conv2d(3, 2, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.head(self.up(*self.down(x_NCHW)))


@pytest.mark.parametrize(
    ("network", "height_px", "text"),
    [(UNet(3, 2, first_channels=4, depth=2), 7, r"whole strides of 4 px.*use 8 px"), (Unpooling(), 8, "unpools")],
)
def test_what_cannot_be_cut_into_strips_is_refused(network: nn.Module, height_px: int, text: str) -> None:
    with pytest.raises(FootprintError, match=text):
        minimal_strips(network, 3, read_px=(80, 80), need=(24, 24, 56, 56), edges=INSIDE, height_px=height_px)


def test_network_that_unpools_is_computed_as_a_whole() -> None:
    bundle, pixels = bundle_of(Unpooling(), classes=2), noise(64, 64)
    predictor = Predictor(bundle, strip_px=512)
    np.testing.assert_array_equal(predictor.predict(pixels, predictor.whole(64, 64)), whole_labels(bundle, pixels))


def test_large_reads_are_seen_a_strip_at_a_time() -> None:
    module, halo = small_unet(depth=4).module, (94, 94, 94, 94)
    assert rows_at_once(module, 3, (1216, 1216), (16, 16), halo) == 1216
    assert rows_at_once(module, 3, (4288, 4288), (16, 16), halo) == 96 + 256 + 96
    assert rows_at_once(Unpooling(), 3, (4288, 4288), (2, 2), (0, 0, 0, 0)) == 4288
