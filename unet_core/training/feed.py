"""The crops of each step, drawn ahead by threads where a GPU would wait for them."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from unet_core.errors import TrainingError
from unet_core.training.augmentation import Crop, CropSampler
from unet_core.training.processes import Processes


class Feed:
    """Hands out this process's share of each batch, in equal passes.

    Crops follow from the seed and the step alone, so drawing ahead changes none. Raises TrainingError for a batch
    that can't be split evenly.
    """

    def __init__(self, sampler: CropSampler, processes: Processes, loaders: int) -> None:
        batch, accumulate = sampler.config.batch, sampler.config.accumulate
        parts = processes.count * accumulate
        if batch % parts:
            raise TrainingError(
                f"batch {batch} can't be split evenly over {processes.count} processes of {accumulate} passes each: "
                f"use batch {-(-batch // parts) * parts}"
            )
        share = batch // parts
        first = processes.rank * accumulate
        self._bounds = [(part * share, (part + 1) * share) for part in range(first, first + accumulate)]
        self._sampler, self._loaders = sampler, loaders
        self._threads = ThreadPoolExecutor(loaders, "draw") if loaders else None
        self._ahead: dict[int, Future[list[Crop]]] = {}

    def take(self, step: int) -> list[Crop]:
        """The passes of one step."""
        if self._threads is None:
            return self._draw(step)
        for coming in range(step, step + self._loaders + 1):
            if coming not in self._ahead:
                self._ahead[coming] = self._threads.submit(self._draw, coming)
        return self._ahead.pop(step).result()

    def close(self) -> None:
        """Let the threads end; what they have drawn ahead is dropped."""
        for coming in self._ahead.values():
            coming.cancel()
        self._ahead.clear()

    def _draw(self, step: int) -> list[Crop]:
        return [self._sampler.batch(step, start, stop) for start, stop in self._bounds]
