"""Files in a run's folders that no driver has written: left alone, never read, and named once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tiling.disk import is_partial
from tiling.export.formats import FORMATS
from tiling.objects import ObjectPath
from tiling.storage import Place

if TYPE_CHECKING:
    from tiling.run import Run

NAMED_AT_MOST = 5

_IN_A_PYRAMID = re.compile(r"([0-9]+/)?zarr\.json|[0-9]+/c/([0-9]+/)?[0-9]+/[0-9]+")


def strangers(run: Run, *, thorough: bool = False) -> list[str]:
    """What lies in the ledger's folder and among the exports, by its path in the run; `thorough` looks into the mask.

    Copies of file synchronisers, editors and desktops, and what a network file system hides that is still read.
    """
    ours = {run.skipped_path.name, *(name for form in FORMATS.values() for name in form.files)}
    found = [*run.ledger.strangers()]
    if run.exports.is_dir():
        found += [each for each in run.exports.iterdir() if each.name not in ours and not is_partial(each.name)]
    names = [_below(run.path, each) for each in found]
    for image in (run.mask_path, run.probabilities_path) if thorough else ():
        names += [f"{image.name}/{name}" for name in _files(image) if not _belongs(name)]
    return sorted(names)


def sentence(names: list[str]) -> str:
    """What a person is told of them; nothing where there are none."""
    if not names:
        return ""
    more = f" and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else ""
    return f"not written by overtile, and left alone: {', '.join(names[:NAMED_AT_MOST])}{more}"


def _belongs(name: str) -> bool:
    return _IN_A_PYRAMID.fullmatch(name) is not None or is_partial(name.rpartition("/")[2])


def _files(folder: Place) -> Iterator[str]:
    below = folder.descendants() if isinstance(folder, ObjectPath) else folder.rglob("*")
    for each in below:
        if isinstance(each, ObjectPath) or each.is_symlink() or not each.is_dir():
            yield _below(folder, each)


def _below(folder: Place, each: Place) -> str:
    return str(each)[len(str(folder)) + 1 :]
