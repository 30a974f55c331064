"""Stretches of blocks kept in files between passes, so that memory doesn't grow with the image."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import numpy as np

from tiling.objects.stretches import Stretches


class Scratch:
    """A folder of blocks' stretches, by the kind of what they are; empty ones take no file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, kind: str, index: int, stretches: Stretches) -> None:
        if stretches.size:
            packed = np.stack([stretches.starts, stretches.stops, stretches.values]).astype(np.int32)
            file = self._file(kind, index)
            # Whole or not at all: who writes it may be killed, and another then does the same again.
            partial = file.with_name(f"{file.name}.{uuid4().hex}")
            with partial.open("xb") as stream:
                np.save(stream, packed, allow_pickle=False)
            partial.replace(file)

    def load(self, kind: str, index: int, shape: tuple[int, int]) -> Stretches:
        try:
            starts, stops, values = np.load(self._file(kind, index), allow_pickle=False)
        except FileNotFoundError:
            starts = stops = values = np.empty(0, np.int32)
        return Stretches(shape, starts.astype(np.int64), stops.astype(np.int64), values)

    def _file(self, kind: str, index: int) -> Path:
        return self._folder / f"{kind}-{index}.npy"
