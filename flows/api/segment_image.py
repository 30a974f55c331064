"""Segmentation from Python: `overtile.segment_image` and `overtile.open_run`."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, Unpack

from flows.api.axes import expect_bands_last
from flows.api.executor import choose_executor, run_with
from flows.api.network import bundle_network, card_file, expect_model, is_network
from flows.api.options import Executor, SegmentOptions
from flows.api.segmentation import Segmentation, open_run
from flows.config.base import checked
from flows.config.option_types import named_place
from flows.config.run import SegmentConfig
from flows.reporting.progress import Progress
from flows.reporting.progress_line import ProgressLine
from flows.run.preflight import check
from tiling.errors import RunError
from tiling.runs.array_image import ARRAY_NAME, write_array
from tiling.runs.run import Run
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place, lock_run

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
    image: object,
    out: str | Place | None = None,
    *,
    executor: Executor = "auto",
    progress: bool = True,
    **options: Unpack[SegmentOptions],
) -> Segmentation:
    """Segment an image; the same call resumes.

    It is the run that `overtile segment` makes, labels and folder alike. A run of which tiles failed is given back all
    the same; `failed` says which. An interrupt lets the tiles in flight end, and the same call resumes.

    Args:
        image: a path or URL of any image that docs/formats.md lists, or an array `(y, x)` or `(y, x, band)`: NumPy,
            dask, xarray, Zarr. An array is written into the run's folder a piece at a time.
        out: the run's folder, a path or URL; without it a temporary one that goes with this Python process.
        executor: `local` computes in this process, without Ray and Prefect; `ray` in one of its own, with an actor per
            GPU or core. `auto` is local where neither workers nor a cluster are named, and the pixels to segment, as an
            array, take no more than a quarter of the free memory and 1 GB.
        progress: whether a bar shows how far it is.
        options: what `overtile segment` takes, by the same names. `model` is also a `torch.nn.Module`, and `card` a
            mapping of what no network says of itself (`classes`, `mean`, `std`); `bands` and `region` are also lists.

    Raises:
        ConfigError: an option that there isn't, or a value that can't be.
        SourceError, PlanError, RunError, BundleError, FootprintError, FlowError: as on the command line.
        KeyboardInterrupt: it was interrupted.
    """
    is_file = isinstance(image, str | Path | ObjectPath)
    place = _folder() if out is None else named_place(out)
    network, card = options.get("model", ""), options.get("card")
    expect_model(network)
    given: dict[str, Any] = {**options, "image": image if is_file else place / ARRAY_NAME, "out": place}
    if is_network(network):
        given |= {"model": str(place / "model"), "card": None}
    elif isinstance(network, Path):
        given |= {"model": str(network)}
    with card_file(given.get("card")) as held, ProgressLine(is_shown=progress) as line:
        config = checked(SegmentConfig, given if held is None else {**given, "card": held})
        if is_network(network):
            bundle_network(network, card, config, None if is_file else _dtype_of(image))
        if not is_file:
            expect_bands_last(image, config)
            _write(image, config.out, line)
        found = check(config)
        for fact, text in found.notes.items():
            line.print_line(f"{fact}: {text}")
        run_with(choose_executor(executor, config, found.array_bytes), config, line.on_progress)
        result = open_run(config.out)
        line.print_line(result.summary)
    return result


def _dtype_of(array: object) -> str | None:
    """The type of an array's pixels, where a network may take it."""
    dtype = str(getattr(array, "dtype", ""))
    return dtype if dtype in {"uint8", "uint16", "float32"} else None


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
