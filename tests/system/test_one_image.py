"""An image that becomes another while it is segmented: no mask is of two images, and what is done of it is kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import zarr
from cli import mask_files
from faulty_actors import ReadingActor, ReadingStager
from tiny import save_tiny, write_foreground, write_noise

from flows.config.run import SegmentConfig
from flows.pool.open import started_pool
from flows.pool.pool import Pool
from flows.run.changed_image import expect_same_image
from flows.run.prepare import prepare
from flows.run.steps import export, record_result, remaining, stitch
from flows.segment import segment
from flows.worker import staging_worker, tile_worker
from flows.worker.staging_worker import StagingWorker
from flows.worker.tile_worker import TileWorker
from flows.worker.tuning import tune
from tiling.errors import ImageChangedError, RunError
from tiling.runs.array_image import write_array
from tiling.runs.ledger import TileState
from tiling.runs.run import Run

TILES, AT = 6, 3


class Job:
    """A run of six tiles, whose image is changed at the read of one of them."""

    def __init__(self, folder: Path) -> None:
        self.image = write_noise(folder / "noise.tif", 256, 384)
        self.other = write_noise(folder / "other.tif", 256, 384, seed=1)
        self.kept = shutil.copy2(self.image, folder / "kept.tif")
        self.model, self.out, self.foreground = save_tiny(folder / "tiny"), folder / "run", "none"

    @property
    def config(self) -> SegmentConfig:
        return SegmentConfig(
            image=self.image, out=self.out, model=str(self.model), core=128, foreground=self.foreground
        )

    def resume(self) -> Run:
        return prepare(self.config, 1, partial(tune, device="cpu"))

    def compute(self, *, staged: bool) -> Run:
        run = self.resume()
        if staged:
            run.create_staged()
        stager, computing, mask, todo = StagingWorker(), TileWorker(), run.open_mask(), remaining(run)
        try:
            for index in todo:
                if staged:
                    (each,) = stager.stage(run.path, [index])
                    assert each.reason is None
                record_result(run, mask, computing.process(run.path, index, staged=staged), 1)
        finally:
            run.ledger.flush()
        expect_same_image(run, todo)
        stitch(run)
        export(run)
        return run

    def put_back(self) -> None:
        shutil.copy2(self.kept, self.image)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The mask of an undisturbed run."""
    job = Job(tmp_path_factory.mktemp("whole"))
    job.compute(staged=False)
    return mask_files(job.out)


def at_a_read(patch: pytest.MonkeyPatch, change: Callable[[], object], *, before: bool, index: int = AT) -> None:
    """Change something just before or just after the pixels of a tile are read, once."""
    left = [change]
    for module in (tile_worker, staging_worker):
        read = module.load_tile

        def load_tile(source, level, plan, tile, read=read):  # type: ignore[no-untyped-def]
            if before and tile.index == index and left:
                left.pop()()
            pixels = read(source, level, plan, tile)
            if tile.index == index and left:
                left.pop()()
            return pixels

        patch.setattr(module, "load_tile", load_tile)


def written_over(job: Job) -> None:
    job.image.write_bytes(job.other.read_bytes())


