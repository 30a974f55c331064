"""Bounds inference: footprints against gradients, minimal computation against the whole-image pass."""

from __future__ import annotations

import copy
from fractions import Fraction

import pytest
import torch
from tiled import Tiled, halo_by_gradient, unlike_fresh
from torch import nn
from torch.fx.experimental.optimization import fuse
from torch.nn import functional

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


def test_plain_pass_on_less_than_the_halo_or_off_the_grid_differs() -> None:
    """The plain network, too, needs all of the halo, and reads on the stride grid."""
    network = small_unet(2).double()
    image = torch.randn(1, 3, 128, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        core = network(image)[:, :, 48:64, 48:64]

        def worst(halo: int) -> float:
            read = image[:, :, 48 - halo : 64 + halo, 48 - halo : 64 + halo]
            return (network(read)[:, :, halo : halo + 16, halo : halo + 16] - core).abs().max().item()

        assert worst(24) < 1e-12
        assert worst(20) > 1e-9
        assert worst(30) > 1e-9  # wider, but off the stride grid


def test_original_unet_gets_context_and_equals_its_pass_over_the_mirrored_image() -> None:
    network = unlike_fresh(OriginalUNet(channels=2, depth=4))
    found = footprint(network, 1)
    # 572 px in, 388 px out, as in the paper; the context's top is on the stride grid.
    assert (found.stride, found.offset) == ((16, 16), (92, 92))
    assert found.halo == found.context == Halo(96, 92, 96, 92) == halo_by_gradient(copy.deepcopy(network), 1, found)
    assert Tiled(network, 1).worst_difference(extent=(64, 48), core=(32, 48)) < 1e-12


def test_parameters_are_shared_not_copied() -> None:
    network = small_unet(1)
    run = minimal(network, 3, read_px=(48, 48), need=(16, 16, 32, 32), edges=INSIDE)
    assert {id(p) for p in run.parameters()} == {id(p) for p in network.parameters()}


def test_channels_last_is_kept() -> None:
    network = small_unet(2).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = minimal(network, 3, read_px=(96, 96), need=(32, 32, 64, 64), edges=INSIDE)
    image = torch.randn(1, 3, 96, 96).contiguous(memory_format=torch.channels_last)
    assert not [node for node in run.graph.nodes if node.target in (torch.nn.functional.pad, "contiguous")]
    with torch.no_grad():
        assert run(image).permute(0, 2, 3, 1).stride(3) == 1


def test_tile_at_an_edge_is_computed_without_padding_copies() -> None:
    edges = Edges(top=True, bottom=False, left=True, right=False)
    run = minimal(small_unet(3), 3, read_px=(112, 112), need=(0, 0, 64, 64), edges=edges)
    assert torch.nn.functional.pad not in [node.target for node in run.graph.nodes]


def test_folded_network_has_the_same_footprint_and_logits() -> None:
    plain = Tiled(small_unet(2), 3)
    folded = Tiled(fuse(plain.module), 3)
    image = plain.image((48, 48))
    assert folded.footprint == plain.footprint
    with torch.no_grad():
        difference = folded.tile(image, (16, 16, 24, 24)) - plain.tile(image, (16, 16, 24, 24))
    assert difference.abs().max() < 1e-12


def test_exported_program_keeps_its_layers_and_equals_its_network() -> None:
    plain = Tiled(small_unet(2), 3)
    example = torch.zeros(1, 3, 32, 32, dtype=torch.float64)
    exported = Tiled(torch.export.export(plain.module, (example,)).module(), 3)
    image = plain.image((48, 48))
    assert exported.footprint == plain.footprint
    assert torch.equal(exported.tile(image, (16, 16, 24, 24)), plain.tile(image, (16, 16, 24, 24)))


def test_minimal_network_compiles_to_one_graph() -> None:
    run = minimal(small_unet(1), 3, read_px=(48, 48), need=(16, 16, 32, 32), edges=INSIDE)
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    image = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(compiled(image), run(image))


class OriginalUNet(nn.Module):
    """Ronneberger 2015: convolutions that pad nothing, skips cut around the centre."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        widths = [channels * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(self._pair(i, o) for i, o in zip([1, *widths], widths, strict=False))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(i, o, 2, 2) for i, o in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.merge = nn.ModuleList(self._pair(2 * o, o) for o in widths[-2::-1])

    @staticmethod
    def _pair(channels_in: int, channels_out: int) -> nn.Module:
        convs = [nn.Conv2d(channels_in, channels_out, 3), nn.Conv2d(channels_out, channels_out, 3)]
        return nn.Sequential(convs[0], nn.ReLU(inplace=True), convs[1], nn.ReLU(inplace=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips: list[torch.Tensor] = []
        for level, down in enumerate(self.down):
            x = down(functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x, skip = up(x), skips.pop()
            top, left = (skip.shape[2] - x.shape[2]) // 2, (skip.shape[3] - x.shape[3]) // 2
            x = merge(torch.cat([skip[:, :, top : top + x.shape[2], left : left + x.shape[3]], x], 1))
        return x
