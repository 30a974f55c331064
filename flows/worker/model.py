"""The model of a run, as its workers find it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tiling.runs.run import Run
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import place_of

INSIDE = "./"
"""How the reference of a model inside the run folder begins, so that the folder can be moved."""


@contextmanager
def local_bundle(reference: str) -> Generator[str]:
    """The bundle as a folder on this machine: itself, or a copy of one in an object store, gone afterwards."""
    place = place_of(reference) if "://" in reference else None
    if not isinstance(place, ObjectPath):
        yield reference
        return
    with TemporaryDirectory(prefix="overtile-model-") as folder:
        for item in place.descendants():
            (Path(folder) / item.name).write_bytes(item.read_bytes())
        yield folder


def model_of(run: Run) -> str:
    """Place of a run's model now."""
    reference = run.card.model.reference
    return str(run.path / reference) if reference.startswith(INSIDE) else reference
