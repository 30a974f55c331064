"""Objects in Python: a frame of a run's objects, by whichever library is there."""

from __future__ import annotations

import builtins
from importlib import util

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from drawn import draw_run

from flows import open_run
from flows.api import objects
from tiling.errors import ExportError
from tiling.runs.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return draw_run(tmp_path_factory.mktemp("runs") / "run", failed={(1, 1): "it failed on purpose"})


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """As if these weren't installed."""
    monkeypatch.setattr(objects, "find_spec", lambda name: None if name in names else util.find_spec(name))


def test_it_is_a_frame_of_all_objects_numbered_where_they_were_not(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "geopandas")
    frame = open_run(run.path).objects()
    assert isinstance(frame, pd.DataFrame)
    mask = np.asarray(run.open_mask(read_only=True).levels[0][:])
    assert frame["id"].tolist() == [*range(1, len(frame) + 1)]
    assert frame["pixels"].sum() == (mask == 1).sum()
    assert set(frame["class"]) == {"nucleus"}
    assert {"solidity", "red_mean", "touches_failed"} <= set(frame)
    assert True in frame["touches_failed"].tolist()


def test_only_the_columns_that_are_named_are_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "geopandas")
    assert [*open_run(run.path).objects(["class", "solidity"])] == ["id", "class", "solidity"]
    with pytest.raises(ExportError, match="no column 'roundness'; there are id, label"):
        open_run(run.path).objects(["roundness"])


def test_without_pandas_it_is_an_arrow_table(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "geopandas", "pandas")
    assert isinstance(open_run(run.path).objects(["pixels"]), pa.Table)


def test_with_geopandas_every_object_has_its_polygon(run: Run) -> None:
    geopandas = pytest.importorskip("geopandas")
    frame = open_run(run.path).objects()
    assert isinstance(frame, geopandas.GeoDataFrame)
    assert frame["id"].tolist() == [*range(1, len(frame) + 1)]
    assert frame.area.tolist() == frame["pixels"].tolist()


def test_asking_reads_nothing_before(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = builtins.open
    monkeypatch.setattr(builtins, "open", lambda path, *a, **k: (opened.append(str(path)), real(path, *a, **k))[1])
    open_run(str(run.path))
    assert not [path for path in opened if "objects" in path]