def written_over_with_its_time_kept(job: Job) -> None:
    facts = job.image.stat()
    written_over(job)
    os.utime(job.image, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def replaced(job: Job) -> None:
    job.other.replace(job.image)


def truncated(job: Job) -> None:
    os.truncate(job.image, 5000)


def removed(job: Job) -> None:
    job.image.unlink()


def switched(job: Job) -> None:
    """The image is a link."""
    link = job.image.with_name("new-link")
    link.symlink_to(job.other)
    link.replace(job.image)


CHANGES = [written_over, written_over_with_its_time_kept, replaced, truncated, removed, switched]
USUAL = {(written_over, True, True), (written_over_with_its_time_kept, False, False), (removed, False, True)}
"""The most telling; the others take as long each, and run in the soak."""


@pytest.mark.parametrize(
    ("change", "before", "staged"),
    [
        pytest.param(*each, marks=() if each in USUAL else pytest.mark.soak)
        for each in product(CHANGES, [True, False], [True, False])
    ],
)
def test_no_tile_of_another_image_is_accepted_and_the_old_one_resumes(
    job: Job, whole: dict[str, bytes], change: Callable[[Job], None], before: bool, staged: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        at_a_read(patch, partial(change, job), before=before)
        with pytest.raises(ImageChangedError, match=r"noise\.tif .*seen at \d\d:\d\d:\d\d") as raised:
            job.compute(staged=staged)
    assert "\n" not in str(raised.value)
    state = Run.open(job.out).ledger.fold()
    assert state.states.tolist() == [TileState.DONE] * AT + [TileState.PENDING] * (TILES - AT)
    job.image.unlink(missing_ok=True)
    job.put_back()
    job.compute(staged=staged)
    assert mask_files(job.out) == whole


@pytest.mark.parametrize("staged", [True, False], ids=["staged", "unstaged"])
@pytest.mark.parametrize("how", ["touched", "copied from a backup", "removed and put back"])
def test_the_same_content_is_the_same_image(job: Job, whole: dict[str, bytes], how: str, staged: bool) -> None:
    def change() -> None:
        if how == "touched":
            os.utime(job.image)
        elif how == "removed and put back":
            job.image.unlink()
        if how != "touched":
            job.put_back()

    with pytest.MonkeyPatch.context() as patch:
        at_a_read(patch, change, before=False)
        job.compute(staged=staged)
    assert mask_files(job.out) == whole


def test_pixels_of_an_image_that_changed_and_changed_back_are_read_again(job: Job, whole: dict[str, bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        at_a_read(patch, partial(written_over, job), before=True)
        read, left = tile_worker.load_tile, [job.put_back]

        def and_back(source, level, plan, tile):  # type: ignore[no-untyped-def]
            pixels = read(source, level, plan, tile)
            if tile.index == AT and left:
                left.pop()()
            return pixels

        patch.setattr(tile_worker, "load_tile", and_back)
        job.compute(staged=False)
    assert mask_files(job.out) == whole


@pytest.mark.parametrize("moment", ["before inference's end", "while the overlay is drawn"])
def test_the_end_looks_too(job: Job, whole: dict[str, bytes], moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if moment == "before inference's end":
        run = job.resume()
        computing, mask = TileWorker(), run.open_mask()
        for index in remaining(run):
            record_result(run, mask, computing.process(run.path, index, staged=False), 1)
        run.ledger.flush()
        written_over(job)
        with pytest.raises(ImageChangedError, match="6 of 6 tiles are kept and 0 are to do"):
            expect_same_image(run, [*range(TILES)])
    else:
        from flows.run import steps

        report = steps.write_report
        monkeypatch.setattr(steps, "write_report", lambda *of: (report(*of), written_over(job)))
        with pytest.raises(ImageChangedError):
            job.compute(staged=False)
        assert not (job.out / "overlay.png").exists()
        monkeypatch.undo()
    job.put_back()
    job.compute(staged=False)
    assert mask_files(job.out) == whole
    assert (job.out / "overlay.png").exists()


@pytest.mark.parametrize("how", ["replaced", "overwritten in place"])
@pytest.mark.parametrize("large", [False, True])
def test_a_chunk_of_an_ome_zarr_is_part_of_it(
    job: Job, tmp_path: Path, how: str, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiling.sources import version

    if large:
        monkeypatch.setattr(version, "FILES_PER_LOOK", 1)
    pixels = np.random.default_rng(0).integers(0, 255, (256, 384, 3), np.uint8)
    job.image = tmp_path / "image.ome.zarr"
    write_array(pixels, job.image, lambda *_: None)
    shutil.copytree(job.image, tmp_path / "kept.zarr")
    undisturbed = Job(tmp_path_make(tmp_path))
    undisturbed.image = job.image
    undisturbed.compute(staged=False)
    chunk = next(each for each in sorted(job.image.rglob("*")) if each.parent.parent.parent.name == "c")
    other = bytearray(chunk.read_bytes())

    def change() -> None:
        array = zarr.open_group(tmp_path / "kept.zarr", mode="a")["0"]
        array[:] = 255 - np.asarray(array[:])  # type: ignore[index, call-overload]
        new = (tmp_path / "kept.zarr" / chunk.relative_to(job.image)).read_bytes()
        if how == "replaced":
            (tmp_path / "new").write_bytes(new)
            (tmp_path / "new").replace(chunk)
        else:
            chunk.write_bytes(new)

    with pytest.MonkeyPatch.context() as patch:
        at_a_read(patch, change, before=False)
        with pytest.raises(ImageChangedError):
            job.compute(staged=False)
    chunk.write_bytes(bytes(other))
    job.compute(staged=False)
    assert mask_files(job.out) == mask_files(undisturbed.out)


def tmp_path_make(folder: Path) -> Path:
    (folder / "undisturbed").mkdir()
    return folder / "undisturbed"


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before-stage-3", pytest.param("after-infer-5", marks=pytest.mark.soak)])
def test_in_the_flow_the_run_says_which_image_and_resumes(
    job: Job, whole: dict[str, bytes], faults: Path, reporting: None, moment: str
) -> None:
    """Real actors and stagers."""
    text = f"import shutil; shutil.copyfile({str(job.other)!r}, {str(job.image)!r})"
    (faults / f"{moment}.py").write_text(text)
    config = job.config.model_copy(update={"staging": "stage" in moment})
    started_pool.set(Pool(1, actor=ReadingActor, stager=ReadingStager))
    try:
        with pytest.raises(ImageChangedError, match=r"noise\.tif has another content, seen at .* of 6 tiles are kept"):
            segment(config)
        state = Run.open(job.out).ledger.fold()
        assert state.count(TileState.DONE) <= int(moment[-1])
        assert state.count(TileState.FAILED) == 0
        job.put_back()
        started_pool.set(Pool(1, actor=ReadingActor, stager=ReadingStager))
        assert segment(config).complete
    finally:
        started_pool.set(None)
    assert mask_files(job.out) == whole


def test_a_foreground_image_that_changed_is_refused_at_resume(job: Job, tmp_path: Path) -> None:
    job.foreground = str(write_foreground(tmp_path / "foreground.png", 2, 3, (0, 2)))
    job.resume()
    content = Path(job.foreground).read_bytes()
    write_foreground(Path(job.foreground), 2, 3, (1, 0))
    with pytest.raises(RunError, match=r"foreground image: \w+ here, \w+ asked for"):
        job.resume()
    Path(job.foreground).write_bytes(content)
    job.resume()
