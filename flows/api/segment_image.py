"""Segmentation from Python: `overtile.segment_image` and `overtile.open_run`."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from flows.api.child_process import run_in_child_process
from flows.api.segmentation import Segmentation, open_run
from flows.config.run import SegmentConfig, checked
from flows.reporting.progress import Progress
from flows.reporting.progress_line import ProgressLine
from flows.run.preflight import check
from tiling.errors import RunError
from tiling.runs.array_image import ARRAY_NAME, write_array
from tiling.runs.run import Run
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place, lock_run, place_of

__all__ = ["open_run", "segment_image"]

_temporary: list[tempfile.TemporaryDirectory[str]] = []
"""Folders of runs that nobody gave one: lazy arrays read from them as long as this process lives."""

_Function = TypeVar("_Function", bound=Callable[..., object])


def _with_options(function: _Function) -> _Function:
    """Show every option where Python shows a function's parameters: in `help`, and while a notebook completes them."""
    fields = {name: field for name, field in SegmentConfig.model_fields.items() if name not in {"image", "out"}}
    own = [each for each in inspect.signature(function).parameters.values() if each.kind is not each.VAR_KEYWORD]
    named = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.annotation)
        for name, field in fields.items()
    ]
    function.__signature__ = inspect.Signature([*own, *named], return_annotation=Segmentation)  # type: ignore[attr-defined]
    message = "\n".join(f"        {name}: {field.description}" for name, field in fields.items())
    function.__doc__ = f"{(function.__doc__ or '').rstrip()}\n\n    Options:\n{message}\n"
    return function


@_with_options
def segment_image(
    image: object, out: str | Place | None = None, *, progress: bool = True, **options: Any
) -> Segmentation:
    """Segment an image; the same call resumes.

    It is the flow that `overtile segment` runs, in a process of its own: a notebook's event loop, memory and Ray are
    left alone. An interrupt lets the tiles in flight end, and the same call resumes. A run of which tiles failed is
    given back all the same; `failed` says which.

    Args:
        image: a path or URL of any image that docs/formats.md lists, or an array `(y, x)` or `(y, x, band)`: NumPy,
            dask, xarray, Zarr. An array is written into the run's folder a piece at a time.
        out: the run's folder, a path or URL; without it a temporary one that goes with this Python process.
        progress: whether one line tells how far it is.
        options: what `overtile segment` takes, by the same names.

    Raises:
        ConfigError: an option that there isn't, or a value that can't be.
        SourceError, PlanError, RunError, BundleError, FootprintError, FlowError: as on the command line.
        KeyboardInterrupt: it was interrupted.
    """
    is_file = isinstance(image, str | Path | ObjectPath)
    place = _folder() if out is None else place_of(out)
    config = checked(SegmentConfig, {**options, "image": image if is_file else place / ARRAY_NAME, "out": place})
    with ProgressLine(is_shown=progress) as line:
        if not is_file:
            _write(image, config.out, line)
        for fact, text in check(config).items():
            line.print_line(f"{fact}: {text}")
        run_in_child_process("segment", config, line.on_progress)
        result = open_run(config.out)
        line.print_line(result.summary)
    return result


def _write(array: object, out: Place, line: ProgressLine) -> None:
    """Put the array into the run's folder, or hold it against the one that is there.

    Raises:
        RunError: the folder holds something else.
    """
    Run.expect_room(out)
    image = out / ARRAY_NAME
    if (out / "run.json").is_file():
        known = Run.open(out).card.image.path
        if known != str(image.resolve()):
            raise RunError(f"{out} holds a run of {known}: an array would be another run; choose another out")
    with lock_run(out):
        write_array(array, image, lambda done, total: line.on_progress(Progress("write", done, total, unit="chunks")))


def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="overtile-")
    _temporary.append(folder)
    return Path(folder.name) / "run"
