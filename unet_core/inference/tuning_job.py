"""Job that a core is tuned for."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from unet_core.inference.predictor import Precision
from unet_core.inference.tta import Tta


@dataclass(frozen=True, slots=True)
class TuningJob:
    """The job that a core is tuned for.

    memory_bytes: what one worker may take for a tile and the network's intermediates. extent: of the image; a
    core so large that workers stand idle at the end is slower than it looks. workers: that share the tiles.
    """

    precision: Precision
    device: str
    memory_bytes: int
    extent: tuple[int, int] | None = None
    workers: int = 1
    tta: Tta = "none"

    @property
    def device_type(self) -> str:
        return torch.device(self.device).type

    @property
    def in_strips(self) -> bool:
        """True if large cores are computed in strips."""
        return self.device_type == "cpu" and self.tta == "none"
