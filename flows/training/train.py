"""Training: reads a recipe and its images, hands them to `unet_core.training.trainer`, and draws how it went."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from flows.config.recipe import Recipe, read_recipe
from flows.training.examples import read_examples

if TYPE_CHECKING:
    from unet_core.training.data import Annotated
    from unet_core.training.trainer import TrainingProgress

logger = logging.getLogger(__name__)

BUNDLE_NAME, CURVES_NAME, SHEET_NAME = "bundle", "curves.png", "validation.png"


def train(
    config_path: Path,
    out: Path | None = None,
    threads: int | None = None,
    processes: int | None = None,
    *,
    live: bool = False,
) -> Path:
    """Train as the recipe says, in the folder `out` (`runs/train-NAME`), and return the bundle's folder.

    The same call again continues where it stopped. `threads` overrides the recipe's; `processes` train together,
    one per GPU by default; `live` shows a bar in the terminal. Raises TrainingError for a recipe, image or label
    that can't be used.
    """
    # Reading a recipe needs no torch; a mistake in it is reported before torch's seconds of import.
    recipe = read_recipe(config_path)
    if threads is not None:
        recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"threads": threads})})
    folder = Path("runs") / f"train-{recipe.card.name}" if out is None else out
    from unet_core.training.processes import default_count, launch

    count = default_count(recipe.training.device) if processes is None else processes
    if count > 1:
        launch(_train_here, (recipe, folder, live), count)
    else:
        _train_here(recipe, folder, live)
    return folder / BUNDLE_NAME


def _train_here(recipe: Recipe, folder: Path, live: bool) -> None:
    """Train in this process, alone or as one of several; the first of them draws the pictures."""
    training, validation = read_examples(recipe.data, recipe.card)
    from unet_core.training.trainer import Trainer

    trainer = Trainer(recipe.training, recipe.card, training, validation, folder)
    logger.info("%d images to train on, %d to validate on", len(training), len(validation))
    with ExitStack() as stack:
        heard: Callable[[TrainingProgress], None]
        if live and trainer.processes.leads:
            from flows.training.progress_bar import TrainingBar

            heard = stack.enter_context(TrainingBar(recipe.training, trainer.progress.step))
        else:
            heard = _Log(recipe.training.checkpoint_every)
        progress = trainer.run(on_step=heard)
    logger.info("best mean foreground IoU %.4f, at step %d", progress.best_iou, progress.best_step)
    if trainer.processes.leads:
        draw_pictures(folder, recipe, progress, validation)


def draw_pictures(folder: Path, recipe: Recipe, progress: TrainingProgress, validation: Sequence[Annotated]) -> None:
    """Write `curves.png`, and `validation.png` with what the best bundle makes of some validation images."""
    from flows.training.contact_sheet import Compared, chosen, write_contact_sheet
    from flows.training.curves import write_curves
    from unet_core.bundles.bundle import load_bundle
    from unet_core.training.evaluation import whole_image_labels
    from unet_core.training.output_grid import OutputGrid

    write_curves(folder / CURVES_NAME, progress, recipe.training)
    bundle = load_bundle(folder / BUNDLE_NAME)
    grid = OutputGrid.of(bundle.module, len(bundle.card.bands))
    rows: list[tuple[str, list[Compared]]] = []
    for kind, indices in chosen(progress.image_ious):
        row: list[Compared] = []
        for index in indices:
            shown = validation[index].whole()
            labels_HW = whole_image_labels(bundle.module, bundle.card, shown.image_HWN, grid)
            truth_HW = grid.finer(shown.labels_HW)
            row.append(Compared(shown.name, progress.image_ious[index], shown.image_HWN, truth_HW, labels_HW))
        rows.append((kind, row))
    write_contact_sheet(folder / SHEET_NAME, rows)


class _Log:
    """Logs the progress of a training, every so many steps."""

    def __init__(self, every: int) -> None:
        self._every = every

    def __call__(self, progress: TrainingProgress) -> None:
        if progress.step % self._every == 0:
            recent = progress.losses[-self._every :]
            logger.info("step %d, loss %.4f", progress.step, sum(recent) / len(recent))


def main() -> None:
    """Train as torchrun starts it on each machine: `-m flows.training.train CONFIG [--out FOLDER] [--threads N]`."""
    parser = argparse.ArgumentParser(description=train.__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    train(arguments.config, arguments.out, arguments.threads)


if __name__ == "__main__":
    main()
