"""Objects in the report: their number, density and areas by class, and the specks that were left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from finished import blobs, finished_run, numbered

from flows.reporting.areas import Areas
from flows.reporting.objects import Histogram, object_figures
from flows.reporting.report import render_report
from tiling.export.export_run import export_run
from tiling.objects.spec import ObjectSpec
from tiling.runs.run import Run

LEAST_PX = 30


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("figures")
    pixels = np.zeros((300, 280, 3), np.uint8)
    path = folder / "slide.tif"
    tifffile.imwrite(path, pixels, resolution=(20_000, 20_000), resolutionunit="CENTIMETER", photometric="rgb")
    labels = blobs((300, 280))
    labels[::37, ::41] = 1
    return finished_run(path, folder / "run", labels)


def test_without_a_table_there_are_none(run: Run) -> None:
    state = run.ledger.fold()
    assert object_figures(run, state, Areas.of(run, state)) == ()
    assert "<h2>Objects</h2>" not in render_report(run)


def test_they_are_counted_by_class_with_specks_apart(run: Run) -> None:
    objects = numbered(run, ObjectSpec(least_px={1: LEAST_PX}))
    with run.open_source() as source:
        export_run(run, source, "table")
    state = run.ledger.fold()
    areas = Areas.of(run, state)
    first, second = object_figures(run, state, areas)
    sizes = objects.pixels[objects.classes == 1]
    assert (first.name, first.count) == ("nucleus", sizes.size)
    assert sizes.min() >= LEAST_PX
    assert first.specks is not None
    assert first.specks > 0
    assert (first.least, second.specks) == (f"below 7.5 µm² ({LEAST_PX} px)", None)
    assert first.median == f"{np.median(sizes) * 0.25:.3g} µm²"
    assert areas.computed is not None
    assert areas.computed == (pytest.approx(300 * 280 * 0.25e-6), "mm²")
    assert first.density == f"{sizes.size / (300 * 280 * 0.25e-6):,.0f} per mm²"
    assert first.histogram is not None
    assert sum(first.histogram.counts) == sizes.size
    page = render_report(run)
    assert f"{first.specks:,} specks below 7.5 µm² ({LEAST_PX} px) left out" in page
    assert f"Histogram of the areas of {sizes.size:,} objects of nucleus" in page


def test_no_density_is_told_where_no_length_is_known(run: Run) -> None:
    state = run.ledger.fold()
    areas = replace(Areas.of(run, state), computed=None)
    assert {row.density for row in object_figures(run, state, areas)} == {""}


def test_a_histogram_ends_with_a_bar_of_all_that_is_larger() -> None:
    found = Histogram.of(np.append(np.arange(1.0, 100.0), 1e6))
    assert sum(found.counts) == 100
    assert found.counts[-1] == 1
    assert max(found.heights) == 1
    assert Histogram.of(np.full(5, 7.0)).counts[-1] == 5


def test_the_page_is_the_same_for_the_same_folder(run: Run, tmp_path: Path) -> None:
    assert render_report(run) == render_report(run)
