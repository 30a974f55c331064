"""Whole runs in a bucket: source, staging, mask and ledger behind a real S3 server, with faults in between."""

from __future__ import annotations

import json
from collections import Counter
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from cli import Cli, mask_files, write_tissue
from finished import finished_run, numbered
from numpy.typing import NDArray
from object_store import (
    BUCKET,
    SECRET,
    TOKEN,
    connected_to,
    environment_of,
    faulty_proxy,
    objects_below,
    place,
)
from third_party import Net
from torch import zeros
from torch.export import Dim, export, save
from walks import opened, record, walk

from flows.run.steps import find_objects, stitch
from flows.worker.staging_worker import StagingWorker
from flows.worker.tile_worker import TileWorker
from tiling.errors import ImageChangedError, PlaceError, RunError, SourceError, StorageError
from tiling.geometry import Box
from tiling.objects.image import open_objects
from tiling.objects.record import ask_for_objects, built_objects, check_objects
from tiling.objects.spec import ObjectSpec
from tiling.runs.ledger import TileRecord, TileState
from tiling.runs.run import Run
from tiling.runs.verification import check_pyramid, check_shards
from tiling.storage.object_path import ObjectPath

OWN_CARD = """
bands = ["red", "green", "blue"]
classes = ["background", "cell", "wall"]
mean = [150.0, 120.0, 160.0]
std = [60.0, 50.0, 50.0]
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An image of 3 x 3 tiles, and its finished run on disk."""
    folder = tmp_path_factory.mktemp("local")
    image = write_tissue(folder / "tissue.tif", 384, 300)
    walk(image, folder / "run")
    return image, folder / "run"


@pytest.fixture
def image(s3: str, local: tuple[Path, Path]) -> ObjectPath:
    place("tissue.tif").write_bytes(local[0].read_bytes())
    return place("tissue.tif")


def mask_of(run: Run) -> dict[str, bytes]:
    assert isinstance(run.mask_path, ObjectPath)
    return objects_below(run.mask_path)


def numbers_of(run: Run) -> NDArray[np.int32]:
    found = open_objects(run)
    assert found is not None
    return found.read(Box(0, 0, *found.shape))


def test_a_run_in_a_bucket_is_the_run_on_disk(image: ObjectPath, local: tuple[Path, Path]) -> None:
    run = walk(image, place("runs/same"))
    assert mask_of(run) == mask_files(local[1])
    for name in ("overlay.png", "exports/foreground.png"):
        assert (run.path / name).read_bytes() == (local[1] / name).read_bytes()
    assert sorted(item.name for item in place("runs/same").iterdir()) == [
        "close-ups",
        "exports",
        "ledger",
        "mask.ome.zarr",
        "objects.ome.zarr",
        "overlay.png",
        "report.html",
        "run.json",
    ]
    assert not run.staged_path.exists()
    card = json.loads((run.path / "run.json").read_bytes())
    assert card["image"]["path"] == f"s3://{BUCKET}/tissue.tif"
    assert [finding.fault for finding in check_shards(run)] == [None] * 9
    assert list(check_pyramid(run)) == []


