"""What torch loads on first use, loaded while nobody waits for it."""

from __future__ import annotations

from torch import nn

from unet_core.bounds import footprint


def warm_up() -> None:
    """Infer a tiny footprint: the first one of a process loads several hundred modules."""
    footprint(nn.Conv2d(1, 1, 3, padding=1), 1)
