"""Cost of a core computed as a whole and in strips: processor seconds per megapixel, memory, and labels that differ.

    python -m benchmarks.strips --json runs/strips.json

One thread, noise as pixels, one core with image on every side; each round measures every way once, in turn, so that
other work on the machine meets all alike. Counted beside it: multiply-accumulates to the core's share of one pass
over the whole image.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.described import Described
from benchmarks.registry import card_of, weighted
from unet_core.bounds import Edges, footprint_of, inferred, minimal_strips, operations
from unet_core.bundles.bundle import Bundle, load_bundle
from unet_core.inference.predictor import Precision, Predictor
from unet_core.inference.strip_height import STRIP_PX, strip_height
from unet_core.models import build

Row = dict[str, Any]
NETWORKS = {"resnet34_unet": {}, "fcn8s": {}}
WHOLE_PX, WHOLE = 1024, 1 << 60
INSIDE = Edges(top=False, bottom=False, left=False, right=False)


def bundle_named(name: str) -> Bundle:
    """A shipped model, or a network of the registry as described, with random weights."""
    if name not in NETWORKS:
        return load_bundle(name)
    described = Described(name, 3, 2)
    return Bundle(card_of(described, 0.5), weighted(build(name, described.parameters)), "")


def counted(bundle: Bundle, core_px: int, strip_px: int) -> float:
    """Multiply-accumulates to the core's share of one pass over the whole image."""
    bands = len(bundle.card.bands)
    network = inferred(bundle.module, bands)
    found = operations(bundle.module, bands, (core_px, core_px), network=network)
    height_px = strip_height(strip_px, core_px, network.stride[0])
    if height_px >= core_px:
        return found.ratio
    halo = footprint_of(network).halo_on_grid()
    strips = minimal_strips(
        bundle.module,
        bands,
        read_px=(core_px + halo.top + halo.bottom, core_px + halo.left + halo.right),
        need=footprint_of(network).need((0, 0, core_px, core_px), (-halo.top, -halo.left)),
        edges=INSIDE,
        height_px=height_px,
        network=network,
    )
    macs = sum(node.meta.get("macs", 0) for strip in strips for node in strip.module.graph.nodes)
    return macs / found.useful


class Way:
    """One way to compute a core."""

    def __init__(self, bundle: Bundle, precision: Precision, core_px: int, strip_px: int) -> None:
        self.core_px, self.strip_px = core_px, strip_px
        self.predictor = Predictor(bundle, precision=precision, strip_px=strip_px)
        read_px, self.region = self.predictor.inside(core_px)
        shape = (*read_px, len(bundle.card.bands))
        self.tile_HWC = np.random.default_rng(7).integers(0, 256, shape).astype(bundle.card.dtype)
        self.seconds: list[float] = []

    def measure(self) -> None:
        began = time.thread_time()
        self.predictor.predict(self.tile_HWC, self.region)
        self.seconds.append((time.thread_time() - began) / self.core_px**2 * 1e6)


def measured(name: str, precision: Precision, ways: list[tuple[int, int]], rounds: int) -> list[Row]:
    """Seconds per megapixel of each way: the median of rounds that measure all of them in turn."""
    torch.set_num_threads(1)
    bundle = bundle_named(name)
    made = [Way(bundle, precision, core_px, strip_px) for core_px, strip_px in ways]
    for number in range(rounds + 1):
        for way in made:
            way.measure()
            if not number:
                way.seconds.clear()  # the first pass builds graphs and kernels
    base = made[0]
    rows: list[Row] = []
    for way in made:
        paired = [first / other for first, other in zip(base.seconds, way.seconds, strict=True)]
        rows.append(
            {
                "network": name,
                "precision": precision,
                "core_px": way.core_px,
                "strip_px": None if way.strip_px == WHOLE else way.strip_px,
                "counted": counted(bundle, way.core_px, way.strip_px),
                "seconds_per_mpix": median(way.seconds),
                "times_as_fast": median(paired),
            }
        )
    return rows


def peak_bytes(name: str, precision: Precision, core_px: int, strip_px: int) -> int:
    """Peak memory of a fresh process that computes one core."""
    code = (
        "import resource, sys; from benchmarks import strips; import torch; torch.set_num_threads(1); "
        f"strips.Way(strips.bundle_named({name!r}), {precision!r}, {core_px}, {strip_px}).measure(); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    return int(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["nuclei-small", *NETWORKS])
    parser.add_argument("--precisions", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--cores", nargs="+", type=int, default=[2048, 4096])
    parser.add_argument("--strip", nargs="+", type=int, default=[STRIP_PX])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="measure peak memory too, each in a process of its own")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows: list[Row] = []
    for name in given.networks:
        precisions: list[Precision] = given.precisions
        for precision in precisions:
            ways = [(WHOLE_PX, WHOLE), *((core, strip) for core in given.cores for strip in given.strip)]
            for row in measured(name, precision, ways, given.rounds):
                if given.memory:
                    strip_px = row["strip_px"] or WHOLE
                    row["peak_bytes"] = peak_bytes(name, precision, row["core_px"], strip_px)
                rows.append(row)
                sys.stdout.write(json.dumps(row) + "\n")
                sys.stdout.flush()
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
