"""The object under the pointer: its number, its values, its outline; and outlines that part objects that touch."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from drawn import draw_run
from finished import numbered, write_labels
from PIL import Image
from shown import let_in
from starlette.testclient import TestClient

from flows.viewer.library import Library
from tiling.export.export_run import export_run
from tiling.geometry import Box
from tiling.objects.image import open_objects
from tiling.objects.spec import ObjectSpec
from tiling.runs.run import Run

BORDERS = ObjectSpec(rule="border", border=2, radius_px=3)
CLASSES = (("background", "#000000"), ("nucleus", "#e69f00"), ("border", "#56b4e9"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two nuclei that touch once what lies between them is theirs, and a third with a hole."""
    run = draw_run(tmp_path_factory.mktemp("viewed") / "run", classes=CLASSES)
    labels = np.zeros(run.plan.mask.shape, np.uint8)
    labels[20:60, 20:90] = 1
    labels[20:60, 54:56] = 2
    labels[100:140, 100:140] = 1
    labels[110:120, 110:120] = 0
    write_labels(run, labels)
    numbered(run, BORDERS)
    return run


@pytest.fixture(scope="module")
def client(run: Run) -> Iterator[TestClient]:
    assert isinstance(run.path, Path)
    with let_in(Library(run.path)) as client:
        yield client


def test_before_the_table_is_written_its_number_and_pixels_are_told(client: TestClient) -> None:
    found = client.get("/api/object?y=30&x=30").json()
    assert found == {"id": 1, "class": "nucleus", "values": [["Area", "1,400 px"]], "outline": []}
    assert client.get("/api/object?y=5&x=5").json() == {"id": None}
    assert client.get("/api/object?y=-1&x=99999").json() == {"id": None}


def test_with_the_table_come_its_values_and_its_outline(client: TestClient, run: Run) -> None:
    with run.open_source() as source:
        export_run(run, source, "table")
    found = client.get("/api/object?y=130&x=105").json()
    values = dict(found["values"])
    assert (found["id"], values["Area"]) == (3, "1,500 px")
    assert {"Perimeter", "Solidity", "red", "green", "blue"} <= set(values)
    outer, hole = (np.array(ring) for ring in found["outline"])
    assert (outer.min(), outer.max()) == (100, 140)
    assert (hole.min(), hole.max()) == (110, 120)
    assert client.get("/api/object?y=115&x=115").json() == {"id": None}


def test_outlines_part_objects_that_touch(client: TestClient) -> None:
    def drawn(zoom: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        answer = client.get(f"/api/mask/{zoom}/0/0?labels=1,2&style=outline")
        return np.asarray(Image.open(BytesIO(answer.content)).convert("RGBA"))[..., 3]

    fine = drawn(0)
    assert fine[40, 54] or fine[40, 55], "between the two"
    assert not fine[40, 40]


def test_an_outline_is_of_its_objects_class_whatever_pixels_it_runs_along(client: TestClient, run: Run) -> None:
    """Two grew over a border between them, which is another class of the mask; what is no object's has no outline."""

    def drawn(labels: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        answer = client.get(f"/api/mask/0/0/0?labels={labels}&style=outline")
        return np.asarray(Image.open(BytesIO(answer.content)).convert("RGBA"))

    objects = open_objects(run)
    assert objects is not None
    numbers, picture = objects.read(Box(0, 0, *objects.shape))[:256, :256], drawn("1")
    around = np.pad(numbers, 1)
    edges = [around[y : y + numbers.shape[0], x : x + numbers.shape[1]] for y, x in ((0, 1), (2, 1), (1, 0), (1, 2))]
    is_edge = (numbers > 0) & np.any([numbers != each for each in edges], axis=0)
    height, width = is_edge.shape
    np.testing.assert_array_equal(picture[:height, :width, 3] > 0, is_edge)
    assert len(np.unique(picture[picture[..., 3] > 0], axis=0)) == 1, "one colour"
    assert not drawn("2")[..., 3].any()
