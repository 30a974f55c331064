"""Calibration of a network of interiors and borders: how its three logits are weighed against each other.

    python -m benchmarks.calibrate RECIPE.toml --model BUNDLE --out BUNDLE

adds to the logits of ground and border what gives the best sum of the objects' IoU and of single objects found (AP50)
on the images that checkpoints are chosen on, and writes the bundle with that in its last bias. The images that the
recipe holds back are not looked at.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flows.config.recipe import read_recipe
from flows.training.examples import read_examples
from unet_core.bundles.bundle import Bundle, load_bundle, save_bundle
from unet_core.training.data import Example
from unet_core.training.evaluation import GROWN_PX, LEAST_PX
from unet_core.training.instances import match_objects
from unet_core.training.output_grid import OutputGrid
from unet_core.training.separation import grown

GROUND, BORDER, LEAST = (0.0, 0.3, 0.6, 0.9), (-0.4, 0.0, 0.4, 0.8), (6, 12, LEAST_PX, 30)
Shift = tuple[float, float, float]
Scores = tuple[float, float]


def logits_of(bundle: Bundle, examples: list[Example]) -> list[NDArray[np.float32]]:
    """The logits `(H, W, 3)` of whole images."""
    grid = OutputGrid.of(bundle.module, len(bundle.card.bands))
    with torch.inference_mode():
        return [
            grid.run(bundle.module.eval(), each.image_HWN, bundle.card.normalization)[0].permute(1, 2, 0).numpy()
            for each in examples
        ]


def scores(logits: list[NDArray[np.float32]], examples: list[Example], shift: Shift, least_px: int) -> Scores:
    """Mean IoU of the objects' pixels and mean AP50 with the shift added to the logits."""
    rows: list[Scores] = []
    for logits_HWC, example in zip(logits, examples, strict=True):
        assert example.instances_HW is not None
        labels_HW = (logits_HWC + np.array(shift, np.float32)).argmax(axis=2).astype(np.uint8)
        objects_HW = grown(labels_HW, GROWN_PX, least_px, fills_holes=True)
        true_HW, found_HW = example.instances_HW > 0, objects_HW > 0
        ap50 = float(match_objects(example.instances_HW, objects_HW, (0.5,)).precision()[0])
        rows.append((float((true_HW & found_HW).sum() / max(1, (true_HW | found_HW).sum())), ap50))
    iou, ap50 = np.nanmean(np.array(rows), axis=0)
    sys.stdout.write(f"ground {shift[0]:+.1f} border {shift[2]:+.1f} least {least_px}: IoU {iou:.4f} AP50 {ap50:.4f}\n")
    sys.stdout.flush()
    return float(iou), float(ap50)


def best_shift(logits: list[NDArray[np.float32]], examples: list[Example]) -> tuple[Shift, int]:
    """The shift of ground, then that of border, then the least object with the best sum of both scores."""

    def best(candidates: list[tuple[Shift, int]]) -> tuple[Shift, int]:
        return max(candidates, key=lambda each: sum(scores(logits, examples, *each)))

    (ground, _, _), _ = best([((step, 0.0, 0.0), LEAST_PX) for step in GROUND])
    shift, _ = best([((ground, 0.0, step), LEAST_PX) for step in BORDER])
    return best([(shift, least_px) for least_px in LEAST])


def calibrated(bundle: Bundle, shift: Shift, facts: dict[str, Any]) -> Bundle:
    """The bundle with the shift in its last bias and the facts on its card."""
    head = next(name for name, _ in reversed([*bundle.module.named_parameters()]) if name.endswith("bias"))
    with torch.no_grad():
        dict(bundle.module.named_parameters())[head].add_(torch.tensor(shift))
    return Bundle(bundle.card.model_copy(update={"training": {**bundle.card.training, **facts}}), bundle.module, "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    recipe, bundle = read_recipe(arguments.recipe), load_bundle(arguments.model)
    examples = [each.whole() for each in read_examples(recipe.data, recipe.card)[1]]
    shift, least_px = best_shift(logits_of(bundle, examples), examples)
    summary = f"ground {shift[0]:+.1f}, border {shift[2]:+.1f}, chosen on {len(examples)} images"
    made = calibrated(bundle, shift, {"calibration": f"added to the logits: {summary}"})
    save_bundle(arguments.out, made.card, made.module)
    sys.stdout.write(f"{summary}; least object {least_px} px\n")


if __name__ == "__main__":
    main()
