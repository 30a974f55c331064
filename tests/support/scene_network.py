"""A network of two layers for scenes of three bands, with its card; and tissue as a scene."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from cli import tissue
from torch import nn

PIXELS = np.maximum(tissue(200, 220), 1)
PIXELS[:, 150:] = 0
"""Stained tissue, with no data (0) to the right."""


def asked_of(*classes: str, mean: float = 120.0, std: float = 60.0, **more: Any) -> dict[str, Any]:
    """Options of a run in this process, with the card of such a network."""
    card = {"classes": ["background", *classes], "mean": [mean] * 3, "std": [std] * 3, **more}
    return {"card": card, "as_is": True, "core": 64, "progress": False, "executor": "local"}


def two_layers(channels: int, classes: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    first, second = nn.Conv2d(3, channels, 5, padding=2), nn.Conv2d(channels, classes, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), second).eval()
