"""Robustness of a nuclei model where slides differ: other pixel sizes, stains, no colour, negatives, JPEG.

    python -m benchmarks.robustness RECIPE.toml --model BUNDLE [--out FIGURES.json] [--plain]

measures a bundle on the images that the recipe holds back (`data.held_back_one_in`), as they are and changed in eight
ways. `--plain` leaves it at the images as they are.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flows.config.recipe import read_recipe
from flows.training.examples import read_held_back
from unet_core.bundles.bundle import load_bundle
from unet_core.training.data import Example
from unet_core.training.evaluation import evaluate

# Optical densities of haematoxylin, eosin and DAB in red, green, blue: Ruifrok and Johnston 2001.
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
Change = Callable[[Example], Example]


def stained(*factors: float) -> Change:
    """Other amounts of haematoxylin, eosin and what is left."""

    def change(example: Example) -> Example:
        density_HWN = -np.log(np.maximum(example.image_HWN, 1) / 255)
        mixing = np.linalg.inv(_STAINS) @ np.diag(factors) @ _STAINS
        return _with_image(example, 255 * np.exp(-(density_HWN @ mixing)))

    return change


def scaled(factor: float) -> Change:
    """Another pixel size: the image smoothed or interpolated, labels by the nearest pixel."""

    def change(example: Example) -> Example:
        height, width = (max(1, round(length * factor)) for length in example.shape[:2])

        def nearest(map_HW: NDArray[Any]) -> NDArray[Any]:
            rows, columns = (
                np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
                for new, old in zip((height, width), map_HW.shape, strict=True)
            )
            return map_HW[rows[:, None], columns]

        resampling = Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC
        image_HWN = np.array(Image.fromarray(example.image_HWN).resize((width, height), resampling))
        instances_HW = None if example.instances_HW is None else nearest(example.instances_HW)
        return replace(example, image_HWN=image_HWN, labels_HW=nearest(example.labels_HW), instances_HW=instances_HW)

    return change


def grey(example: Example) -> Example:
    """The mean of the bands in each of them."""
    mean_HW1 = example.image_HWN.mean(axis=2, keepdims=True)
    return _with_image(example, np.broadcast_to(mean_HW1, example.shape))


def inverted(example: Example) -> Example:
    """The negative."""
    return replace(example, image_HWN=255 - example.image_HWN)


def compressed(quality: int) -> Change:
    """Through a JPEG file with colour at half the resolution."""

    def change(example: Example) -> Example:
        stream = BytesIO()
        Image.fromarray(example.image_HWN).save(stream, "JPEG", quality=quality, subsampling=2)
        return replace(example, image_HWN=np.array(Image.open(stream)))

    return change


CHANGES: dict[str, Change] = {
    "plain": lambda example: example,
    "half": scaled(0.5),
    "double": scaled(2.0),
    "pink": stained(0.9, 1.8, 1.0),
    "dark": stained(1.7, 1.7, 1.7),
    "pale": stained(0.5, 0.5, 0.5),
    "grey": grey,
    "inverted": inverted,
    "jpeg50": compressed(50),
}
_OF_STAINED_ONLY = {"pink", "dark", "pale"}


def measure(bundle_at: Path | str, recipe_at: Path, *, plain: bool) -> dict[str, Any]:
    """Scores per change and group; changes of stain are made to stained images only."""
    bundle, recipe = load_bundle(bundle_at), read_recipe(recipe_at)
    separates = "border" in [each.name for each in bundle.card.classes]
    examples = read_held_back(recipe.data)
    figures: dict[str, Any] = {}
    for name, change in CHANGES.items():
        if plain and name != "plain":
            continue
        chosen = [each for each in examples if name not in _OF_STAINED_ONLY or each.group == "stained"]
        changed = [change(each) for each in chosen]
        scores = evaluate(bundle.module, bundle.card, changed, separates=separates)
        figures[name] = {group: asdict(score) for group, score in scores.items()}
        line = "  ".join(f"{group} IoU {score.mean_iou:.3f} AP50 {score.ap50:.3f}" for group, score in scores.items())
        sys.stdout.write(f"{name:9s} {line}\n")
        sys.stdout.flush()
    return figures


def _with_image(example: Example, image_HWN: NDArray[np.floating]) -> Example:
    return replace(example, image_HWN=image_HWN.round().clip(0, 255).astype(np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plain", action="store_true")
    arguments = parser.parse_args()
    figures = measure(arguments.model, arguments.recipe, plain=arguments.plain)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