@pytest.mark.slow
def test_faults_within_the_bound_leave_the_run_identical(
    s3: str, image: ObjectPath, local: tuple[Path, Path], few_retries: None
) -> None:
    numbers = count()
    kinds = ("503", "500", "cut", "lost", "503", "mute")

    def every_third(method: str, path: str, times: int) -> str | None:
        number = next(numbers)
        # Never more often in a row for one request than it is repeated.
        return kinds[number // 3 % len(kinds)] if number % 3 == 0 else None

    with faulty_proxy(s3, every_third) as script:
        run = walk(image, place("runs/faulty"))
    assert set(script.faults) == set(kinds)
    assert len(script.faults) > 40
    assert mask_of(run) == mask_files(local[1])
    state = run.ledger.fold()
    assert state.count(TileState.DONE) == 9
    assert len(list(run.ledger.records())) == 9


@pytest.mark.parametrize(
    ("fault", "said"), [("503", "503 Service Unavailable, SlowDown"), ("mute", "the store failed")]
)
def test_beyond_the_bound_the_tile_fails_and_is_named(
    s3: str, image: ObjectPath, local: tuple[Path, Path], few_retries: None, fault: str, said: str
) -> None:
    out = place(f"runs/bound-{fault}")

    def shard_fails(method: str, path: str, times: int) -> str | None:
        return fault if method == "PUT" and path.endswith("mask.ome.zarr/0/c/2/1") else None

    with faulty_proxy(s3, shard_fails) as script:
        run = walk(image, out)
    assert len(script.faults) == 5
    failed = run.ledger.fold().failed
    assert {run.plan.tile(index).name for index in failed} == {run.plan.at(2, 1).name}
    reason = next(iter(failed.values())).reason or ""
    assert "StorageError" in reason
    assert "0/c/2/1" in reason
    assert said in reason
    assert (run.open_mask().read(run.plan.at(2, 1).valid) == 255).all()
    record(run, TileWorker().process(run.path, run.plan.at(2, 1).index, staged=False))
    run.ledger.flush()
    stitch(run)
    assert mask_of(run) == mask_files(local[1])


def test_a_source_that_fails_for_good_fails_the_tiles_that_need_it(
    s3: str, image: ObjectPath, few_retries: None
) -> None:
    run = opened(image, place("runs/source"))
    run.create_staged()
    stager = StagingWorker()
    assert stager.stage(run.path, []) == []  # the image is open before it fails
    with faulty_proxy(s3, lambda method, path, times: "500" if path.endswith("tissue.tif") else None):
        broken = stager.stage(run.path, [8])[0]
    assert broken.reason is not None
    assert "s3://slides/tissue.tif" in broken.reason
    assert stager.stage(run.path, [8])[0].reason is None


def test_a_store_that_is_gone_ends_the_run_with_one_clear_line(s3: str, image: ObjectPath, few_retries: None) -> None:
    run = opened(image, place("runs/gone"))
    run.ledger.append(TileRecord(0, TileState.DONE, 1, "aa"))
    with faulty_proxy(s3, lambda method, path, times: "503"):
        run.ledger.append(TileRecord(1, TileState.DONE, 1, "bb"))
        with pytest.raises(StorageError, match=r"runs/gone/ledger/0000000[2-4]\.jsonl: the store failed") as raised:
            run.ledger.flush()
    assert "\n" not in str(raised.value)
    run.ledger.flush()  # what was not written is not forgotten
    assert Run.open(run.path).ledger.fold().count(TileState.DONE) == 2


def test_an_object_that_is_replaced_gives_no_tile_and_resumes_when_it_is_back(
    image: ObjectPath, local: tuple[Path, Path], tmp_path: Path
) -> None:
    content, run = image.read_bytes(), opened(image, place("runs/replaced"))
    run.create_staged()
    assert StagingWorker().stage(run.path, [0])[0].reason is None
    image.write_bytes(write_tissue(tmp_path / "other.tif", 300, 384).read_bytes())
    with pytest.raises(ImageChangedError, match=r"image s3://slides/tissue\.tif .*, seen at"):
        StagingWorker().stage(run.path, [8])
    with pytest.raises(ImageChangedError):
        TileWorker().process(run.path, 8, staged=False)
    image.write_bytes(content)
    assert mask_of(walk(image, place("runs/replaced"))) == mask_files(local[1])


@pytest.mark.parametrize("moment", ["delete_tree", "ObjectImage.write", "ObjectImage.write_list", "tree_digest"])
def test_objects_that_a_killed_driver_left_are_none_and_are_made_anew(
    moment: str, image: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are made in place: whichever rule is asked for next, what lies there counts for nothing."""
    run = finished_run(image, place(f"runs/killed-{moment}"))
    whole = Box(0, 0, *run.plan.mask.shape)
    before, files = numbered(run).read(whole), objects_below(place(f"runs/killed-{moment}/objects.ome.zarr"))
    assert before.max() > 20

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"tiling.objects.build.{moment}", killed)
        with pytest.raises(KeyboardInterrupt):
            numbered(run, ObjectSpec(least_px={1: 30}))
    state = run.ledger.fold(held=True)
    ask_for_objects(run, state, ObjectSpec())
    assert built_objects(run, state) is None
    assert check_objects(run, state) == "they are not built"
    find_objects(run, state)
    np.testing.assert_array_equal(numbers_of(run), before)
    assert objects_below(place(f"runs/killed-{moment}/objects.ome.zarr")) == files
    assert check_objects(run, run.ledger.fold(held=True)) is None


def test_a_worker_writes_nothing_into_a_run_that_was_removed(image: ObjectPath) -> None:
    """A bucket has no folders that could be gone: of each tile's requests one asks for the run's card."""
    run = opened(image, place("runs/removed"))
    run.create_staged()
    stager, worker = StagingWorker(), TileWorker()
    assert stager.stage(run.path, [0, 1])[1].reason is None
    assert worker.process(run.path, 0, staged=True).reason is None
    for name in objects_below(place("runs/removed")):
        place(f"runs/removed/{name}").unlink()
    with pytest.raises(RunError, match="holds no run"):
        worker.process(run.path, 1, staged=True)
    with pytest.raises(RunError, match="holds no run"):
        stager.stage(run.path, [2])
    assert objects_below(place("runs/removed")) == {}


def test_what_is_there_is_resumed_or_refused(image: ObjectPath) -> None:
    first = opened(image, place("runs/resumed"))
    again = opened(image, place("runs/resumed"))
    assert again.card == first.card
    with pytest.raises(RunError, match="core: 128 here, 256 asked for"):
        opened(image, place("runs/resumed"), core=256)
    place("runs/other/notes.txt").write_bytes(b"mine")
    with pytest.raises(RunError, match="nothing in it is overwritten"):
        opened(image, place("runs/other"))
    with pytest.raises(RunError, match="holds no run"):
        Run.open(place("runs/none"))
    with pytest.raises(PlaceError, match="can only be read"):
        opened(image, ObjectPath.parse("http://127.0.0.1:9/run"))


def test_no_byte_in_the_bucket_is_a_credential(s3: str, image: ObjectPath, few_retries: None) -> None:
    """After a run, its failed tile with a reason, and a refusal."""
    walk(image, place("runs/secret"))
    with pytest.raises(SourceError):
        opened(place("none.tif"), place("runs/secret"))
    with connected_to("http://127.0.0.1:9"):
        assert SECRET not in repr(place("runs/secret"))
        with pytest.raises(StorageError) as raised:
            opened(image, place("runs/secret"))
    assert SECRET not in str(raised.value)
    for name, data in objects_below(place("runs")).items():
        assert SECRET.encode() not in data, name
        assert TOKEN.encode() not in data, name


def test_a_network_of_ones_own_goes_into_the_bucket_and_is_found_there(image: ObjectPath, tmp_path: Path) -> None:
    extents = {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}
    save(export(Net().eval(), (zeros(2, 3, 64, 96),), dynamic_shapes=(extents,)), tmp_path / "net.pt2")
    (tmp_path / "card.toml").write_text(OWN_CARD)
    options = {"model": str(tmp_path / "net.pt2"), "card": tmp_path / "card.toml"}
    run = opened(image, place("runs/own"), **options)
    assert run.card.model.reference == "./model"
    (tmp_path / "net.pt2").unlink()
    result = TileWorker().process(run.path, 7, staged=False)
    assert result.reason is None


@pytest.mark.soak
def test_the_command_line_runs_in_a_bucket(cli: Cli, s3: str, image: ObjectPath, local: tuple[Path, Path]) -> None:
    """Ray's workers have their credentials from the driver's environment."""
    remote = Cli(cli.environment | environment_of(s3))
    out = f"s3://{BUCKET}/runs/cli"
    ended = remote.run("segment", image, "--out", out, "--core", 128, "--foreground", "none", "--workers", 1)
    assert ended.code == 0, ended.err
    run = Run.open(place("runs/cli"))
    assert mask_of(run) == mask_files(local[1])
    shard = place("runs/cli/mask.ome.zarr/0/c/2/1")
    before = shard.read_bytes()
    shard.write_bytes(b"rotten" * 20)
    verified = remote.run("verify", out, "--tiles", 1, "--seams", 1)
    assert verified.code == 3, verified.err
    repaired = remote.run("rerun", out, "--damaged")
    assert repaired.code == 0, repaired.err
    assert shard.read_bytes() == before
    status = remote.run("status", out)
    assert "9 done, 0 skipped, 0 failed, 0 to do of 9 tiles" in status.out
    refused = remote.run("status", f"s3://me:{SECRET}@{BUCKET}/runs/cli")
    assert refused.code == 2
    for text in (ended, verified, repaired, status, refused):
        assert SECRET not in text.out + text.err
        assert TOKEN not in text.out + text.err
    for name, data in objects_below(place("runs/cli")).items():
        assert SECRET.encode() not in data, name
        assert TOKEN.encode() not in data, name


@pytest.mark.soak
def test_a_tile_costs_few_requests(s3: str, image: ObjectPath) -> None:
    """What a bucket is asked for per tile decides what many accelerators can do with one; docs/scale.md reckons."""
    with faulty_proxy(s3, lambda *_: None) as script:
        run = opened(image, place("runs/requests"))
        run.create_staged()
        stager, worker = StagingWorker(), TileWorker()
        first, *others = run.plan.tiles()
        (staged,) = stager.stage(run.path, [first.index])  # opens the image, the run and its arrays
        assert staged.reason is None
        assert worker.process(run.path, first.index, staged=True).reason is None
        before = len(script.seen)
        for tile in others:
            stager.stage(run.path, [tile.index])
        staging = Counter(method for method, _, _ in script.seen[before:])
        before = len(script.seen)
        for tile in others:
            worker.process(run.path, tile.index, staged=True)
        inference = Counter(method for method, _, _ in script.seen[before:])
    tiles = len(others)
    # A look whether the run is still there; then a chunk is read and given back, and a shard written.
    assert inference == dict.fromkeys(("GET", "HEAD", "POST", "PUT"), tiles)
    assert (staging["HEAD"], staging["PUT"]) == (2 * tiles, tiles), "two looks, and the chunk"
    assert staging["GET"] <= 4 * tiles, "of the image"
    assert set(staging) <= {"GET", "HEAD", "PUT"}
