"""Bounds inference: footprints against gradients, minimal computation against the whole-image pass."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from tiled import Tiled, halo_by_gradient, unlike_fresh
from torch import nn

from unet_core.bounds import Edges, Halo, footprint, minimal, operations
from unet_core.errors import FootprintError
from unet_core.models.unet import UNet


def small_unet(depth: int, bands: int = 3) -> nn.Module:
    return unlike_fresh(UNet(bands, 2, first_channels=4, depth=depth))


@pytest.mark.parametrize(("depth", "halo"), [(1, 8), (2, 22), (3, 46), (4, 94)])
def test_footprint_of_unet_is_what_gradients_reach(depth: int, halo: int) -> None:
    network = small_unet(depth)
    found = footprint(network, 3)
    assert found.stride == (2**depth, 2**depth)
    assert found.halo == Halo(halo, halo, halo, halo) == halo_by_gradient(network, 3, found)
    assert found.scale == (Fraction(1), Fraction(1))
    assert (found.offset, found.context) == ((0, 0), Halo(0, 0, 0, 0))


def test_halo_on_grid_is_rounded_up_to_the_stride() -> None:
    assert footprint(small_unet(4), 3).halo_on_grid() == Halo(96, 96, 96, 96)


def test_reasons_name_layers_whose_shares_add_up_to_the_halo() -> None:
    found = footprint(small_unet(3), 3)
    assert sum(share for _, share in found.reasons.top.layers) == 46
    assert str(found.reasons.top) == "46 px: bottom.conv2 sets 8 px of 15 layers on the path"
    assert str(found.reasons.stride_y) == "8 px: pool sets 8 px"


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_minimal_unet_equals_the_whole_image_pass_everywhere(depth: int) -> None:
    tiled = Tiled(small_unet(depth), 3)
    assert tiled.worst_difference(extent=(96, 128), core=(32, 32)) < 1e-9


def test_minimal_unet_equals_the_whole_image_pass_where_one_read_holds_the_image() -> None:
    assert Tiled(small_unet(2), 3).worst_difference(extent=(16, 20), core=(16, 20)) < 1e-9


def test_float32_logits_of_the_core_are_the_same_to_the_last_bit() -> None:
    network = unlike_fresh(UNet(3, 2, first_channels=16, depth=2))
    assert Tiled(network, 3, torch.float32).worst_difference(extent=(512, 512), core=(256, 256)) == 0


@pytest.mark.parametrize(("core", "most"), [(512, 1.30), (1024, 1.14)])
def test_minimal_unet_computes_little_more_than_the_cores_share(core: int, most: float) -> None:
    counted = operations(UNet(3, 2, first_channels=16, depth=4), 3, (core, core))
    assert counted.ratio <= most
    assert counted.plain_ratio == pytest.approx((1 + 192 / core) ** 2, rel=1e-6)


INSIDE = Edges(top=False, bottom=False, left=False, right=False)


def test_read_with_one_pixel_less_is_refused() -> None:
    network = small_unet(2)
    assert minimal(network, 3, read_px=(78, 78), need=(24, 24, 56, 56), edges=INSIDE)
    with pytest.raises(FootprintError, match="1 px more at the right"):
        minimal(network, 3, read_px=(78, 77), need=(24, 24, 56, 56), edges=INSIDE)
    with pytest.raises(FootprintError, match="2 px more at the top"):
        minimal(network, 3, read_px=(78, 78), need=(20, 24, 52, 56), edges=INSIDE)
