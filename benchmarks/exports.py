"""Exports of finished runs: seconds and peak memory of each format beside those of the inference, and the way back.

    python -m benchmarks.exports RUN --formats qupath geopackage

The runs are kept: what was segmented or drawn once is exported again without that.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import rasterio

from benchmarks.export_runs import CORNER_M, CRS, GSD_M
from benchmarks.exported import VECTORS
from benchmarks.process import run
from benchmarks.slide import REAL_SLIDE, write_slide
from tiling.export.export_run import export_run
from tiling.export.formats import FORMATS
from tiling.runs.run import Run

Figures = dict[str, Any]
Tell = Callable[[str], None]

ON_MAP = ("statistics", "ome-tiff", "cog", *VECTORS)
ON_SLIDE = ("statistics", "ome-tiff", "qupath", "geoparquet")
OF_MILLIONS = ("qupath", "geoparquet", "geopackage")
WARM_UP_PX = 2048
PRECISION, CORE_PX = "bfloat16", 512
SUBJECTS = ("tissue", "slide", "drawn")


@dataclass(frozen=True, slots=True)
class Subject:
    """A run to export.

    Attributes:
        name: of the subject.
        run: its folder.
        groups: formats that are written at once, one group after another.
    """

    name: str
    run: Path
    groups: tuple[tuple[str, ...], ...]


def hold(folder: Path, subjects: Sequence[str], side_px: int, rounds: int, notify: Tell) -> Iterator[Figures]:
    """Measure a large scene and the real slide, both segmented first, and a drawn mask of the scene's size."""
    for name in subjects:
        if name == "slide" and not REAL_SLIDE.is_file():
            notify(f"the slide is left out: {REAL_SLIDE.name} is absent")
        elif name == "drawn":
            held = drawn(folder / f"exports-drawn-{side_px}", "drawn", ["--side", side_px])
            yield from measured(Subject(name, held, (ON_MAP,)), rounds, notify)
        else:
            image = REAL_SLIDE if name == "slide" else write_scene(folder / f"scene-{side_px}.tif", side_px)
            out = folder / f"exports-{image.stem}"
            yield {"kind": "inference", "subject": name, **segmented(folder, image, out, notify)}
            groups = (ON_SLIDE,) if name == "slide" else (*one_by_one(ON_MAP), ON_MAP)
            yield from measured(Subject(name, out / "run", groups), rounds, notify)


def hold_polygons(folder: Path, polygons: int, notify: Tell) -> Iterator[Figures]:
    """Measure the formats of objects on a mask of as many discs."""
    out = drawn(folder / f"exports-discs-{polygons}", "discs", ["--polygons", polygons])
    yield from measured(Subject("discs", out, one_by_one(OF_MILLIONS)), 1, notify, checked=("geopackage",))


def measured(subject: Subject, rounds: int, notify: Tell, checked: Sequence[str] = VECTORS) -> Iterator[Figures]:
    """Each group of formats in a process of its own; then what the files give back, or how many objects they hold."""
    command = [sys.executable, "-m", "benchmarks.exports", str(subject.run), "--formats"]
    for number in range(rounds):
        for formats in subject.groups:
            row = run([*command, *formats], sample_seconds=0.2)
            notify(
                f"{subject.name}: {' '.join(formats)} {row['seconds']:.1f} s, {row['memory']['largest'] / 1e6:.0f} MB"
            )
            yield {"kind": "export", "subject": subject.name, "round": number, **row}
    back = [sys.executable, "-m", "benchmarks.exported", str(subject.run), "--formats"]
    for name in dict.fromkeys(name for group in subject.groups for name in group if name in VECTORS):
        row = run([*back, name, *([] if name in checked else ["--count"])])
        notify(f"{subject.name}: {name} {row['formats'][name]}")
        yield {"kind": "check", "subject": subject.name, **row}


def one_by_one(formats: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Each format by itself."""
    return tuple((name,) for name in formats)


def write_scene(path: Path, side_px: int) -> Path:
    """The slide of mirrored tissue as a GeoTIFF, so that every format can say it; one that is there stays."""
    if path.is_file():
        return path
    plain = write_slide(path.with_name(f"plain-{path.name}"), side_px, described=False)
    with rasterio.open(plain, "r+") as dataset:
        dataset.crs = CRS
        dataset.transform = rasterio.Affine(GSD_M, 0, CORNER_M[0], 0, -GSD_M, CORNER_M[1])
    return plain.rename(path)


def segmented(folder: Path, image: Path, out: Path, notify: Tell) -> Figures:
    """Segment an image as the main benchmark does, and keep the run and its figures; those that are there stay."""
    kept = out / "inference.json"
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    shutil.rmtree(out, ignore_errors=True)
    warm_up = write_slide(folder / f"slide-{WARM_UP_PX}.svs", WARM_UP_PX)
    command = [sys.executable, "-m", "benchmarks.pipeline", str(image), "--out", str(out / "run")]
    command += ["--precision", PRECISION, "--core", str(CORE_PX), "--warm-up", str(warm_up)]
    figures = run(command, sample_seconds=1.0)
    notify(f"{image.name}: segmented in {figures['seconds']:.1f} s")
    kept.write_text(json.dumps(figures), encoding="utf-8")
    return figures


def drawn(folder: Path, what: str, options: Sequence[object]) -> Path:
    """The run with a mask that is drawn; one that is there stays."""
    made = folder / "made.json"
    if not made.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        figures = run([sys.executable, "-m", "benchmarks.export_runs", what, str(folder), *map(str, options)])
        made.write_text(json.dumps(figures), encoding="utf-8")
    return folder / "run"


def export(held: Run, names: Sequence[str]) -> Figures:
    """Export to some formats at once; the seconds, and the size of what was written."""
    rested = psutil.Process().memory_info().rss
    start = time.perf_counter()
    with held.open_source() as source:
        export_run(held, source, ",".join(names), again=True)
    seconds = time.perf_counter() - start
    files = [held.exports / file for name in names for file in FORMATS[name].files]
    size = sum(Path(str(file)).stat().st_size for file in files)
    pixels = held.plan.mask.area
    return {"formats": [*names], "seconds": seconds, "pixels": pixels, "bytes": size, "rested_bytes": rested}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the exports of a finished run.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--formats", nargs="+", required=True)
    given = parser.parse_args()
    print(json.dumps(export(Run.open(given.run), given.formats)))


if __name__ == "__main__":
    main()
