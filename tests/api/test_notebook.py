"""In a notebook: the documented example in a real kernel, what its cells show, and the button that interrupts."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import psutil
import pytest
from cli import write_tissue
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from flows import open_run
from tiling.runs.ledger import TileState
from tiling.runs.run import Run

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


@pytest.fixture
def event_loop() -> Iterator[None]:
    """nbclient's calls run in the thread's own loop."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


def notebook_of(folder: Path, *cells: str) -> NotebookClient:
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    resources = {"metadata": {"path": str(folder)}}
    return NotebookClient(notebook, timeout=400, kernel_name="python3", resources=resources)


def shown(cell: NotebookNode, kind: str) -> str:
    """What the cell's last line shows in a form, such as `text/html`."""
    (result,) = (each for each in cell.outputs if each.output_type == "execute_result")
    return result.data[kind]


def test_the_documented_example_is_a_notebook(reporting: None, event_loop: None, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    statements = [each.partition("  # → ") for each in re.split(r"\n(?=\S)", code.strip())]
    client = notebook_of(tmp_path, *(statement for statement, _, _ in statements), "result", "result.labels")
    notebook = client.execute()
    for cell, (_, _, said) in zip(notebook.cells, statements, strict=False):
        if said:
            assert shown(cell, "text/plain") == said.strip()
    page = shown(notebook.cells[-2], "text/html")
    assert page == open_run(tmp_path / "runs/colon")._repr_html_()  # pyright: ignore[reportPrivateUsage]
    assert "data:image/jpeg;base64," in page
    assert "dask.array" in shown(notebook.cells[-1], "text/plain")
    (tmp_path / "example.ipynb").write_text(nbformat.writes(notebook))
    nbformat.validate(nbformat.read(tmp_path / "example.ipynb", as_version=4))


def press_interrupt(kernel: int, run: Path) -> None:
    """Do what the button does, which signals the kernel's whole group, as soon as there is a tile."""
    deadline = time.monotonic() + 200
    while not list((run / "ledger").glob("*.jsonl")) or done(run) == 0:
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)
    os.killpg(os.getpgid(kernel), signal.SIGINT)


def done(run: Path) -> int:
    return Run.open(run).ledger.fold().count(TileState.DONE)


def test_the_kernel_is_interrupted_and_the_same_cell_goes_on(reporting: None, event_loop: None, tmp_path: Path) -> None:
    image = write_tissue(tmp_path / "slide.tif", 1024, 1024)
    call = f"segment_image({str(image)!r}, out='run', core=64, foreground='none', export='none', workers=1)"
    client = notebook_of(tmp_path, f"from flows import segment_image\nresult = {call}", "result.summary")
    cell, summary = client.nb.cells
    with client.setup_kernel():
        (kernel,) = (each for each in psutil.Process().children() if "ipykernel_launcher" in each.cmdline())
        interrupting = threading.Thread(target=press_interrupt, args=(kernel.pid, tmp_path / "run"))
        interrupting.start()
        with pytest.raises(CellExecutionError, match="KeyboardInterrupt"):
            client.execute_cell(cell, 0)
        interrupting.join()
        before = done(tmp_path / "run")
        assert 0 < before < 256
        client.execute_cell(cell, 0)
        client.execute_cell(summary, 1)
    assert shown(summary, "text/plain") == "'256 of 256 tiles computed, 0 skipped, 0 failed'"
    tiles = [record.tile for record in Run.open(tmp_path / "run").ledger.records()]
    assert sorted(tiles) == list(range(256)), "what was computed before the interrupt was not computed again"
    assert "256/256" in "".join(each.get("text", "") for each in cell.outputs)
