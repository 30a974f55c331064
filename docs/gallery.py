"""Notebooks of the gallery, executed in place: `make gallery`, or `make gallery ARGS="slide scene"` for some.

Each runs in an empty folder, with packages of the lock alone and without a network. What it shows is stored in it, the
pictures as JPEG; the site makes pages of that (`gallery_pages.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

GALLERY = Path(__file__).resolve().parent / "gallery"
LIMIT_S = 400
SHOWN = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "110", "PREFECT_LOGGING_LEVEL": "ERROR"}


def notebooks() -> dict[str, Path]:
    """The notebooks by name."""
    return {path.stem: path for path in sorted(GALLERY.glob("*.ipynb"))}


def execute(path: Path, folder: Path) -> NotebookNode:
    """The notebook with what its cells show now, run in that folder; an error in a cell is raised."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    with _surroundings(folder):
        NotebookClient(notebook, timeout=LIMIT_S, kernel_name="python3", resources=resources).execute()
    _slim(notebook, str(folder))
    return notebook


@contextmanager
def _surroundings(folder: Path) -> Generator[None]:
    """Environment of a kernel: the commands on the path, plain text, Prefect's state in the folder; and a loop."""
    commands = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    home = {"PREFECT_HOME": str(folder / ".prefect"), "RAY_worker_niceness": "0"}
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        with mock.patch.dict(os.environ, {**SHOWN, **home, "PATH": commands}):
            yield
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _slim(notebook: NotebookNode, folder: str) -> None:
    """Leave out what only this execution has, its folder among it, and every picture but the smallest form of each."""
    notebook.metadata = nbformat.from_dict({"kernelspec": {"display_name": "Python 3", "name": "python3"}})
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata.pop("execution", None)
        for output in _joined(cell):
            if "text" in output:
                output.text = output.text.replace(f"{folder}/", "")
            if output.output_type in {"display_data", "execute_result"}:
                output.metadata = {}
                for kind in {"text/plain", "text/html"} & set(output.data):
                    output.data[kind] = output.data[kind].replace(f"{folder}/", "")
                if "image/jpeg" in output.data:
                    output.data.pop("image/png", None)
                if {"image/jpeg", "image/png"} & set(output.data):
                    output.data.pop("text/plain", None)


def _joined(cell: NotebookNode) -> list[NotebookNode]:
    """The outputs of a cell, pieces of one stream joined: they are split anywhere."""
    joined: list[NotebookNode] = []
    for output in cell.get("outputs", []):
        if joined and output.output_type == joined[-1].output_type == "stream" and output.name == joined[-1].name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    if "outputs" in cell:
        cell.outputs = joined
    return joined


def main() -> None:
    """Execute the named notebooks, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*notebooks(), []], help="which ones; all when none is named")
    for name in parser.parse_args().names or list(notebooks()):
        path = notebooks()[name]
        with tempfile.TemporaryDirectory(prefix="overtile-gallery-") as folder:
            notebook = execute(path, Path(folder))
        path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
