"""Curves of a training as one picture: loss, learning rate and validation scores over the steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from flows.reporting.palette import BLUE, GREEN, VERMILION
from flows.training.drawing import PAPER, Line, draw_panel
from unet_core.files import write_whole
from unet_core.training.recipe import TrainingConfig

if TYPE_CHECKING:
    from unet_core.training.trainer import TrainingProgress

_WIDTH_PX, _HEIGHTS_PX = 1000, (320, 180, 340)
_PALE = "#c3d9ea"


def write_curves(path: Path, progress: TrainingProgress, config: TrainingConfig) -> None:
    """Write the picture, a PNG."""
    losses = np.array(progress.losses)
    steps = np.arange(1, len(losses) + 1)
    thinned = slice(None, None, max(1, len(losses) // 2000))
    end = float(max(progress.step, 1))
    panels = [
        draw_panel(
            f"loss ({config.loss})",
            [
                Line("each step", _PALE, steps[thinned].tolist(), losses[thinned].tolist(), 1),
                Line(
                    "mean of the last 50", BLUE, steps[thinned].tolist(), _trailing_mean(losses, 50)[thinned].tolist()
                ),
            ],
            end,
            (_WIDTH_PX, _HEIGHTS_PX[0]),
            log=True,
        ),
        draw_panel(
            f"learning rate ({config.optimizer}, {config.schedule})",
            [Line("", BLUE, steps[thinned].tolist(), [config.rate_at(int(step) - 1) for step in steps[thinned]])],
            end,
            (_WIDTH_PX, _HEIGHTS_PX[1]),
        ),
        draw_panel(
            f"validation, best mean IoU {progress.best_iou:.4f} at step {progress.best_step:,}",
            [
                _score_line("mean IoU", "mean_iou", BLUE, progress.history),
                _score_line("mean Dice", "mean_dice", GREEN, progress.history),
                _score_line("objects' AP", "average_precision", VERMILION, progress.history),
            ],
            end,
            (_WIDTH_PX, _HEIGHTS_PX[2]),
            x_name="step",
        ),
    ]
    picture = Image.new("RGB", (_WIDTH_PX, sum(_HEIGHTS_PX)), PAPER)
    top = 0
    for panel in panels:
        picture.paste(panel, (0, top))
        top += panel.height
    write_whole(path, lambda file: picture.save(file, "PNG"))


def _score_line(name: str, field: str, color: str, history: list[dict[str, Any]]) -> Line:
    return Line(
        name, color, [entry["step"] for entry in history], [entry["all"][field] for entry in history],
        dots=len(history) <= 60,
    )  # fmt: skip


def _trailing_mean(values: np.ndarray[Any, np.dtype[np.float64]], count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The mean of each value and those before it, `count` in all or as many as there are."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - count)
    return (sums[ends] - sums[starts]) / (ends - starts)
