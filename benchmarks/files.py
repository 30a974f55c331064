"""Every file of the open imagery through segmentation and all exports, and what other readers find in these.

    python -m benchmarks.files --out .benchmarks/work/files

Writes `docs/files.md`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import tifffile
from pyarrow import csv
from rasterio.errors import NotGeoreferencedWarning
from rio_cogeo import cog_validate

from benchmarks.exported import VECTORS, compare
from flows.config.run import SegmentConfig
from flows.errors import FlowError, IncompleteError
from flows.lifecycle.environment import quiet_environment
from flows.run.exports import threads_of
from tiling.errors import PlanError, TilingError
from tiling.export.export_run import export_run
from tiling.runs.placement import placement_of
from tiling.runs.run import Run
from tiling.source import open_source

if TYPE_CHECKING:
    from benchmarks.pipeline import KeptPool

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
PAGE = ROOT / "docs" / "files.md"
FORMATS_TRIED = ("statistics", "ome-tiff", "cog", *VECTORS)
NO_IMAGE = (".geojson",)
MODEL, BANDS = "nuclei-small", 3

HEAD = """# Tested files

Written by `python -m benchmarks.files`; don't edit. Every file of `slides/` and `geo/` of the test data, segmented with
the shipped `nuclei-small` bundle by the flow that `overtile segment` runs, on the pixels of level 0, then exported to
every format that can say it. What labels mean on a map is of no account here: it counts that every file goes through,
and that its exports hold its mask where it lies.

*Read back*: every level of an OME-TIFF by tifffile, of a COG by rasterio, with rio-cogeo's strict validation and the
CRS and geotransform of the source as rasterio reads it; the objects of QuPath's GeoJSON and of GeoJSON by shapely, of
GeoPackage by GDAL, of GeoParquet by pyarrow, rasterised again by GDAL; the rows of the statistics by pyarrow.

"""


@dataclass(frozen=True, slots=True)
class Tried:
    """One file and its outcome.

    Attributes:
        file: its name below the data folder.
        format: that it was read as.
        shape: height and width of its level 0.
        options: that it was segmented with, beyond the model.
        failed: tiles that could not be read.
        held: the formats whose files were read back as the mask.
        faults: what was read back otherwise.
        refused: formats that can't say it, or the whole file, and why.
    """

    file: str
    format: str = ""
    shape: tuple[int, int] = (0, 0)
    options: str = ""
    failed: int = 0
    held: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


def files_of(data: Path) -> list[Path]:
    """All images of the folders that the page is about."""
    found = [path for folder in ("slides", "geo") for path in sorted((data / folder).rglob("*"))]
    return [path for path in found if path.is_file() and path.suffix not in NO_IMAGE]


def try_all(data: Path, paths: Iterable[Path], out: Path, pool: KeptPool) -> Iterator[Tried]:
    """Segment, export and read back each file, with a pool that is up."""
    from flows.pool.open import started_pool

    started_pool.set(pool)
    for number, path in enumerate(paths):
        name, folder = str(path.relative_to(data)), out / f"{number:02}"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            yield _tried(path, name, folder)
        except (TilingError, FlowError) as error:
            yield Tried(name, refused=(_reason(error, path),))


def _tried(path: Path, name: str, out: Path) -> Tried:
    with open_source(path) as source:
        bands, kind, read_as = len(source.bands), str(source.dtype), source.format
        shape = source.levels[0].height, source.levels[0].width
    options: dict[str, str] = {}
    if bands != BANDS:
        options["bands"] = "1,2,3" if bands > BANDS else "1,1,1"
    if kind != "uint8":
        options["normalise"] = "percentiles:1,99"
    try:
        failed = _segmented(path, out, options)
    except PlanError:  # one value is both percentiles: there is hardly anything else in the image
        if "normalise" not in options or kind.startswith("float"):
            raise
        options["normalise"] = f"0,{np.iinfo(kind).max}"
        failed = _segmented(path, out, options)
    run = Run.open(out)
    held, faults, refused = _exported(run, path)
    given = " ".join(f"`--{option} {value}`" for option, value in options.items())
    return Tried(name, read_as, shape, given, failed, held, faults, refused)


def _segmented(path: Path, out: Path, options: dict[str, str]) -> int:
    """Segment a file; how many tiles failed."""
    from flows.segment import segment

    given = {"image": path, "out": out, "model": MODEL, "export": "none", "as_is": True, **options}
    config = SegmentConfig.model_validate(given)
    try:
        return len(segment(config).failed)
    except IncompleteError as error:
        return len(getattr(error.outcome, "failed", ()))


def _exported(run: Run, image: Path) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Formats that hold the mask, those that don't, and those that refuse it."""
    held: list[str] = []
    faults: list[str] = []
    refused: list[str] = []
    for name in FORMATS_TRIED:
        try:
            with run.open_source() as source:
                export_run(run, source, name, threads=threads_of(None))
        except TilingError as error:
            refused.append(_reason(error, image))
            continue
        found = _READERS[name](run, image) if name in _READERS else _vector_faults(run, name)
        held += [] if found else [name]
        faults += [f"{name}: {fault}" for fault in found]
    return tuple(held), tuple(faults), tuple(refused)


