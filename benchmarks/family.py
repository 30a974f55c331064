"""U-Net, UNet++ and UNet 3+ on one task under one budget: the same crops and steps, arithmetic within a third.

    python -m benchmarks.family --out runs/family

Trains each network on the recipe of the shipped `nuclei-small` bundle, shortened, and writes `docs/family.md`. The
crops of a step follow from the recipe's seed alone, so all networks see the same. Started again, it resumes.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.config.recipe import Recipe, read_recipe
from flows.training.examples import read_examples
from unet_core.bounds import operations
from unet_core.bundles.bundle import load_bundle
from unet_core.training.trainer import Trainer

RECIPE = Path("unet_core/recipes/nuclei.toml")
PAGE = Path("docs/family.md")
COUNTED_PX = 256


@dataclass(frozen=True, slots=True)
class Entrant:
    """A network of about 45 to 60 thousand multiply-accumulates per pixel."""

    name: str
    parameters: dict[str, Any]
    norm: str


ENTRANTS = (
    Entrant("unet", {"first_channels": 16, "depth": 4}, "batch norm"),
    Entrant("unetpp", {"first_channels": 10, "deep_supervision": True}, "none, as in its paper"),
    Entrant("unet3p", {"first_channels": 12, "skip_channels": 8, "deep_supervision": True}, "batch norm"),
)


def recipe_for(entrant: Entrant, steps: int, tile_px: int, threads: int) -> Recipe:
    """The shipped recipe with another network and a smaller budget."""
    recipe = read_recipe(RECIPE)
    bands, classes = len(recipe.card.bands), recipe.card.outputs
    card = recipe.card.model_copy(
        update={
            "architecture": entrant.name,
            "parameters": {"bands": bands, "classes": classes, **entrant.parameters},
        }
    )
    budget = {"steps": steps, "tile_px": tile_px, "validate_every": steps, "average_decay": 0.99, "threads": threads}
    return recipe.model_copy(update={"card": card, "training": recipe.training.model_copy(update=budget)})


def measure(entrant: Entrant, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Train one network and return its figures, from its bundle's card."""
    training, validation = read_examples(recipe.data, recipe.card)
    trainer = Trainer(recipe.training, recipe.card, training, validation, folder)
    first, began = trainer.progress.step, time.perf_counter()
    trainer.run()
    seconds, steps = time.perf_counter() - began, recipe.training.steps - first
    bundle = load_bundle(folder / "bundle")
    # What predicts is counted: heads that only training uses are left out.
    counted = operations(bundle.module, len(recipe.card.bands), (COUNTED_PX, COUNTED_PX))
    figures: dict[str, Any] = {
        "name": entrant.name,
        "parameters": entrant.parameters,
        "norm": entrant.norm,
        "weights": sum(parameter.numel() for parameter in bundle.module.parameters()),
        "macs_per_pixel": counted.useful / COUNTED_PX**2,
        "seconds_per_step": seconds / steps if steps else None,
        "validation": bundle.card.training["validation"]["all"],
        "pruned": bundle.card.training.get("pruned", {}),
    }
    return figures


def page(rows: list[dict[str, Any]], recipe: Recipe) -> str:
    """The table, as Markdown."""
    training = recipe.training
    about = (
        f"Nuclei in microscopy (the data, split and variations of `{RECIPE}`), {training.steps} steps of "
        f"{training.batch} crops of {training.tile_px} px, the same crops for all. Channels are chosen so that each "
        "network takes about the same arithmetic per pixel. The shipped bundle was given many times this budget: it "
        "compares how the networks start, not where they end. Means over the validation images; AP is the objects' "
        "average precision."
    )
    head = "| network | described by | norm | parameters | thousand MACs per pixel | s per step |"
    shown = [
        "# U-Net, UNet++ and UNet 3+ on one task",
        "",
        "Written by `python -m benchmarks.family`; don't edit.",
        "",
        about,
        "",
    ]
    shown += [f"{head} mean IoU | mean Dice | AP |", "|---|---|---|---:|---:|---:|---:|---:|---:|"]
    for row in rows:
        options = ", ".join(f"{key} {value}" for key, value in row["parameters"].items())
        cost = f"{row['seconds_per_step']:.2f}" if row["seconds_per_step"] else ""
        facts = (
            f"| `{row['name']}` | {options} | {row['norm']} | {row['weights']:,} | {row['macs_per_pixel'] / 1e3:.1f} "
        )
        shown.append(f"{facts}| {cost} | {_scores(row['validation'])} |")
        for level, score in row["pruned"].items():
            shown.append(f"| `{row['name']}` pruned to {level} | | | | | | {_scores(score)} |")
    return "\n".join([*shown, ""])


def _scores(score: dict[str, Any]) -> str:
    return f"{score['mean_iou']:.3f} | {score['mean_dice']:.3f} | {score['average_precision']:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the family's networks under one budget.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--tile", type=int, default=192)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    rows: list[dict[str, Any]] = []
    for entrant in ENTRANTS:
        recipe = recipe_for(entrant, given.steps, given.tile, given.threads)
        folder, kept = given.out / entrant.name, given.out / f"{entrant.name}.json"
        if not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(measure(entrant, recipe, folder), indent=2))
        rows.append(json.loads(kept.read_text()))
        PAGE.write_text(page(rows, recipe), encoding="utf-8")


if __name__ == "__main__":
    main()
