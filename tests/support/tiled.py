"""A network run tile by tile through `minimal`, beside one pass over the whole image."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from threads import one_thread
from torch import Tensor, nn

from unet_core.bounds import Edges, Footprint, Halo, Network, footprint, inferred, minimal, minimal_strips


def unlike_fresh(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights, biases and running statistics at random, so that no layer is neutral; evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None and part.running_var is not None:
            part.running_mean.copy_(torch.randn(part.running_mean.shape, generator=generator))
            part.running_var.copy_(torch.rand(part.running_var.shape, generator=generator) + 0.5)
    for parameter in module.parameters():
        with torch.no_grad():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise / max(1, parameter[0].numel()) ** 0.5 if parameter.dim() > 1 else noise + 1)
    return module.eval()


@dataclass
class Tiled:
    """`module` in one precision; float64 by default, in which kernels differ by rounding only."""

    module: nn.Module
    bands: int
    dtype: torch.dtype = torch.float64
    strides: int = 1  # height of cores at all edges, in strides
    footprint: Footprint = field(init=False)
    network: Network = field(init=False)

    def __post_init__(self) -> None:
        self.module.to(self.dtype)
        self.footprint = footprint(self.module, self.bands)
        self.network = inferred(self.module, self.bands)

    def image(self, extent: tuple[int, int]) -> Tensor:
        """An image of `extent` with its context, at random."""
        context = self.footprint.context
        height, width = (
            extent[0] + context.top + context.bottom,
            extent[1] + context.left + context.right,
        )
        generator = torch.Generator().manual_seed(1)
        return torch.randn(1, self.bands, height, width, generator=generator, dtype=self.dtype)

    def worst_difference(self, extent: tuple[int, int], core: tuple[int, int]) -> float:
        """The largest difference, over all cores of an image, between a tile's logits and the whole image's."""
        cores = [
            (y, x, min(y + core[0], extent[0]), min(x + core[1], extent[1]))
            for y in range(0, extent[0], core[0])
            for x in range(0, extent[1], core[1])
        ]
        return self.worst_of(extent, cores)

    def worst_at_all_edges(self) -> float:
        """The largest difference over a core inside, at each edge and in two corners, and a small image."""
        halo, stride = self.footprint.halo_on_grid(), self.footprint.stride
        size = (self.strides * stride[0], stride[1])
        if any("reflect" in repr(part).lower() for part in self.module.modules()):
            # What is mirrored at one edge lies inwards, beyond the halo of the core's other side.
            size = (size[0] + halo.top + halo.bottom, stride[1] + halo.left + halo.right)
        worst = 0.0
        # In the first image two strides remain around the inner core's read, so that it has no edge.
        for margin in (halo, Halo(stride[0], stride[0], stride[1], stride[1])):
            extent = (
                margin.top + size[0] + margin.bottom + 4 * stride[0],
                margin.left + size[1] + margin.right + 4 * stride[1],
            )
            starts = [(0, (e - c) // 2 // s * s, e - c) for e, c, s in zip(extent, size, stride, strict=True)]
            cores = [
                (starts[0][i], starts[1][j], starts[0][i] + size[0], starts[1][j] + size[1])
                for i, j in ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2), (0, 2), (2, 0))
            ]
            worst = max(worst, self.worst_of(extent, cores))
        return worst

    def worst_of(self, extent: tuple[int, int], cores: list[tuple[int, int, int, int]]) -> float:
        image, worst = self.image(extent), 0.0
        context = self.footprint.context
        with torch.no_grad(), one_thread():
            whole = self.module(image)
            for core in cores:
                y0, x0, y1, x1 = self.footprint.need(core, (-context.top, -context.left))
                expected = whole[:, :, y0:y1, x0:x1]
                logits = self.tile(image, core)
                assert logits.shape == expected.shape
                worst = max(worst, (logits - expected).abs().max().item())
        return worst

    def tile(self, image: Tensor, core: tuple[int, int, int, int]) -> Tensor:
        """The logits of one core, from its read alone."""
        halo, context = self.footprint.halo_on_grid(), self.footprint.context
        height, width = image.shape[2] - context.top, image.shape[3] - context.left
        y0, x0 = max(-context.top, core[0] - halo.top), max(-context.left, core[1] - halo.left)
        y1, x1 = min(height, core[2] + halo.bottom), min(width, core[3] + halo.right)
        edges = Edges(top=y0 == -context.top, bottom=y1 == height, left=x0 == -context.left, right=x1 == width)
        y, x = y0 + context.top, x0 + context.left
        read = image[:, :, y : y + y1 - y0, x : x + x1 - x0]
        return self.logits(read, self.footprint.need(core, (y0, x0)), edges)

    def logits(self, read: Tensor, need: tuple[int, int, int, int], edges: Edges) -> Tensor:
        """The outputs `need` of a read, computed minimally."""
        read_px = (read.shape[2], read.shape[3])
        return minimal(self.module, self.bands, read_px=read_px, need=need, edges=edges, network=self.network)(read)


@dataclass
class InStrips(Tiled):
    """The same computed in strips so many strides high."""

    strides: int = 5
    strip_strides: int = 1

    def logits(self, read: Tensor, need: tuple[int, int, int, int], edges: Edges) -> Tensor:
        """The outputs `need` of a read, computed strip by strip."""
        strips = minimal_strips(
            self.module,
            self.bands,
            read_px=(read.shape[2], read.shape[3]),
            need=need,
            edges=edges,
            height_px=self.strip_strides * self.footprint.stride[0],
            network=self.network,
        )
        assert len(strips) > 1
        found, kept = list[Tensor](), list[Tensor]()
        for strip in strips:
            logits, *kept = strip.module(read[:, :, strip.read.lo : strip.read.hi], *kept)
            found.append(logits)
        assert not kept, "the last strip has nothing to keep"
        return torch.cat(found, 2)


def halo_by_gradient(module: nn.Module, bands: int, found: Footprint, cores: int = 2) -> Halo:
    """The halo that gradients show: from a core of random weight back to the input, max pooling as average."""
    smooth = smoothed(module).double()
    stride, guess = found.stride, found.halo_on_grid()
    core = tuple(max(1, cores) * s for s in stride)
    # Two strides more than the halo under test on each side, so that a halo that is too small shows.
    before = (guess.top + 2 * stride[0] + found.context.top, guess.left + 2 * stride[1] + found.context.left)
    after = (guess.bottom + 2 * stride[0] + found.context.bottom, guess.right + 2 * stride[1] + found.context.right)
    image = torch.randn(1, bands, before[0] + core[0] + after[0], before[1] + core[1] + after[1]).double()
    image.requires_grad_()
    y0, x0, y1, x1 = found.need((0, 0, core[0], core[1]), (-before[0], -before[1]))
    with one_thread():
        logits = smooth(image)[:, :, y0:y1, x0:x1]
        (logits * torch.rand_like(logits)).sum().backward()
    assert image.grad is not None
    seen = image.grad.abs().sum((0, 1))
    rows, columns = seen.sum(1).nonzero().flatten(), seen.sum(0).nonzero().flatten()
    return Halo(
        max(0, before[0] - int(rows[0])),
        max(0, int(rows[-1]) + 1 - before[0] - core[0]),
        max(0, before[1] - int(columns[0])),
        max(0, int(columns[-1]) + 1 - before[1] - core[1]),
    )


def smoothed(module: nn.Module) -> nn.Module:
    """The same reach without paths that die: ReLU as sigmoid-weighted, max pooling as average pooling."""
    for name, part in module.named_children():
        if isinstance(part, nn.ReLU):
            setattr(module, name, nn.Softplus())
        elif isinstance(part, nn.MaxPool2d):
            setattr(module, name, nn.AvgPool2d(part.kernel_size, part.stride, part.padding, part.ceil_mode))
        elif hasattr(part, "smooth"):
            vars(part)["smooth"] = True
        else:
            smoothed(part)
    return module
