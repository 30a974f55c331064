"""The table of all networks as their papers describe them.

    python -m benchmarks.models          run every network (some minutes on two cores), then write the table
    python -m benchmarks.models --draw   write the table from the figures that are there

Parameters, footprints and multiply-accumulates are counted on tensors without data; what was run is kept in
`benchmarks/results/models.json`, and the table is in `docs/models.md`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.described import DESCRIBED, Described
from unet_core.bounds import (
    Footprint,
    Halo,
    Operations,
    footprint_of,
    inferred,
    operations,
    unbounded_layers,
)
from unet_core.models.patch_classifier import PatchClassifier

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "models.json", ROOT / "docs" / "models.md"
CORES_PX = (512, 1024)
Facts = dict[str, Any]

_HEAD = """# Networks

Written by `python -m benchmarks.models`; don't edit. All return logits; their docstrings give every parameter.

**Counted** from each network's own graph, in the configuration that its paper or document describes (bands → classes):
parameters, footprint and multiply-accumulates (MAC). Halos are in input pixels, exact; *top/bottom* where the two
differ (left and right are the same). *Core 512* and *core 1024* are the work of such a core inside the image to its
share, by area, of one pass over the whole image: computed minimally, and in brackets by a plain pass over the core with
its halo on the stride grid.

**Run**: *MPix/s* is the speed of the described configuration, million image pixels per second of one thread's processor
time, float32, for one core of {speed_core} px inside an image, weights at random. *Differ* counts the labels of a run
(cores of {core} px, from the file over plan and worker to the mask) that are not those of one plain float32 pass over
the whole mirrored image: {height} × {width} px of {tissue}; the same network with 3 bands, one class and
{few}. About half of all labels
are of either class.{ties}

{machine}

| network | configuration | parameters | stride | halo | kMAC per px | core 512 | core 1024 | MPix/s | differ | |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---|"""

_FEW = "8 first channels (the FCNs' head 32, UNet 3+'s skips 8, the patch classifier's hidden units 16)"


def page(facts: Facts) -> str:
    """The whole page as Markdown, from the figures of `registry.measure`."""
    rows, found = facts["rows"], facts["machine"]
    head = _HEAD.format(
        speed_core=facts["speed_core_px"],
        core=facts["core_px"],
        height=facts["crop_px"][0],
        width=facts["crop_px"][1],
        tissue=facts["tissue"],
        few=_FEW,
        ties=_ties(rows),
        machine=f"{found['processor']}, torch {found['versions']['torch']}, {found['date'][:10]}.",
    )
    lines = [_row(described, rows[described.key]) for described in DESCRIBED]
    return "\n".join([head, *lines, "", *_notes(facts)]) + "\n"


def _ties(rows: dict[str, Facts]) -> str:
    """How near to the decision the logits lie whose label differs: as near as rounding is coarse, or a seam."""
    if not any(row["differing"] for row in rows.values()):
        return ""
    farthest = max(row["farthest"] for row in rows.values())
    return (
        " Where a sum in another order is rounded otherwise, a label next to the decision flips: the\n"
        f"farthest of all that did lies {farthest:.0e} of the logits' standard deviation from it."
    )


def _row(described: Described, run: Facts) -> str:
    network = described.build()
    count = sum(parameter.numel() for parameter in network.parameters())
    first = f"| `{described.name}` | {described.configuration} | {count:,} |"
    last = f"{run['mpix_per_s']:.3g} | {run['differing']} of {run['labels'] / 1e6:.1f} million"
    traced = inferred(network, described.bands)
    found = footprint_of(traced)
    unbounded = unbounded_layers(network, described.bands)
    if unbounded:
        return f"{first} {found.stride[0]} | unbounded | | | | {last} | approximate only: {unbounded[0]} |"
    counted = [operations(network, described.bands, (core, core), network=traced) for core in CORES_PX]
    ratios = " | ".join(f"{each.ratio:.2f} ({each.plain_ratio:.2f})" for each in counted)
    work = f"{_per_pixel(counted[0]) / 1000:,.0f}"
    return f"{first} {found.stride[0]} | {_pair(found.halo)} | {work} | {ratios} | {last} | {_remark(found)} |"


def _per_pixel(counted: Operations) -> float:
    return counted.useful / CORES_PX[0] ** 2


def _pair(halo: Halo) -> str:
    return str(halo.top) if halo.top == halo.bottom else f"{halo.top}/{halo.bottom}"


def _remark(found: Footprint) -> str:
    if found.scale[0] != 1:
        return f"output grid {found.scale[0]} times finer"
    return f"unpadded: mirrored context of {_pair(found.context)} px outside the image" if found.offset[0] else ""


def _notes(facts: Facts) -> Iterator[str]:
    """What the table can't say."""
    rate, sliding = _speed(facts, "patch_classifier"), facts["sliding"]["mpix_per_s"]
    network = PatchClassifier(1, 2).to("meta")
    dense = _per_pixel(operations(network, 1, (CORES_PX[0], CORES_PX[0])))
    with FlopCounterMode(display=False) as counter:
        network.classify(torch.empty(1, 1, network.side, network.side, device="meta"))
    slid = counter.get_total_flops() // 2
    yield (
        f"- `patch_classifier`: its dense pass takes {dense / 1000:,.0f} kMAC per pixel, the sliding window that it "
        f"equals\n  (`classify`) {slid / 1000:,.0f} kMAC: {slid / dense:.0f} times as many. Run, the window labels "
        f"{sliding * 1e6:,.0f} pixels per second\n"
        f"  and the dense pass {rate * 1e6:,.0f}: {rate / sliding:.0f} times as many."
    )
    yield (
        "- `unetpp` pruned to a level is as fast as the row of that level: "
        + ", ".join(f"L{level} {_speed(facts, f'unetpp, level {level}'):.3g}" for level in (1, 2, 3, 4))
        + " MPix/s."
    )
    yield (
        "- The classification-guided `unet3p` has no finite footprint; it ran with `--halo approximate:112`, and with "
        "the\n  module telling that something is there, as on most images."
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


def _speed(facts: Facts, key: str) -> float:
    return facts["rows"][key]["mpix_per_s"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Run every network of the registry and write their table.")
    parser.add_argument("--draw", action="store_true", help="write the table from the figures that are there")
    if not parser.parse_args().draw:
        from benchmarks.registry import measure

        facts = measure(print)
        RESULTS.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
