"""The styles that QGIS takes for the exports beside them, and what else it asks of these."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from xml.etree import ElementTree as ET

import pyogrio
import pytest
from finished import CLASSES, finished_run
from tiny import write_noise_map

from tiling.export.export_run import export_run
from tiling.export.finished import Finished
from tiling.export.qgis import write_qgis
from tiling.runs.ome_metadata import LabelClass
from tiling.runs.placement import placement_of
from tiling.runs.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("qgis")
    run = finished_run(write_noise_map(folder / "scene.tif", 384, 384), folder / "run", core=128, failed=[(0, 1)])
    with run.open_source() as source:
        export_run(run, source, "cog,geopackage,geojson,qgis")
    return run


def test_the_mask_has_its_classes_alone_and_lets_the_image_through_where_it_is_background(run: Run) -> None:
    (renderer,) = ET.parse(str(run.exports / "mask.qml")).iter("rasterrenderer")
    assert renderer.attrib["type"] == "paletted"
    assert renderer.attrib["nodataColor"] == "128,128,128,128", "what was not predicted doesn't look like background"
    entries = [entry.attrib for entry in renderer.iter("paletteEntry")]
    assert [(entry["value"], entry["label"], entry["color"]) for entry in entries] == [
        (str(label), name, color) for label, (name, color) in enumerate(CLASSES)
    ]
    assert [entry["alpha"] for entry in entries] == ["0", "255", "255"]


def test_the_objects_have_a_colour_and_a_name_for_every_label(run: Run) -> None:
    style = ET.parse(str(run.exports / "objects.qml"))
    (renderer,) = style.iter("renderer-v2")
    _, table = pyogrio.read_arrow(str(run.exports / "objects.gpkg"))
    there = dict(zip(table.column("label").to_pylist(), table.column("class").to_pylist(), strict=True))
    assert renderer.attrib["attr"] == "label"
    shown = {int(each.attrib["value"]): each.attrib["label"] for each in renderer.iter("category")}
    assert shown == there
    colors = {
        symbol.attrib["name"]: [each.attrib["v"] for each in symbol.iter("prop")] for symbol in style.iter("symbol")
    }
    assert colors["1"] == ["230,159,0,128", "230,159,0,255"]
    assert set(colors) == {each.attrib["symbol"] for each in renderer.iter("category")}


def test_a_style_can_be_read_whatever_a_class_is_called(run: Run, tmp_path: Path) -> None:
    with run.open_source() as source:
        finished = Finished(run, run.ledger.fold(), placement_of(run, source), "0" * 32, source)
    first, _, *others = run.classes
    named = SimpleNamespace(classes=(first, LabelClass("<a>\x1b[2J\n&\"'", "#e69f00"), *others))
    write_qgis(replace(finished, run=cast("Run", named)), [tmp_path / "mask.qml", tmp_path / "objects.qml"])
    for name, tag in (("mask.qml", "paletteEntry"), ("objects.qml", "category")):
        labels = [each.attrib["label"] for each in ET.parse(tmp_path / name).iter(tag)]
        assert "<a> [2J &\"'" in labels


def test_the_geopackage_is_of_a_version_that_older_gdal_reads_without_a_warning(run: Run) -> None:
    with sqlite3.connect(str(run.exports / "objects.gpkg")) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (10300,)
