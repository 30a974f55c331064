"""`import overtile`: the public names, and nothing heavy before one of them is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import overtile
from flows.api import segment_image
from flows.api.segmentation import Segmentation
from tiling.runs.run import Run


def test_the_public_names_are_these_and_no_others() -> None:
    assert dir(overtile) == ["Run", "Segmentation", "__version__", "open_run", "segment_image"]
    assert overtile.segment_image is segment_image.segment_image
    assert overtile.open_run is segment_image.open_run
    assert overtile.Segmentation is Segmentation
    assert overtile.Run is Run
    assert overtile.__version__ == version("overtile")
    with pytest.raises(AttributeError, match="public are Run, Segmentation"):
        _ = overtile.segment  # pyright: ignore[reportAttributeAccessIssue]


def test_type_checkers_find_the_same_names_in_the_stubs() -> None:
    stubs = ast.parse((Path(__file__).parents[2] / "overtile-stubs" / "__init__.pyi").read_text())
    found = {
        name.asname: getattr(import_module(str(node.module)), name.name)
        for node in stubs.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert {*found, "__version__"} == set(dir(overtile)), "`name as name` hands a name on"
    assert all(getattr(overtile, str(name)) is each for name, each in found.items())


def test_the_import_itself_loads_neither_torch_nor_ray_nor_prefect() -> None:
    script = "import sys, overtile; print(sorted({'torch', 'ray', 'prefect', 'zarr', 'pydantic'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_the_import_itself_loads_few_modules() -> None:
    script = "import sys; before = set(sys.modules); import overtile; print(len(set(sys.modules) - before))"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(said.stdout) <= 10, "a name loads what it needs when it is first used"
