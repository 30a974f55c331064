"""The end of `segment` and `rerun`: what was found, and where a person looks at it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import tifffile
from finished import blobs, finished_run, numbered
from pasting import pasted_words
from rich.console import Console

from flows.commands.terminal import print_outcome
from flows.run.steps import folded, summarise
from tiling.export.export_run import export_run
from tiling.objects.record import built_objects
from tiling.objects.spec import ObjectSpec
from tiling.runs.run import Run

NAME = "it's a run"


def ended(run: Run) -> str:
    out = io.StringIO()
    print_outcome(Console(file=out, width=40), summarise(run, 0.0, folded(run)))
    return out.getvalue()


def finished(folder: Path) -> Run:
    path = folder / "slide.tif"
    pixels = np.zeros((300, 280, 3), np.uint8)
    tifffile.imwrite(path, pixels, resolution=(20_000, 20_000), resolutionunit="CENTIMETER", photometric="rgb")
    labels = blobs((300, 280))
    labels[::37, ::41] = 1
    return finished_run(path, folder / NAME, labels)


def test_it_says_areas_objects_and_specks_of_each_class_and_where_to_look(tmp_path: Path) -> None:
    run = finished(tmp_path)
    objects = numbered(run, ObjectSpec(least_px={1: 30}))
    with run.open_source() as source:
        export_run(run, source, "statistics")
    lines = ended(run).splitlines()
    (nucleus,) = (line for line in lines if line.startswith("found:   nucleus: "))
    built = built_objects(run, folded(run))
    assert built is not None
    count, specks = int((objects.classes == 1).sum()), built.specks[1]
    assert specks > 0
    assert nucleus.endswith(f" of what was computed), {count:,} objects, {specks:,} specks left out")
    assert " mm² (" in nucleus
    assert not [line for line in lines if "background:" in line]
    assert f"report:  {run.path}/report.html" in lines
    assert lines[0].startswith("complete: ")
    assert lines[0].endswith("MPix/s while inferring)"), "a line of a log is whole"
    (command,) = (line.removeprefix("look:    ") for line in lines if line.startswith("look:"))
    assert pasted_words(command).endswith("view '" + str(run.path).replace("'", "'\"'\"'") + "'")


def test_without_statistics_of_this_mask_nothing_is_said_to_be_found(tmp_path: Path) -> None:
    lines = ended(finished(tmp_path)).splitlines()
    assert not [line for line in lines if line.startswith("found:")]
    assert [line for line in lines if line.startswith("look:    overtile view ")]
