"""The training command: reads a recipe and its images, and hands them to `unet_core.training`."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from flows.examples import read_examples
from flows.recipe import read_recipe

logger = logging.getLogger(__name__)


def train(config_path: Path, out: Path | None = None, threads: int | None = None) -> Path:
    """Train as the recipe says, in the folder `out` (`runs/train-NAME`), and return the bundle's folder.

    The same call again continues where it stopped. `threads` overrides the recipe's. Raises TrainingError
    for a recipe, image or label that can't be used.
    """
    # Reading a recipe needs no torch; a mistake in it is told before torch's seconds of import.
    recipe = read_recipe(config_path)
    if threads is not None:
        recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"threads": threads})})
    training, validation = read_examples(recipe.data, recipe.card)
    from unet_core.training import BUNDLE_NAME, Trainer

    logger.info("%d images to train on, %d to validate on", len(training), len(validation))
    folder = Path("runs") / f"train-{recipe.card.name}" if out is None else out
    progress = Trainer(recipe.training, recipe.card, training, validation, folder).run()
    logger.info("best mean foreground IoU %.4f, at step %d", progress.best_iou, progress.best_step)
    return folder / BUNDLE_NAME


def main() -> None:
    """`python -m flows.train CONFIG [--out FOLDER] [--threads N]`."""
    parser = argparse.ArgumentParser(description=train.__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    train(arguments.config, arguments.out, arguments.threads)


if __name__ == "__main__":
    main()
