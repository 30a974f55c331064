"""The table of all networks as their papers describe them: `python -m benchmarks.models > docs/models.md`.

Nothing is computed: parameters, footprints and multiply-accumulates are counted on tensors without data.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from unet_core.bounds import (
    Footprint,
    Halo,
    Operations,
    footprint_of,
    inferred,
    operations,
    unbounded_layers,
)
from unet_core.models import build
from unet_core.models.patch_classifier import PatchClassifier

CORES_PX = (512, 1024)
_GUIDED: dict[str, Any] = {"deep_supervision": True, "classification_guided": True}


@dataclass(frozen=True, slots=True)
class Described:
    """A network in the configuration that its paper or document describes."""

    name: str
    bands: int
    classes: int
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def configuration(self) -> str:
        told = [f"{name} {value}" for name, value in self.options.items() if value is not True]
        told += [name.replace("_", " ") for name, value in self.options.items() if value is True]
        return ", ".join([f"{self.bands} → {self.classes}", *told])

    def build(self) -> nn.Module:
        """The network, without memory for its weights."""
        with torch.device("meta"):
            return build(self.name, {"bands": self.bands, "classes": self.classes, **self.options})


DESCRIBED = (
    Described("unet", 1, 1),
    Described("unet_original", 1, 2),
    Described("unet_configurable", 1, 1),
    Described("unet_dice", 1, 1),
    Described("unet_strided", 3, 3),
    Described("unet_x1", 3, 6),
    Described("unet_x3", 3, 3),
    Described("unet_bn_deconv", 1, 1),
    Described("unet_bn", 3, 1),
    Described("fcn32s", 3, 21),
    Described("fcn16s", 3, 21),
    Described("fcn8s", 3, 21),
    Described("unetpp", 1, 1, {"deep_supervision": True}),
    *(Described("unetpp", 1, 1, {"level": level}) for level in (1, 2, 3, 4)),
    Described("unet3p", 3, 1),
    Described("unet3p", 3, 1, {"deep_supervision": True}),
    Described("unet3p", 3, 1, _GUIDED),
    Described("resnet34_unet", 3, 1),
    Described("patch_classifier", 1, 2),
)

_HEAD = """# Networks

Written by `python -m benchmarks.models > docs/models.md`; don't edit. Nothing here is measured: parameters, footprints
and multiply-accumulates (MAC) are counted from each network's own graph, in the configuration that its paper or
document describes (bands → classes). All return logits; their docstrings give every parameter. Halos are in input
pixels, exact; *top/bottom* where the two differ (left and right are the same). *Computed : useful* is the work of a
core inside the image to its share, by area, of one pass over the whole image: computed minimally, and in brackets by a
plain pass over the core with its halo on the stride grid.

| network | configuration | parameters | stride | halo | kMAC per px | core 512 | core 1024 | |
|---|---|---:|---:|---:|---:|---:|---:|---|"""


def page() -> str:
    """The whole page as Markdown."""
    return "\n".join([_HEAD, *(_row(described) for described in DESCRIBED), "", *_notes()]) + "\n"


def _row(described: Described) -> str:
    network = described.build()
    count = sum(parameter.numel() for parameter in network.parameters())
    first = f"| `{described.name}` | {described.configuration} | {count:,} |"
    traced = inferred(network, described.bands)
    found = footprint_of(traced)
    unbounded = unbounded_layers(network, described.bands)
    if unbounded:
        return f"{first} {found.stride[0]} | unbounded | | | | approximate only: {unbounded[0]} |"
    counted = [operations(network, described.bands, (core, core), network=traced) for core in CORES_PX]
    ratios = " | ".join(f"{each.ratio:.2f} ({each.plain_ratio:.2f})" for each in counted)
    work = f"{_per_pixel(counted[0]) / 1000:,.0f}"
    return f"{first} {found.stride[0]} | {_pair(found.halo)} | {work} | {ratios} | {_remark(found)} |"


def _per_pixel(counted: Operations) -> float:
    return counted.useful / CORES_PX[0] ** 2


def _pair(halo: Halo) -> str:
    return str(halo.top) if halo.top == halo.bottom else f"{halo.top}/{halo.bottom}"


def _remark(found: Footprint) -> str:
    if found.scale[0] != 1:
        return f"output grid {found.scale[0]} times finer"
    return f"unpadded: mirrored context of {_pair(found.context)} px outside the image" if found.offset[0] else ""


def _notes() -> Iterator[str]:
    """What the table can't say."""
    network = PatchClassifier(1, 2).to("meta")
    dense = _per_pixel(operations(network, 1, (CORES_PX[0], CORES_PX[0])))
    with FlopCounterMode(display=False) as counter:
        network.classify(torch.empty(1, 1, network.side, network.side, device="meta"))
    slid = counter.get_total_flops() // 2
    yield (
        f"- `patch_classifier`: its dense pass takes {dense / 1000:,.0f} kMAC per pixel, the sliding window that it "
        f"equals\n  (`classify`) {slid / 1000:,.0f} kMAC: {slid / dense:.0f} times as many."
    )
    yield (
        "- `unetpp`, `unet3p`: `supervised(x)` returns the logits of every head for training; `unetpp`'s "
        "`pruned(level)` is the\n  network of a lower level with the nodes that it doesn't need gone."
    )
    yield (
        "- `fcn32s`, `fcn16s`, `fcn8s`, `resnet34_unet`: `unet_core.models.pretrained.load_classifier` fills them "
        "from the\n  weights of torchvision's `vgg16` or `resnet34`, turns fully connected layers into convolutions "
        "and names what\n  has no place."
    )


if __name__ == "__main__":
    sys.stdout.write(page())
