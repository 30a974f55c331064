"""A training's live progress in the terminal."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from flows.reporting.escaping import PlainConsole
from flows.reporting.progress import Throttle, format_seconds
from flows.reporting.terminals import is_live
from unet_core.training.recipe import TrainingConfig

if TYPE_CHECKING:
    from unet_core.training.trainer import TrainingProgress

_RECENT = 50
LIVE_SECONDS, LOG_SECONDS = 0.2, 60.0


class TrainingBar:
    """Shows step, rate, time left, the mean of the last losses and the best score; call it after each step.

    Off a terminal it is a line each minute.
    """

    def __init__(self, config: TrainingConfig, first_step: int, console: Console | None = None) -> None:
        self._config, self._first_step = config, first_step
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
        console = console or PlainConsole()
        self._is_live = is_live(console.file)
        self._bar = Bar(*columns, console=console, transient=True, disable=not self._is_live)
        self._task = self._bar.add_task("training", total=config.steps, completed=first_step, text="")
        self._start = time.monotonic()
        self._due = Throttle(LIVE_SECONDS if self._is_live else LOG_SECONDS)
        self._validations: int | None = None

    def __enter__(self) -> TrainingBar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, progress: TrainingProgress) -> None:
        if self._validations is not None and len(progress.history) > self._validations:
            self._bar.console.print(validated(progress), highlight=False)
        self._validations = len(progress.history)
        if not self._due.due():
            return
        text = self.text(progress, time.monotonic() - self._start)
        self._bar.update(self._task, completed=progress.step, text=text)
        if not self._is_live:
            self._bar.console.print(f"training: {text}", highlight=False, soft_wrap=True)

    def text(self, progress: TrainingProgress, seconds: float) -> str:
        """Text beside the bar, `seconds` after it began."""
        rate = (progress.step - self._first_step) / seconds if seconds > 0 else 0.0
        left = format_seconds((self._config.steps - progress.step) / rate if rate else None)
        recent = progress.losses[-_RECENT:]
        best = f" · best IoU {progress.best_iou:.4f} at {progress.best_step}" if progress.history else ""
        loss = sum(recent) / len(recent)
        return f"{progress.step}/{self._config.steps} steps · {rate:.2f} steps/s · {left} left · loss {loss:.4f}{best}"


def validated(progress: TrainingProgress) -> str:
    """The last validation, in a line."""
    entry = progress.history[-1]
    scores = entry["all"]
    best = ", the best so far" if entry["step"] == progress.best_step else ""
    return (
        f"step {entry['step']:,}: mean IoU {scores['mean_iou']:.4f}, mean Dice {scores['mean_dice']:.4f}, "
        f"objects' AP {scores['average_precision']:.4f}{best}"
    )
