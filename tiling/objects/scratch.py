"""Stretches of blocks kept between passes: in files, so that memory doesn't grow with the image."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol
from uuid import uuid4

import numpy as np

from tiling.objects.stretches import Stretches


class Kept(Protocol):
    """Stretches of blocks, by the kind of what they are."""

    def keep(self, kind: str, index: int, stretches: Stretches) -> None:
        """Keep a block's."""
        ...

    def load(self, kind: str, index: int, shape: tuple[int, int]) -> Stretches:
        """A block's, none where none were kept."""
        ...


class Held:
    """Stretches in memory, of a block that is all of a small image: files would take longer than its passes."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, int], Stretches] = {}

    def keep(self, kind: str, index: int, stretches: Stretches) -> None:
        self._held[kind, index] = stretches

    def load(self, kind: str, index: int, shape: tuple[int, int]) -> Stretches:
        return self._held.get((kind, index)) or Stretches.none(shape)


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
