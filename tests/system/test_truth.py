"""Whatever is done to a finished run, verification says so as often as it is asked; and complete means complete."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from asked import answer_of, close, compute, open_or_resume, verdict_of
from cli import Cli
from deeds import Deed, all_of, emptied, flipped, link_to_device, lost_segment_with, pipe, removed, replaced, rewritten
from tiny import save_tiny, write_noise

from flows.api.segmentation import open_run
from flows.errors import IncompleteError
from flows.lifecycle.flow_states import finished
from flows.reporting.report import render_report
from flows.run.steps import export, record_result, stitch, summarise
from flows.viewer.shown_run import ShownRun
from flows.worker.result import TileResult
from flows.worker.tile_worker import TileWorker
from tiling.errors import RunError
from tiling.runs.ledger import TileRecord, TileState
from tiling.runs.mask_digest import mask_digest
from tiling.runs.run import Run

TILES = 9  # in one row: levels of 1152, 576 and 288 px


@dataclass(frozen=True, slots=True)
class World:
    """A finished run, one that was killed before its pyramid, and what continues them."""

    image: Path
    model: Path
    complete: Path
    inferred: Path
    worker: TileWorker

    def resume(self, folder: Path) -> Run:
        return open_or_resume(self.image, self.model, folder)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("truth")
    image, model = write_noise(folder / "noise.tif", 128, 128 * TILES), save_tiny(folder / "tiny")
    made = World(image, model, folder / "complete", folder / "inferred", TileWorker())
    run = made.resume(made.inferred)
    compute(run, made.worker)
    shutil.copytree(made.inferred, made.complete)
    close(Run.open(made.complete))
    return made


@pytest.fixture
def run(world: World, tmp_path: Path) -> Run:
    return Run.open(shutil.copytree(world.complete, tmp_path / "run"))


MASK, KEPT = "mask.ome.zarr", "probabilities.ome.zarr"
DEEDS: dict[str, Deed] = {
    "a pyramid's shard is empty": emptied(f"{MASK}/1/c/0/1"),
    "a pyramid's shard is gone": removed(f"{MASK}/1/c/0/1"),
    "a pyramid's shard is another's": replaced(f"{MASK}/1/c/0/1", f"{MASK}/1/c/0/2"),
    "the coarsest shard has rotten": flipped(f"{MASK}/2/c/0/0"),
    "two levels are gone that look alike then": all_of(removed(f"{MASK}/1/c"), removed(f"{MASK}/2/c")),
    "a tile's shard is empty": emptied(f"{MASK}/0/c/0/3"),
    "a tile's shard is another's": replaced(f"{MASK}/0/c/0/3", f"{MASK}/0/c/0/4"),
    "a tile and all above it are gone": all_of(
        removed(f"{MASK}/0/c/0/3"), removed(f"{MASK}/1/c/0/1"), removed(f"{MASK}/2/c/0/0")
    ),
    "probabilities of one class are gone": removed(f"{KEPT}/0/c/1/0/3"),
    "probabilities are another tile's": replaced(f"{KEPT}/0/c/1/0/3", f"{KEPT}/0/c/1/0/4"),
    "probabilities are another class's": replaced(f"{KEPT}/0/c/1/0/3", f"{KEPT}/0/c/0/0/3"),
    "the probabilities' pyramid has rotten": flipped(f"{KEPT}/1/c/0/0/1"),
    "the probabilities' pyramid is gone": removed(f"{KEPT}/1/c"),
    "metadata is gone": removed(f"{MASK}/1/zarr.json"),
    "metadata places pixels elsewhere": rewritten(f"{MASK}/zarr.json", '"scale"', '"scales"'),
    "the axes are swapped": rewritten(f"{MASK}/zarr.json", '"name": "y"', '"name": "x"'),
    "the axes have another unit": rewritten(f"{MASK}/zarr.json", '"type": "space"', '"type": "space", "unit": "metre"'),
    "a second image is described before ours": rewritten(
        f"{MASK}/zarr.json", '"multiscales": [', '"multiscales": [{"datasets": [], "axes": []},'
    ),
    "shards have other names": rewritten(f"{MASK}/1/zarr.json", '"separator": "/"', '"separator": "."'),
    "a tile's shard is a pipe": pipe(f"{MASK}/0/c/0/3"),
    "a pyramid's shard is a device": link_to_device(f"{MASK}/1/c/0/1"),
    "probabilities of a tile are a pipe": pipe(f"{KEPT}/0/c/1/0/3"),
    "metadata is a pipe": pipe(f"{MASK}/1/zarr.json"),
    "the mask's metadata is a device": link_to_device(f"{MASK}/zarr.json"),
    "an export is a pipe": pipe("exports/statistics.csv"),
    "the overlay is a device": link_to_device("overlay.png"),
    "the probabilities are gone": removed(KEPT),
    "the mask is gone": removed(MASK),
    "an export is gone": removed("exports/mask.ome.tif"),
    "an export is cut": emptied("exports/statistics.csv"),
    "an export has rotten": flipped("exports/mask.ome.tif"),
    "an export of the probabilities has rotten": flipped("exports/probabilities.ome.tif"),
    "all exports are gone": removed("exports"),
    "the overlay is gone": removed("overlay.png"),
    "the overlay has rotten": flipped("overlay.png"),
    "a close-up has rotten": flipped("close-ups/seam.png"),
    "a close-up is gone": removed("close-ups/seam.png"),
    "the foreground's picture has rotten": flipped("exports/foreground.png"),
    "the report has changed": rewritten("report.html", "</html>", "<!-- --></html>"),
    "the ledger has lost that the pyramid is built": lost_segment_with('"event":"stitched"'),
    "the ledger has lost an export": lost_segment_with('"event":"exported"'),
    "the ledger has lost the last drawing": lost_segment_with('"event":"drawn"'),
    "the ledger has lost a tile": lost_segment_with('"tile":4,'),
    "the ledger is gone": removed("ledger"),
}

TELLING = {
    "a pyramid's shard is another's",
    "the coarsest shard has rotten",
    "a tile's shard is another's",
    "a tile and all above it are gone",
    "probabilities are another class's",
    "the probabilities' pyramid has rotten",
    "metadata is gone",
    "the axes are swapped",
    "a tile's shard is a pipe",
    "the mask's metadata is a device",
    "the mask is gone",
    "an export has rotten",
    "the overlay is gone",
    "a close-up has rotten",
    "the report has changed",
    "the ledger has lost an export",
    "the ledger has lost the last drawing",
    "the ledger has lost a tile",
}
"""One for every kind of file and of harm; the others are of the same kinds."""
assert set(DEEDS) >= TELLING


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in TELLING else pytest.mark.slow) for name in DEEDS]
)
def test_what_is_not_as_it_was_is_never_called_sound_until_it_is_mended(world: World, run: Run, name: str) -> None:
    folder = run.path
    assert isinstance(folder, Path)
    assert verdict_of(run).is_sound
    DEEDS[name](folder)
    first = answer_of(run)
    assert first["sound"] is False
    assert any(first[kind] for kind in ("damaged", "pyramid_faults", "lacking", "exports", "unchecked", "pending"))
    assert first["remedy"], "what is not sound has a remedy"
    segments = len([*(folder / "ledger").glob("*")])
    for _ in range(3):
        assert answer_of(Run.open(folder)) == first
    assert len([*(folder / "ledger").glob("*")]) == segments, "asking again writes nothing"
    again = world.resume(folder)
    compute(again, world.worker)
    close(again)
    assert verdict_of(again).lacking == []
    assert verdict_of(again).is_sound
    assert again.ledger.fold().is_complete


def test_a_card_that_was_altered_is_named(run: Run) -> None:
    assert isinstance(run.path, Path)
    color = run.card.model.classes[1].color
    rewritten("run.json", color, "#123456")(run.path)
    report = verdict_of(Run.open(run.path))
    assert not report.is_sound
    assert "run.json isn't what it was" in report.lacking[0]
    rewritten("run.json", "#123456", color)(run.path)
    assert verdict_of(Run.open(run.path)).is_sound


def test_counts_that_are_not_those_of_a_tile_are_named_until_a_rerun_counts_again(world: World, run: Run) -> None:
    assert isinstance(run.path, Path)
    before = run.ledger.fold(held=True)
    assert before.held is not None
    digests = [before.held[4, part].tobytes().hex() for part in (slice(1, 17), slice(17, 33))]
    counts = {0: 128**2 - 1, 2: 1}
    run.ledger.append(TileRecord(4, TileState.DONE, 1, digests[0], probabilities=digests[1], counts=counts))
    run.ledger.flush()
    close(run)
    assert [*answer_of(run)["damaged"].values()] == ["its record counts other labels than it has"]
    assert answer_of(Run.open(run.path)) == answer_of(Run.open(run.path))
    again = world.resume(run.path)
    compute(again, world.worker)
    close(again)
    assert verdict_of(again).is_sound
    assert str(again.ledger.fold(held=True).counts) == str(before.counts)


def test_a_run_killed_before_its_pyramid_is_not_sound_and_a_rerun_builds_all(world: World, tmp_path: Path) -> None:
    run = Run.open(shutil.copytree(world.inferred, tmp_path / "run"))
    first = answer_of(run)
    assert first["lacking"] == ["the pyramid isn't built over all tiles"]
    assert first["exports"]["exports/mask.ome.tif"] == "it is not written yet"
    assert answer_of(run) == first
    outcome = summarise(run, 0.0)
    assert not outcome.complete
    assert outcome.remedy == f"overtile rerun {run.path} --damaged"
    close(run)  # as that command ends, which has no tile to compute
    assert verdict_of(run).is_sound
    assert (tmp_path / "run" / "exports" / "mask.ome.tif").is_file()


def test_shards_that_nobody_wrote_are_named_and_change_nothing(run: Run) -> None:
    assert isinstance(run.path, Path)
    stranger = run.path / MASK / "0" / "c" / "7" / "7"
    stranger.parent.mkdir()
    stranger.write_bytes(b"?")
    report = verdict_of(run)
    assert report.is_sound
    assert "1 files in mask.ome.zarr are no part of it, such as 0/c/7/7" in report.notes[0]


def test_other_names_of_classes_in_the_metadata_are_noted(run: Run) -> None:
    """A person may colour a mask otherwise; nobody calls it what was written without saying so."""
    assert isinstance(run.path, Path)
    rewritten(f"{MASK}/zarr.json", run.card.model.classes[1].name, "other")(run.path)
    report = verdict_of(run)
    assert report.is_sound
    assert report.notes == [f"{MASK}/zarr.json says other names, colours or codecs than were planned"]


def test_a_lost_segment_of_the_ledger_is_named(run: Run) -> None:
    assert isinstance(run.path, Path)
    lost_segment_with('"tile":4,')(run.path)
    report = verdict_of(run)
    assert report.pending == 1
    assert "the ledger has lost 1 segments" in report.notes[0]


def test_exports_that_show_another_mask_are_named_and_renewed(world: World, run: Run) -> None:
    tile = run.plan.at(0, 3)
    result = world.worker.process(run.path, tile.index, staged=False)
    labels = np.uint8(2) - run.open_mask().read(tile.valid)
    changed = run.open_mask().write(tile, labels)
    record_result(run, run.open_mask(), TileResult(tile.index, changed, 1, probabilities=result.probabilities), 1)
    run.ledger.flush()
    stitch(run)
    report = verdict_of(run)
    assert report.damaged == {}
    assert report.exports["exports/mask.ome.tif"] == "it shows another mask than there is now"
    assert "overlay.png" in report.exports
    export(run)
    assert verdict_of(run).is_sound


def test_of_runs_of_before_what_cannot_be_told_is_named(run: Run) -> None:
    """Their probabilities, exports and pictures have no digests, and lines no checksum; all else is looked at."""
    assert isinstance(run.path, Path)
    for segment in sorted((run.path / "ledger").iterdir()):
        lines = [json.loads(line) for line in segment.read_text().splitlines()]
        for line in lines:
            line.pop("probabilities", None)
            line.pop("crc", None)
            for fact in ("seals", "card"):
                line.get("facts", {}).pop(fact, None)
        kept = [line for line in lines if line.get("event") not in ("drawn", "exports asked")]
        segment.write_text("".join(json.dumps(line) + "\n" for line in kept))
    digest = mask_digest(run)
    for segment in sorted((run.path / "ledger").iterdir()):
        segment.write_text(re.sub('"mask": "[0-9a-f]+"', f'"mask": "{digest}"', segment.read_text()))
    report = verdict_of(Run.open(run.path))
    assert not report.is_wrong
    assert not report.is_sound
    assert report.unchecked[0].startswith(f"probabilities of {TILES} tiles: the ledger has no digest of them")
    assert any(text.startswith("exports/mask.ome.tif") for text in report.unchecked)
    assert any(text.startswith("overlay.png") for text in report.unchecked)
    flipped(f"{KEPT}/0/c/0/0/3")(run.path)
    assert list(verdict_of(Run.open(run.path)).damaged) == ["0,3"]


def test_a_failed_tile_keeps_a_run_from_being_sound(world: World, run: Run) -> None:
    record_result(run, run.open_mask(), TileResult(2, None, 0, {}, "it broke"), 1)
    run.ledger.flush()
    close(run)
    report = verdict_of(run)
    assert report.damaged == {}
    assert report.lacking == ["1 tiles failed and hold no labels (such as 0,2)"]
    assert report.remedy == f"overtile rerun {run.path} --failed --damaged"


def test_nothing_is_built_over_a_damaged_tile(world: World, run: Run) -> None:
    """A rerun of one of two damaged tiles ends calmly, and is not complete."""
    assert isinstance(run.path, Path)
    for index in (3, 6):
        flipped(f"{MASK}/0/c/0/{index}")(run.path)
    assert [*verdict_of(run).damaged] == ["0,3", "0,6"]
    record_result(run, run.open_mask(), world.worker.process(run.path, 3, staged=False), 1)
    run.ledger.flush()
    close(run)
    outcome = summarise(run, 0.0)
    assert not outcome.complete
    assert "1 tile damaged" in outcome.missing
    assert outcome.remedy == f"overtile rerun {run.path} --damaged"
    compute(run, world.worker)
    close(run)
    assert verdict_of(run).is_sound


def test_rot_that_nobody_knows_yet_stops_the_pyramid_with_one_line(world: World, tmp_path: Path) -> None:
    folder = shutil.copytree(world.inferred, tmp_path / "run")
    flipped(f"{MASK}/0/c/0/3")(folder)
    with pytest.raises(
        RunError, match=r"can't be read .*: the pyramid can't be built on it; overtile verify"
    ) as raised:
        stitch(Run.open(folder))
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_complete_means_complete_wherever_it_is_said(cli: Cli, world: World, tmp_path: Path) -> None:
    """A tile is computed again in a run of which others are to do."""
    folder = tmp_path / "run"
    world.resume(folder)
    ended = cli.run("rerun", folder, "--tile", "0,2", "--workers", 1)
    assert ended.code == 3, ended.err
    assert f"NOT complete ({TILES - 1} tiles to do): 1 of {TILES} tiles computed" in ended.out
    assert "run the overtile segment command of" in ended.out
    run = Run.open(folder)
    assert run.ledger.fold().count(TileState.DONE) == 1
    with pytest.raises(IncompleteError, match=f"{TILES - 1} tiles to do"):  # by which Prefect's flow run fails
        finished(outcome := summarise(run, 0.0), str(outcome))
    assert not open_run(folder).complete
    assert "not complete" in open_run(folder)._repr_html_()  # pyright: ignore[reportPrivateUsage] (what notebooks call)
    assert f"{TILES - 1} tiles to do" in render_report(run)
    shown = ShownRun(folder, "run")
    assert shown.state()["is_complete"] is False
    shown.close()
    status = cli.run("status", folder)
    assert f"NOT complete ({TILES - 1} tiles to do" in status.out
