"""Robustness of a nuclei model where slides differ: other pixel sizes, stains, no colour, negatives, JPEG.

    python -m benchmarks.robustness RECIPE.toml --model BUNDLE [--out FIGURES.json] [--change NAME …] [--tta MODE]

measures a bundle on the images that the recipe holds back (`data.held_back_one_in`), as they are and changed in eight
ways: the IoU of the mask's foreground and of its objects, and how many single objects are found and invented. No
change may bring the IoU below 0.75 of the plain one. `--change NAME`, as often as wanted, measures some of them, and
leaves what FIGURES.json says of the others; `--tta` averages over flips, or over flips and turns (d4), as that of
`overtile segment` does.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from flows.config.recipe import read_recipe
from flows.training.examples import read_held_back
from unet_core.bundles.bundle import load_bundle
from unet_core.bundles.card import ModelCard
from unet_core.inference.tta import SYMMETRIES, Tta
from unet_core.training.data import Example
from unet_core.training.evaluation import GROWN_PX, LEAST_PX, whole_image_labels
from unet_core.training.instances import components, match_objects
from unet_core.training.output_grid import OutputGrid
from unet_core.training.separation import grown

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
    "pink": stained(0.9, 1.8, 1.0),
    "dark": stained(1.7, 1.7, 1.7),
    "pale": stained(0.5, 0.5, 0.5),
    "grey": grey,
    "inverted": inverted,
    "jpeg50": compressed(50),
    "double": scaled(2.0),
}
_OF_STAINED_ONLY = {"pink", "dark", "pale"}


@dataclass(frozen=True, slots=True)
class Figures:
    """Means over a set of images.

    `mask_iou` is that of all classes above 0 together, `iou` that of the objects' pixels. `ap50` counts objects that
    overlap by more than one half: found / (found + invented + missed); `recall50` and `precision50` are found of the
    true and of the predicted ones.
    """

    images: int
    mask_iou: float
    iou: float
    ap50: float
    recall50: float
    precision50: float


def measure(
    bundle_at: Path | str,
    recipe_at: Path,
    out: Path | None = None,
    *,
    changes: Iterable[str] = tuple(CHANGES),
    tta: Tta = "none",
) -> dict[str, Any]:
    """Figures per change and group, written after each; changes of stain are made to stained images only."""
    bundle, recipe = load_bundle(bundle_at), read_recipe(recipe_at)
    module = bundle.module if tta == "none" else Averaged(bundle.module, tta).eval()
    grid = OutputGrid.of(bundle.module, len(bundle.card.bands))
    examples = read_held_back(recipe.data)
    figures: dict[str, Any] = {}
    if out is not None and out.is_file():
        figures = json.loads(out.read_text(encoding="utf-8"))
    for name in changes:
        change = CHANGES[name]
        chosen = [each for each in examples if name not in _OF_STAINED_ONLY or each.group == "stained"]
        rows = [(each.group, _row(module, bundle.card, change(each), grid)) for each in chosen]
        groups = {"all": [row for _, row in rows]}
        for group, row in rows:
            groups.setdefault(group, []).append(row)
        figures[name] = {group: asdict(_mean(members)) for group, members in groups.items()}
        line = "  ".join(
            f"{group} IoU {of['iou']:.3f} AP50 {of['ap50']:.3f} found {of['recall50']:.3f}"
            for group, of in figures[name].items()
        )
        sys.stdout.write(f"{name:9s} {line}\n")
        sys.stdout.flush()
        if out is not None:
            out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return figures


class Averaged(nn.Module):
    """The mean of a network's logits over the symmetries of a picture."""

    def __init__(self, module: nn.Module, tta: Tta) -> None:
        super().__init__()
        self.module, self.symmetries = module, SYMMETRIES[tta]

    def forward(self, x_NCHW: Tensor) -> Tensor:
        seen = [each.of_tile(x_NCHW[0].permute(1, 2, 0)).permute(2, 0, 1)[None] for each in self.symmetries]
        logits = (each.undo(self.module(x)) for each, x in zip(self.symmetries, seen, strict=True))
        return torch.stack([*logits]).mean(dim=0)


def _row(module: nn.Module, card: ModelCard, example: Example, grid: OutputGrid) -> NDArray[np.float64]:
    """The figures of one image, in the order of `Figures`."""
    labels_HW = whole_image_labels(module, card, example.image_HWN, grid)
    objects_HW = objects_in(labels_HW, card)
    truth_HW = example.labels_HW if example.instances_HW is None else example.instances_HW
    matches = match_objects(truth_HW, objects_HW, (0.5,))
    found, invented, missed = (int(each[0]) for each in (matches.found, matches.invented, matches.missed))
    return np.array(
        [
            _iou(truth_HW > 0, labels_HW > 0),
            _iou(truth_HW > 0, objects_HW > 0),
            _share(found, found + invented + missed),
            _share(found, found + missed),
            _share(found, found + invented),
        ]
    )


def objects_in(labels_HW: NDArray[np.uint8], card: ModelCard) -> NDArray[np.int32]:
    """Numbered objects: grown from interiors where the card has borders, else connected pixels."""
    if "border" in [each.name for each in card.classes]:
        return grown(labels_HW, GROWN_PX, LEAST_PX, fills_holes=True)
    return components(labels_HW, 1)


def _mean(rows: list[NDArray[np.float64]]) -> Figures:
    return Figures(len(rows), *(round(float(each), 4) for each in np.nanmean(np.array(rows), axis=0)))


def _iou(truth_HW: NDArray[np.bool_], found_HW: NDArray[np.bool_]) -> float:
    return _share(int((truth_HW & found_HW).sum()), int((truth_HW | found_HW).sum()))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _with_image(example: Example, image_HWN: NDArray[np.floating]) -> Example:
    return replace(example, image_HWN=image_HWN.round().clip(0, 255).astype(np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--change", action="append", choices=[*CHANGES])
    parser.add_argument("--tta", default="none", choices=[*SYMMETRIES])
    arguments = parser.parse_args()
    changes = arguments.change or [*CHANGES]
    measure(arguments.model, arguments.recipe, arguments.out, changes=changes, tta=arguments.tta)


if __name__ == "__main__":
    main()