def _reason(error: Exception, path: Path) -> str:
    """What it says, without the place of this machine's data folder."""
    return " ".join(str(error).split()).replace(str(path.resolve()), path.name).replace(str(path), path.name)


def _vector_faults(run: Run, name: str) -> list[str]:
    differing = compare(run, name)["differing"]
    return [f"{differing} pixels differ"] if differing else []


def _statistics_faults(run: Run, image: Path) -> list[str]:
    total = sum(csv.read_csv(str(run.exports / "statistics.csv")).column("pixels").to_pylist())
    return [] if total == run.plan.mask.area else [f"{total} pixels of {run.plan.mask.area}"]


def _ome_faults(run: Run, image: Path) -> list[str]:
    mask = run.open_mask(read_only=True)
    with tifffile.TiffFile(str(run.exports / "mask.ome.tif")) as tiff:
        levels = tiff.series[0].levels
        same = [np.array_equal(level.asarray(), held[:]) for level, held in zip(levels, mask.levels, strict=True)]
    return [f"level {level} differs" for level, is_same in enumerate(same) if not is_same]


def _cog_faults(run: Run, image: Path) -> list[str]:
    path = str(run.exports / "mask.tif")
    is_valid, errors, warnings = cog_validate(path, strict=True)
    faults = [] if is_valid else [*errors, *warnings]
    with run.open_source() as source:
        to_map = placement_of(run, source).to_map
    packed = "/vsigzip/" if image.suffix == ".gz" else ""
    with rasterio.open(path) as cog, rasterio.open(f"{packed}{image}") as file:
        if not np.array_equal(cog.read(1), run.open_mask(read_only=True).levels[0][:]):
            faults.append("pixels differ")
        if not _is_alike(cog.crs, file.crs) and file.gcps[1] != cog.gcps[1]:
            faults.append(f"CRS {cog.crs} for {file.crs}")
        if to_map is not None and cog.transform != file.transform:
            faults.append(f"geotransform {cog.transform[:6]} for {file.transform[:6]}")
    return faults


def _is_alike(crs: Any, other: Any) -> bool:
    """True if two CRSs are the same, or have one code, whose definition a GeoTIFF doesn't repeat to its last digit."""
    if crs is None or other is None:
        return crs == other
    return crs == other or crs.to_epsg() == other.to_epsg() is not None


_READERS: dict[str, Callable[[Run, Path], list[str]]] = {
    "statistics": _statistics_faults,
    "ome-tiff": _ome_faults,
    "cog": _cog_faults,
}
assert not set(_READERS) & set(VECTORS)


def page_of(rows: Sequence[Tried]) -> str:
    """The table, and what was refused with the reasons."""
    table = ["| file | read as | pixels | options | read back, and equal | |", "|---|---|---|---|---|---|"]
    for row in rows:
        notes = [*row.faults, *([f"failed tiles: {row.failed}"] if row.failed else [])]
        if row.format:
            held = "all" if len(row.held) == len(FORMATS_TRIED) else ", ".join(row.held)
            shape = f"{row.shape[0]} x {row.shape[1]}"
            table.append(f"| {row.file} | {row.format} | {shape} | {row.options} | {held} | {'; '.join(notes)} |")
        else:
            table.append(f"| {row.file} | refused | | | | {row.refused[0]} |")
    reasons = sorted({reason for row in rows if row.format for reason in _refusals(row)})
    return HEAD + "\n".join(table) + "\n\nWhere a format is missing:\n" + "".join(f"- {each}\n" for each in reasons)


def _refusals(row: Tried) -> Iterator[str]:
    """Why formats can't say the file's mask, in words that other files share."""
    for reason in row.refused:
        yield reason.replace(Path(row.file).name, "the file").partition(":")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description="Try every file of the open imagery.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to write")
    parser.add_argument("--only", nargs="*", default=[], help="names of files")
    given = parser.parse_args()
    quiet_environment()  # before Prefect and Ray are imported, which read it then
    from benchmarks.pipeline import KeptPool

    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    paths = [path for path in files_of(DATA) if not given.only or path.name in given.only]
    rows: list[Tried] = []
    with KeptPool(None) as pool:
        for row in try_all(DATA, paths, given.out, pool):
            rows.append(row)
            print(json.dumps(asdict(row)), flush=True)
        pool.close()
    if not given.only:
        given.page.write_text(page_of(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
