"""Names from outside in every format: shown as text, obeyed by nothing, and every file opens in its own readers."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import rasterio
import tifffile
from exported_runs import WRITABLE
from finished import finished_run, numbered
from ome_types import from_tiff
from pyarrow import parquet
from pydantic import ValidationError

from flows.run.verification_report import VerificationReport, _remedy  # pyright: ignore[reportPrivateUsage] (what reports say)
from tiling.archives.archive import folder_name
from tiling.archives.slide_record import SlideRecord, SlideState
from tiling.archives.table import SlideTable
from tiling.errors import WritingError
from tiling.escaping import cell, plain
from tiling.export import readback
from tiling.export.export_run import export_run
from tiling.export.finished import Finished
from tiling.export.formats import FORMATS
from tiling.runs.card import ClassCard
from tiling.runs.ledger import LedgerState, TileRecord, TileState
from tiling.runs.placement import placement_of
from tiling.runs.run import Run
from unet_core.bundles.card import ClassInfo, list_bundles

HOSTILE = (
    '=HYPERLINK("http://evil.example","x")', "+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", " =1", "x;=1", "＝1",
    "a\x00b", "\x07\x1b[2J", "line\nend", "<b>&\"'</b>]]>", "\u202egpj.exe", "\ufffe", "'); DROP TABLE objects; --",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_a_spreadsheet_takes_no_cell_for_a_formula(text: str) -> None:
    shown = str(cell(text))
    assert shown.isprintable()
    for part in shown.split(";"):
        assert part.lstrip()[:1] not in {"=", "+", "-", "@", "＝", "＋", "－", "＠"}


@pytest.mark.parametrize("value", [None, 1, -1, 0.5, -0.5])
def test_numbers_stay_numbers(value: object) -> None:
    assert cell(value) is value


@pytest.mark.parametrize("text", ["tumour; stroma", "Zelle (groß)", "a=b", "3-methyl", "细胞", "é"])
def test_names_as_people_give_them_stay_as_they_are(text: str) -> None:
    assert cell(text) == text
    assert ClassInfo(text, "#000000").name == text


def test_the_archives_table_holds_no_formula() -> None:
    records = [SlideRecord(text, SlideState.FAILED, f"slides/{text}", reason=text) for text in HOSTILE]
    rows = [*csv.reader(io.StringIO(SlideTable(records, "m", {}).csv().decode()), strict=True)]
    assert [row[0] for row in rows[1:]] == [cell(text) for text in sorted(HOSTILE)]
    assert [row[2] for row in rows[1:]] == [cell(text) for text in sorted(HOSTILE)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on a map of a model that was never checked, as one of an older version may be."""
    folder = tmp_path_factory.mktemp("hostile")
    place: dict[str, Any] = {
        "driver": "GTiff",
        "crs": "EPSG:32633",
        "transform": rasterio.Affine(1, 0, 5e5, 0, -1, 5e6),
    }
    with rasterio.open(folder / "map.tif", "w", width=200, height=200, count=3, dtype="uint8", **place) as image:
        image.write(np.full((3, 200, 200), 7, np.uint8))
    labels = np.zeros((200, 200), np.uint8)
    for label in range(1, len(HOSTILE) + 1):
        labels[label * 10 : label * 10 + 5, 20:40] = label
    run = finished_run(folder / "map.tif", folder / "run", labels)
    classes = (ClassCard(name="background", color="#000000"), *(ClassCard(name=t, color="#e69f00") for t in HOSTILE))
    model = run.card.model.model_copy(update={"classes": classes})
    run = Run(run.path, run.card.model_copy(update={"model": model}))
    numbered(run)
    with run.open_source() as source:
        wanted = ",".join(name for name in WRITABLE if not name.startswith("probabilities"))
        export_run(run, source, wanted)
    return run


def test_every_format_is_taken_by_its_readers_and_names_every_class(run: Run) -> None:
    exports, names = Path(str(run.exports)), [plain(text) for text in HOSTILE]
    rows = [*csv.DictReader(io.StringIO((exports / "statistics.csv").read_text()), strict=True)]
    assert [row["class"] for row in rows[1 : len(names) + 1]] == [cell(text) for text in HOSTILE]
    assert parquet.read_table(exports / "statistics.parquet")["class"].to_pylist()[1 : len(names) + 1] == names
    described: Any = from_tiff(exports / "mask.ome.tif").structured_annotations
    annotations = described.map_annotations[0].value
    assert {pair.k: pair.value for pair in annotations.ms}["1"] == names[0]
    assert {pair.value for pair in annotations.ms} >= set(names)
    with rasterio.open(exports / "mask.tif") as cog:
        assert {value for key, value in cog.tags().items() if key.startswith("CLASS_")} >= {
            name.strip() for name in names
        }, "GDAL strips them"
    for file in ("qupath.geojson", "objects.geojson"):
        found = json.loads((exports / file).read_bytes())["features"]
        assert len(found) == len(names)
    assert {each["properties"]["class"] for each in found} == set(names)
    with sqlite3.connect(exports / "objects.gpkg") as database:
        assert {row[0] for row in database.execute("SELECT class FROM objects")} == set(names)
    assert set(parquet.read_table(exports / "objects.parquet")["class"].to_pylist()) == set(names)
    assert parquet.read_table(exports / "objects-table.parquet")["class"].to_pylist() == names
    lines = [*csv.DictReader(io.StringIO((exports / "objects-table.csv").read_text()), strict=True)]
    assert [row["class"] for row in lines] == [cell(text) for text in HOSTILE]
    for file in ("mask.qml", "objects.qml"):
        assert len([*ET.parse(exports / file).iter()]) > len(names)


