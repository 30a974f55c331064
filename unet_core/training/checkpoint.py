"""A training's state on disk: written whole or not at all, and continued only by the same training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from unet_core.errors import TrainingError
from unet_core.files import write_whole

CHECKPOINT_NAME = "checkpoint.pt"


def write_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Replace the folder's checkpoint atomically: a kill at any moment leaves the old one or the new one."""
    write_whole(folder / CHECKPOINT_NAME, lambda file: torch.save(dict(state), file))


def read_checkpoint(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The state of the folder's training, on the CPU; None where it holds none yet.

    Raises TrainingError for a file that can't be read and for a training of another `identity`, the differences
    named.
    """
    path = folder / CHECKPOINT_NAME
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        there = state["identity"]
    except (OSError, RuntimeError, EOFError, KeyError, UnpicklingError) as error:
        raise TrainingError(f"checkpoint {str(path)!r} can't be read: {error}; use another folder") from error
    differing = [
        f"{name} {there.get(name)!r} is now {value!r}" for name, value in identity.items() if value != there.get(name)
    ]
    if differing:
        raise TrainingError(
            f"folder {str(folder)!r} holds a different training ({'; '.join(differing)}): "
            "use another folder or the same recipe and data"
        )
    return state
