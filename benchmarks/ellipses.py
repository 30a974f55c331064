"""Ellipses among other shapes, with skips and without: `python -m benchmarks.ellipses`.

Trains both networks on one core, then writes `docs/ellipses.png` and the figures to `docs/ellipses.md`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from flows.config.recipe import read_recipe
from flows.training.examples import read_examples
from flows.training.train import train
from unet_core.bundles.bundle import Bundle, load_bundle
from unet_core.training.data import Example
from unet_core.training.evaluation import Score, evaluate, whole_image_labels
from unet_core.training.output_grid import OutputGrid

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "unet_core" / "recipes" / "ellipses.toml"
SHOWN = 4
ZOOM = 2
RIGHT, MISSED, INVENTED = (255, 255, 255), (0, 114, 178), (213, 94, 0)
_HEAD_PX, _GAP_PX = 20, 8


def without_skips(recipe: str) -> str:
    """The same recipe for the network whose levels see only what comes up from below."""
    return re.sub(r"\bskips = true\b(?=[^#\n]*}$)", "skips = false", recipe, flags=re.MULTILINE)


def trained(name: str, recipe: str) -> Bundle:
    """The bundle of a recipe, trained in a folder of its own; a finished training is not run again."""
    folder = ROOT / "runs" / f"train-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(recipe, encoding="utf-8")
    return load_bundle(train(folder / "recipe.toml", folder))


def grid(bundle: Bundle) -> OutputGrid:
    return OutputGrid.of(bundle.module, len(bundle.card.bands))


def compared(truth_HW: NDArray[Any], predicted_HW: NDArray[Any]) -> NDArray[np.uint8]:
    """A picture `(H, W, 3)` of a prediction: right in white, missed in blue, invented in orange."""
    picture = np.zeros((*truth_HW.shape, 3), np.uint8)
    picture[(truth_HW > 0) & (predicted_HW > 0)] = RIGHT
    picture[(truth_HW > 0) & (predicted_HW == 0)] = MISSED
    picture[(truth_HW == 0) & (predicted_HW > 0)] = INVENTED
    return picture


def draw(examples: Sequence[Example], bundles: Sequence[Bundle]) -> Image.Image:
    """One row per example: the image, the truth, and each network's labels against it."""
    rows: list[list[NDArray[np.uint8]]] = []
    for example in examples:
        truth = example.labels_HW
        labels = [whole_image_labels(b.module, b.card, example.image_HWN, grid(b)) for b in bundles]
        rows.append([example.image_HWN.repeat(3, 2), *(compared(truth, each) for each in [truth, *labels])])
    side = len(rows[0][0]) * ZOOM
    sheet = Image.new("RGB", ((side + _GAP_PX) * 4 - _GAP_PX, _HEAD_PX + (side + _GAP_PX) * len(rows)), (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(("image", "truth", "with skips", "without skips")):
        pen.text((column * (side + _GAP_PX) + 2, 3), title, (0, 0, 0), font_size=13)
        for row, pictures in enumerate(rows):
            tile = Image.fromarray(pictures[column]).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(tile, (column * (side + _GAP_PX), _HEAD_PX + row * (side + _GAP_PX)))
    return sheet


def page(scores: Sequence[Score], bundles: Sequence[Bundle]) -> str:
    """The figures as a page of Markdown."""
    lines = [
        "# Ellipses, with skips and without",
        "",
        "Written by `python -m benchmarks.ellipses`; don't edit. Grey images hold ellipses, rectangles, triangles and",
        "lines of the same sizes and greys, in noise; only ellipses are foreground, so the shape alone tells. Two",
        "networks `unet_configurable` (8 first channels, depth 4) learn from one recipe,",
        "[ellipses.toml](../unet_core/recipes/ellipses.toml), on one core; they differ in one parameter, `skips`.",
        f"Figures are means over {scores[0].images} generated images that neither has learnt from.",
        "",
        "| | parameters | Dice | IoU | precision | recall |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for title, score, bundle in zip(("with skips", "without skips"), scores, bundles, strict=True):
        count = sum(parameter.numel() for parameter in bundle.module.parameters())
        lines.append(
            f"| {title} | {count:,} | {score.mean_dice:.3f} | {score.mean_iou:.3f} | {score.precision:.3f} | "
            f"{score.recall:.3f} |"
        )
    return "\n".join(
        [
            *lines,
            "",
            "![Images, truth and both networks' labels](ellipses.png)",
            "",
            "White: found. Blue: missed. Orange: invented. The first validation images, not chosen. Both networks tell",
            "ellipses from the rest; without skips, what is lost on the way down shows at the outlines.",
            "",
        ]
    )


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    text = RECIPE.read_text(encoding="utf-8")
    bundles = [trained("ellipses", text), trained("ellipses-without-skips", without_skips(text))]
    recipe = read_recipe(RECIPE)
    validation = [example.whole() for example in read_examples(recipe.data, recipe.card)[1]]
    scores = [evaluate(bundle.module, bundle.card, validation, grid(bundle))["all"] for bundle in bundles]
    draw(validation[:SHOWN], bundles).save(ROOT / "docs" / "ellipses.png", optimize=True)
    (ROOT / "docs" / "ellipses.md").write_text(page(scores, bundles), encoding="utf-8")


if __name__ == "__main__":
    main()
