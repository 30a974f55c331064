"""Files in a run's folders that no driver has written: left alone, never read, and named once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tiling.export.formats import FORMATS
from tiling.storage.disk import is_partial
from tiling.storage.place import Place

if TYPE_CHECKING:
    from tiling.runs.run import Run

NAMED_AT_MOST = 5


def unknown_files(run: Run, *, thorough: bool = False) -> list[str]:
    """Unknown files in the ledger's folder and among the exports, by path in the run; `thorough` looks into the mask.

    Copies of file synchronisers, editors and desktops, and what a network file system hides that is still read.
    """
    ours = {run.skipped_path.name, *(name for form in FORMATS.values() for name in form.files)}
    found = [*run.ledger.unknown_files()]
    if run.exports.is_dir():
        found += [each for each in run.exports.iterdir() if each.name not in ours and not is_partial(each.name)]
    names = [_below(run.path, each) for each in found]
    if thorough and not run.lost_metadata():  # without it no image says which of its files belong to it
        names += _in_images(run)
    return sorted(names)


def sentence(names: list[str]) -> str:
    """The line that names them; empty where there are none."""
    if not names:
        return ""
    more = f" and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else ""
    return f"not written by overtile, and left alone: {', '.join(names[:NAMED_AT_MOST])}{more}"


def _in_images(run: Run) -> Iterator[str]:
    for image in (run.open_mask(read_only=True), run.open_probabilities(read_only=True)):
        if image is not None:
            yield from (f"{image.path.name}/{name}" for name in image.pyramid.unknown_files())


def _below(folder: Place, each: Place) -> str:
    return str(each)[len(str(folder)) + 1 :]
