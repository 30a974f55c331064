"""The driver is killed before each of its changes to the run folder; the same call again ends as an undisturbed one."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from interrupted import BALLAST, EXPORTS, Change, Interrupter, Moment, kind_of
from tiny import save_tiny, write_foreground, write_noise, write_noise_map

from tiling.export.formats import FORMATS
from tiling.runs.ledger import TileState
from tiling.runs.run import Run

HEIGHT, WIDTH = 128, 640  # five tiles, and a pyramid of two levels


@pytest.fixture(scope="module")
def interrupter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interrupter]:
    folder = tmp_path_factory.mktemp("interrupted")
    image = write_noise(folder / "noise.tif", HEIGHT, WIDTH)
    foreground = write_foreground(folder / "foreground.png", 1, 5, (0, 4))
    with Interrupter(image, save_tiny(folder / "tiny"), str(foreground)) as started:
        yield started


@pytest.fixture(scope="module")
def undisturbed(interrupter: Interrupter, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Change]]:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    changes = interrupter.run(folder)
    state = Run.open(folder).ledger.fold()
    assert (state.count(TileState.DONE), state.count(TileState.SKIPPED)) == (4, 1)
    assert len(np.unique(Run.open(folder).open_mask().read(Run.open(folder).plan.tile(0).valid))) == 3
    return folder, changes


def contents(run: Path) -> dict[str, object]:
    """Every file of a run but what names its moment: the card's date, the ledger's segments and times, the report."""
    files: dict[str, object] = {
        str(file.relative_to(run)): file.read_bytes()
        for file in sorted(run.rglob("*"))
        if file.is_file() and file.parent.name != "ledger" and file.name != "report.html"
    }
    card = json.loads((run / "run.json").read_text())
    files["run.json"] = {key: value for key, value in card.items() if key != "created"}
    last = {record.tile: (record.state, record.digest) for record in Run.open(run).ledger.records()}
    return {**files, "ledger": last, "strangers": [f.name for f in (run / "ledger").iterdir() if f.suffix != ".jsonl"]}


def moments(changes: list[Change]) -> list[Moment]:
    """Of every kind of change the middle one; all of them where `OVERTILE_ALL_MOMENTS` is set."""
    kinds = Counter(kind_of(change) for change in changes)
    if os.environ.get("OVERTILE_ALL_MOMENTS"):
        return [(kind, nth) for kind, count in kinds.items() for nth in range(count)]
    return [(kind, count // 2) for kind, count in kinds.items()]


def test_every_stage_changes_files(undisturbed: tuple[Path, list[Change]]) -> None:
    """What the others try is worth nothing unless it covers every stage's writes."""
    kinds = {kind_of(change) for change in undisturbed[1]}
    for expected in (
        "open driver.lock",
        "os.rename run.json",
        "os.rename mask.ome.zarr/zarr.json",
        "os.rename mask.ome.zarr/#/zarr.json",
        "os.rename staged.zarr/zarr.json",
        "os.rename staged.zarr/c.#.#.#.#",
        "os.rename staged.zarr/spares/.spare.*.partial",
        "os.remove staged.zarr/spares/.spare.*.partial",
        "os.rename mask.ome.zarr/#/c/#/#",
        "os.link ledger/#.jsonl",
        "os.rename overlay.png",
        "os.rename exports/foreground.png",
        "os.remove staged.zarr/zarr.json",
        "os.rmdir staged.zarr",
    ):
        assert expected in kinds, sorted(kinds)


@pytest.mark.slow
def test_killed_at_any_change_the_run_resumes_and_ends_identical(
    interrupter: Interrupter, undisturbed: tuple[Path, list[Change]], tmp_path: Path
) -> None:
    whole, changes = undisturbed
    expect_identical(interrupter, whole, moments(changes), tmp_path)


@pytest.mark.slow
def test_killed_at_any_change_of_an_export_the_run_resumes_and_ends_identical(tmp_path: Path) -> None:
    """Of every file that is exported before it gets its name; before every other change where all moments are tried."""
    image, model = write_noise_map(tmp_path / "map.tif", 128, 256), save_tiny(tmp_path / "tiny")
    with Interrupter(image, model, "none", ",".join(EXPORTS)) as exporting:
        changes = exporting.run(tmp_path / "whole")
        named = [f"os.rename exports/{file}" for name in EXPORTS for file in FORMATS[name].files]
        assert {*named} <= {kind_of(change) for change in changes}
        within = [at for at in moments(changes) if " exports/" in at[0]]
        tried = within if os.environ.get("OVERTILE_ALL_MOMENTS") else [(kind, 0) for kind in named]
        expect_identical(exporting, tmp_path / "whole", tried, tmp_path)


def expect_identical(interrupter: Interrupter, whole: Path, moments: list[Moment], folder: Path) -> None:
    """Kill a run at each moment, resume it, and compare it with the undisturbed one."""
    expected = contents(whole)
    for number, at in enumerate(moments):
        run = folder / f"{number}"
        # A file that is being written is left torn: no later kill finds it so.
        interrupter.run(run, at, "tear" if at[0].startswith("open ") else "kill")
        interrupter.run(run)
        assert contents(run) == expected, at


@pytest.mark.parametrize(
    "kind",
    [
        "open .run.json.*.partial",
        "open mask.ome.zarr/.zarr.json.*.partial",
        "open mask.ome.zarr/#/c/#/.#.*.partial",
        "open ledger/.#.jsonl.*.partial",
        "open staged.zarr/.c.#.#.#.#.*.partial",
        "open .overlay.png.*.partial",
        "open exports/.foreground.png.*.partial",
    ],
)
def test_a_disk_that_fills_in_any_stage_is_told_and_the_run_resumes_with_room(
    kind: str, interrupter: Interrupter, undisturbed: tuple[Path, list[Change]], small_disk: Path
) -> None:
    whole, changes = undisturbed
    count = [kind_of(change) for change in changes].count(kind)
    run = small_disk / "run"
    ((error, message),) = interrupter.run(run, (kind, count // 2), "fill")
    assert error in {"DiskError", "StagingError"}
    assert "No space left on device): make space or choose another --out" in message
    assert "\n" not in message
    (small_disk / BALLAST).unlink()
    interrupter.run(run)
    assert contents(run) == contents(whole)