@pytest.mark.parametrize("text", [*HOSTILE[9:12], *HOSTILE[13:15], "", " ", "x" * 201, "\ud800", "\x85", "\u2028"])
def test_a_card_with_a_name_that_outputs_cannot_hold_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match=r"a name h(as|olds)|valid string|unicode"):
        ClassInfo(text, "#000000")


def test_a_card_with_two_classes_of_one_name_is_refused() -> None:
    card = list_bundles()[0]
    changed = card.model_dump()
    changed["classes"] = (*changed["classes"][:1], {**changed["classes"][1], "name": changed["classes"][0]["name"]})
    with pytest.raises(ValidationError, match=r"two classes are called .* give each its own name"):
        type(card).model_validate(changed)


@pytest.mark.parametrize(
    "file", sorted(file for name in WRITABLE for file in FORMATS[name].files if "prob" not in file)
)
def test_a_file_that_is_not_whole_does_not_count(run: Run, file: str, tmp_path: Path) -> None:
    whole = (Path(str(run.exports)) / file).read_bytes()
    with run.open_source() as source:
        finished = Finished(run, run.ledger.fold(), placement_of(run, source), "0" * 32, source)
    finished.tally.objects[1] = len(HOSTILE)
    path = tmp_path / file
    path.write_bytes(whole)
    readback.expect_readable(finished, [path])
    for damaged in (whole[: len(whole) // 2], b"", whole[:3]):
        path.write_bytes(damaged)
        with pytest.raises(OSError, match="can't be read again"):
            readback.expect_readable(finished, [path])


def test_large_collections_are_looked_at_from_both_ends(run: Run, tmp_path: Path) -> None:
    feature = (
        '{"type":"Feature","geometry":{"type":"Polygon","coordinates":[[[1,2],[3,4]]]},"properties":{"class":"a"}}'
    )
    lines = ",\n".join([feature] * 5000)
    path = tmp_path / "many.geojson"
    whole = f'{{"type":"FeatureCollection","features":[\n{lines}\n]}}\n'
    with run.open_source() as source:
        finished = Finished(run, run.ledger.fold(), placement_of(run, source), "0" * 32, source)
    path.write_text(whole)
    readback.expect_readable(finished, [path])
    for damaged in (whole[:-100], whole.replace('"a"}', '"a}', 3), "[" + whole):
        path.write_text(damaged)
        with pytest.raises(OSError, match="can't be read again"):
            readback.expect_readable(finished, [path])


def test_an_export_whose_file_no_reader_takes_keeps_the_earlier_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that a writer doesn't escape: what is reported is the failure, not the success."""
    before = (Path(str(run.exports)) / "mask.ome.tif").read_bytes()
    monkeypatch.setattr("tiling.runs.run.plain", str)
    with run.open_source() as source, pytest.raises(WritingError, match=r"ome-tiff of .* can't be (written|read)"):
        export_run(run, source, "ome-tiff", again=True)
    assert (Path(str(run.exports)) / "mask.ome.tif").read_bytes() == before
    assert tifffile.TiffFile(Path(str(run.exports)) / "mask.ome.tif").is_ome


@pytest.mark.parametrize("name", ["a; touch x.tif", "$(touch x).tif", "`touch x`.tif", "a'b && touch x"])
def test_a_command_that_is_shown_obeys_no_slides_name(name: str, tmp_path: Path) -> None:
    """A person copies what mends a run; in an archive its folder has its slide's name."""
    folder = tmp_path / folder_name(name)
    one = np.zeros(1, np.uint8)
    state = LedgerState(one + TileState.FAILED, one, one.astype(bool), failed={0: TileRecord(0, TileState.FAILED)})
    verdict = VerificationReport(str(folder), 1, {"0,0": "it broke"}, [])
    for output in (state.remedy(folder), _remedy(verdict, state, ())):
        assert output.startswith("overtile rerun")
        script = f'overtile() {{ printf "%s\\n" "$@"; }}\n{output}'
        words = subprocess.run(["sh", "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)
        assert str(folder) in words.stdout.splitlines()
    assert [*tmp_path.iterdir()] == []
