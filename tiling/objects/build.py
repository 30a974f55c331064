"""The objects of a run, built beside its mask: under another name, then put in place and recorded."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tiling.geometry import Box
from tiling.objects.blocks import BlockMap
from tiling.objects.find import Finder
from tiling.objects.image import ObjectImage
from tiling.objects.record import OBJECTS, OBJECTS_BEGUN
from tiling.objects.rule import Rule, View
from tiling.objects.spec import ObjectSpec
from tiling.objects.tree_digest import tree_digest
from tiling.runs.ledger import LedgerState
from tiling.runs.mask_digest import mask_digest
from tiling.storage.disk import disk_errors, sync_tree
from tiling.storage.place import Place, delete_tree, place_of

if TYPE_CHECKING:
    from tiling.runs.run import Run

NEW, SCRATCH = "objects.new.zarr", "objects.scratch"
"""What a driver that is killed may leave in a run's folder; the next one removes it."""


class RunPixels:
    """The labels and probabilities of a run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._mask, self._probabilities = run.open_mask(read_only=True), run.open_probabilities(read_only=True)

    def __reduce__(self) -> tuple[Any, ...]:
        return pixels_at, (str(self._run.path),)

    def view(self, box: Box, *, probabilities: bool) -> View:
        kept = self._probabilities if probabilities else None
        return View(self._mask.pyramid.read_quick(box), None if kept is None else kept.read(box))


def pixels_at(path: str) -> RunPixels:
    """Those of the run in a place."""
    from tiling.runs.run import Run

    return RunPixels(Run.open(place_of(path)))


def build_objects(
    run: Run, state: LedgerState, spec: ObjectSpec, rule: Rule, *, threads: int = 2, each: BlockMap | None = None
) -> ObjectImage:
    """Find the objects of a finished mask and write `objects.ome.zarr`; the ledger records them last.

    It records, too, before the earlier ones go: killed in between, those of another rule would else be taken for them.

    Args:
        run: whose one driver calls this.
        state: the folded ledger, which takes in what is built.
        spec: what is asked for.
        rule: the spec's, or a user's own that it names.
        threads: that work side by side in this process.
        each: works on the blocks in their place, in other processes that reach the run's folder; not where an object
            store holds it, since what is kept between passes lies on this machine then, and not by a rule of a user's
            own, which only this process surely can load.
    """
    started = time.monotonic()
    with _place(run, state) as (folder, scratch):
        image = ObjectImage.create(folder, run.plan, run.classes, run.pixel_size, corner_px=run.corner_px)
        is_shared = isinstance(run.path, Path) and not spec.is_own
        finder = Finder(
            RunPixels(run), rule, spec, image.grid, scratch, each if each is not None and is_shared else threads
        )
        objects = finder.find(image.write)
        image.build_rest()
        image.write_list(objects)
        image.sweep()
        _put_in_place(run, state, folder)
    specks = {str(label): int(count) for label, count in enumerate(objects.specks) if count}
    facts = {"mask": mask_digest(run, state), "rule": spec.digest(), "digest": tree_digest(run.objects_path)}
    facts |= {"count": objects.count, "specks": specks, "seconds": round(time.monotonic() - started, 3)}
    state.add(run.ledger.announce(OBJECTS, facts))
    return ObjectImage.open(run.objects_path, read_only=True)


def sweep_objects(run: Run) -> None:
    """Remove what a killed driver has left; only for the run's one driver."""
    for name in (NEW, SCRATCH):
        if (run.path / name).exists():
            delete_tree(run.path / name)


@contextmanager
def _place(run: Run, state: LedgerState) -> Generator[tuple[Place, Path]]:
    """Place in which objects are made, and a folder for what is kept between passes."""
    sweep_objects(run)
    if not isinstance(run.path, Path):
        # An object store can't rename: the objects are made in place, and count when the ledger names them.
        _give_up_earlier(run, state)
        with TemporaryDirectory(prefix="overtile-objects-") as scratch:
            yield run.objects_path, Path(scratch)
        return
    scratch = run.path / SCRATCH
    scratch.mkdir()
    try:
        yield run.path / NEW, scratch
    finally:
        sweep_objects(run)


def _put_in_place(run: Run, state: LedgerState, folder: Place) -> None:
    if isinstance(folder, Path) and isinstance(run.objects_path, Path):
        with disk_errors(folder):
            sync_tree(folder)
        _give_up_earlier(run, state)
        folder.rename(run.objects_path)


def _give_up_earlier(run: Run, state: LedgerState) -> None:
    """Remove the earlier objects, where there are any, once the ledger says that they are none."""
    if isinstance(run.objects_path, Path) and not os.path.lexists(run.objects_path):
        return
    state.add(run.ledger.announce(OBJECTS_BEGUN, {}))
    delete_tree(run.objects_path)
