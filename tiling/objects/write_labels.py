"""Labels of a run's objects written into their image: under another name, then put in place and recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import numpy as np
import zarr

from tiling.geometry import Box
from tiling.objects.image import ObjectImage, open_objects
from tiling.objects.image_labels import ImageLabels
from tiling.objects.record import ALTERED, built_objects
from tiling.objects.tree_digest import files_of, tree_digest
from tiling.runs.ledger import Event, LedgerState
from tiling.runs.ome_metadata import object_metadata
from tiling.storage.disk import disk_errors
from tiling.storage.place import delete_tree, read_at, write_atomic
from tiling.storage.zarr_store import zarr_at

if TYPE_CHECKING:
    from tiling.runs.run import Run

LABELS_ASKED = "labels asked"
"""The event that names where labels are to be written, and the word by which they are known as the run's."""
LABELS_BEGUN = "labels begun"
"""The event before the earlier labels go."""
LABELS_WRITTEN = "labels"
"""The event after which the labels are those of the objects of that digest."""
LABELS_DAMAGED = "labels damaged"
"""The event after which they are no longer what was written."""


def asked_labels(state: LedgerState) -> tuple[ImageLabels, str] | None:
    """Place where the run is to write labels, and the word by which they are known as its own; None where nowhere."""
    event = state.last_event(LABELS_ASKED)
    facts = event.facts["into"] if event is not None else None
    return None if event is None or facts is None else (ImageLabels.parse(facts), event.facts["owner"])


def ask_for_labels(run: Run, state: LedgerState, into: ImageLabels | None) -> None:
    """Record where labels are to go, where it is another place than before.

    Raises:
        ExportError: something of another's is there.
    """
    known = asked_labels(state)
    owner = next((e.facts["owner"] for e in reversed(state.events) if e.name == LABELS_ASKED), None)
    if into is not None:
        into.expect_own(owner)
    if (None if into is None else into.facts()) != (None if known is None else known[0].facts()):
        facts = {"into": None if into is None else into.facts(), "owner": owner or uuid4().hex}
        state.add(run.ledger.announce(LABELS_ASKED, facts))


def write_labels(run: Run, state: LedgerState) -> None:
    """Write the labels where they are asked for, and those in the image aren't of the objects as they are.

    Raises:
        ExportError: something of another's is there.
        DiskError: the image can't be written.
    """
    asked, built = asked_labels(state), built_objects(run, state)
    if asked is None or built is None or _fault(run, state) is None:
        return
    into, owner = asked
    into.expect_own(owner)
    new, old = (into.group / f".{into.name}.{owner}.{kind}" for kind in ("new", "old"))
    with disk_errors(into.path):
        into.group.mkdir(exist_ok=True)
        delete_tree(new)
        _write(run, into, owner, new)
        state.add(run.ledger.announce(LABELS_BEGUN, {}))
        delete_tree(old)
        if into.path.exists():
            into.path.rename(old)
        new.rename(into.path)
        delete_tree(old)
        if into.name not in into.listed():
            write_atomic(into.group / "zarr.json", into.group_metadata(), below=into.image)
    facts = {"objects": built.digest, "digest": tree_digest(into.path)}
    state.add(run.ledger.announce(LABELS_WRITTEN, facts))


def check_labels(run: Run, state: LedgerState) -> tuple[str, str] | None:
    """Name of the labels that are asked for, and what is wrong with them; None where nothing is."""
    asked = asked_labels(state)
    if asked is None:
        return None
    fault = _fault(run, state)
    if fault is None and tree_digest(asked[0].path) != _written(state).facts["digest"]:
        fault = ALTERED
    return None if fault is None else (str(asked[0].path), fault)


def note_damaged_labels(run: Run, state: LedgerState) -> None:
    """Record that labels aren't what was written, so that they are renewed."""
    if _written(state).name == LABELS_WRITTEN:
        state.add(run.ledger.announce(LABELS_DAMAGED, {}))


def _fault(run: Run, state: LedgerState) -> str | None:
    """Faults of labels that are seen without a look at their bytes."""
    asked, built, last = asked_labels(state), built_objects(run, state), _written(state)
    if asked is None:
        return None
    is_written = last.name == LABELS_WRITTEN and built is not None and last.facts["objects"] == built.digest
    if not is_written and (last.name != LABELS_DAMAGED or built is None):
        return "they are not built"
    if asked[0].owner() != asked[1] or asked[0].name not in asked[0].listed():
        return "they are gone, or the image doesn't name them"
    return None if is_written else ALTERED


def _written(state: LedgerState) -> Event:
    """The last event about labels."""
    names = (LABELS_ASKED, LABELS_BEGUN, LABELS_WRITTEN, LABELS_DAMAGED)
    return next(event for event in reversed(state.events) if event.name in names)


def _write(run: Run, into: ImageLabels, owner: str, new: Path) -> None:
    """All files of the labels, as many levels as the image has, as the format asks; the group's own metadata last."""
    objects = open_objects(run)
    assert objects is not None
    own = len(objects.pyramid.levels)
    left_out = {str(level) for level in range(into.levels, own)}
    for name, file in files_of(run.objects_path):
        if name != "zarr.json" and name.partition("/")[0] not in left_out:
            write_atomic(new / name, read_at(file), below=into.image)
    _write_coarser(objects, range(own, into.levels), new)
    metadata: dict[str, Any] = object_metadata(into.levels, into.pixel, run.plan.grid, run.corner_px)
    for axis, unit in zip(metadata["multiscales"][0]["axes"], into.units, strict=True):
        axis.pop("unit", None)
        if unit:
            axis["unit"] = unit
    metadata["multiscales"][0]["name"] = into.name
    metadata["image-label"]["source"] = {"image": "../../"}
    said = cast("dict[str, Any]", zarr.open_group(zarr_at(run.objects_path), mode="r").attrs["overtile"])
    attributes = {"ome": metadata, "overtile": {**said, "owner": owner}}
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    write_atomic(new / "zarr.json", json.dumps(group, indent=2).encode(), below=into.image)


def _write_coarser(objects: ObjectImage, levels: range, new: Path) -> None:
    """Levels beyond the objects' own, each of the first of 2 x 2 pixels."""
    if not levels:
        return
    last = levels.start - 1
    height, width = cast("tuple[int, int]", objects.pyramid.levels[last].shape)
    pixels = objects.read(Box(0, 0, height, width), last)
    for level in levels:
        pixels = np.ascontiguousarray(objects.halve(pixels))
        zarr.create_array(zarr_at(new / str(level)), data=pixels, dimension_names=("y", "x"), zarr_format=3)
