"""Shapes kept in a file, so that several writers can read them, each at its own pace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np

from tiling.shapes.shapes import Shapes


class Spool:
    """A file of shapes: written once, then read as often as wanted, by several threads at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._batches = 0
        path.touch(exist_ok=False)

    def extend(self, batches: Iterator[Shapes]) -> Iterator[Shapes]:
        """Keep the shapes that pass through."""
        with self._path.open("ab") as file:
            for shapes in batches:
                for field in fields(Shapes):
                    np.save(file, getattr(shapes, field.name), allow_pickle=False)
                self._batches += 1
                yield shapes

    def __iter__(self) -> Iterator[Shapes]:
        with self._path.open("rb") as file:
            for _ in range(self._batches):
                yield Shapes(*(np.load(file, allow_pickle=False) for _ in fields(Shapes)))
