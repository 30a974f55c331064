"""Where a nuclei model's wrong pixels lie: how far from annotated outlines, and what moving all outlines would gain.

    python -m benchmarks.outline_error RECIPE.toml --model BUNDLE [--out FIGURES.json]

measures a bundle on the images that the recipe holds back. *Moved* is the IoU of the mask's foreground if each image's
outlines were moved in or out by the distance that suits its annotation best, which no model can know: what is missing
above it can't be had by one distance for each image. *Within 1 px* is the share of wrong pixels so near an annotated
outline.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flows.config.recipe import read_recipe
from flows.training.examples import read_held_back
from unet_core.bundles.bundle import load_bundle
from unet_core.training.evaluation import whole_image_labels
from unet_core.training.output_grid import OutputGrid

OFFSETS_PX = np.arange(-4, 4.5, 0.5)
"""Distances by which outlines are moved, inwards where they are positive."""
NEAR_PX = (1, 2)

Flags = NDArray[np.bool_]
Figures = dict[str, float]


def figures_of(truth: Flags, found: Flags) -> Figures:
    """Figures of one image's foreground, `(y, x)`."""
    inside, wrong, off = _distance_inside(found), truth ^ found, np.abs(_distance_inside(truth))
    figures = {"iou": _iou(truth, found), "moved": max(_iou(truth, inside > offset) for offset in OFFSETS_PX)}
    for near in NEAR_PX:
        figures[f"within {near} px"] = float((wrong & (off <= near)).sum() / max(1, wrong.sum()))
        figures[f"right within {near} px"] = _iou(truth, np.where(off <= near, truth, found))
    return figures


def measure(bundle_at: Path | str, recipe_at: Path) -> dict[str, Figures]:
    """Means over all images, and over those of each group."""
    bundle, recipe = load_bundle(bundle_at), read_recipe(recipe_at)
    grid = OutputGrid.of(bundle.module, len(bundle.card.bands))
    groups: dict[str, list[Figures]] = {"all": []}
    for example in read_held_back(recipe.data):
        labels_HW = whole_image_labels(bundle.module, bundle.card, example.image_HWN, grid)
        truth_HW = example.labels_HW if example.instances_HW is None else example.instances_HW
        row = figures_of(truth_HW > 0, labels_HW > 0)
        for group in {"all", example.group}:
            groups.setdefault(group, []).append(row)
    return {group: {"images": len(rows), **_mean(rows)} for group, rows in groups.items()}


def _mean(rows: list[Figures]) -> Figures:
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


def _distance_inside(flags: Flags) -> NDArray[np.float64]:
    """The distance of set pixels to the nearest that isn't, and of others to the nearest set one, negative."""
    if not flags.any() or flags.all():
        return np.where(flags, np.inf, -np.inf)
    inside, outside = (cast("NDArray[np.float64]", ndimage.distance_transform_edt(each)) for each in (flags, ~flags))
    return inside - outside


def _iou(truth: Flags, found: Flags) -> float:
    """Intersection over union; 1 where neither holds any."""
    union = int((truth | found).sum())
    return int((truth & found).sum()) / union if union else 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure where a nuclei model's wrong pixels lie.")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    text = json.dumps(measure(given.model, given.recipe), indent=1) + "\n"
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
