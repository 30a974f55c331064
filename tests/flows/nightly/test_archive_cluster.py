"""An archive's nights by Prefect's clock on a cluster of unlike nodes; the first night's driver is killed midway.

All of it is real: Prefect's server, a worker of a work pool, the deployments of `deploy/prefect.yaml`, a head, a node
that is there to stage, and a node of another address with two GPUs, which are declared and not there: its actors are
set to compute on the processor.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from cli import write_tissue
from growing import growing
from prefect_api import Api
from ray_nodes import QUICK_TO_NOTICE, Cluster, Node, cluster, linked_namespace
from small_bundles import whole_labels
from tiny import save_tiny, write_noise

from tiling.archives.archive import Archive
from tiling.archives.slide_record import SlideRecord, SlideState
from tiling.runs.ledger import TileState
from tiling.runs.no_data import NO_DATA
from tiling.runs.run import Run
from unet_core.bundles.bundle import load_bundle

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[3]
PREFECT = Path(sys.executable).parent / "prefect"
CORE = 128
EVERY_MINUTE = "* * * * *"
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

REAL = ("slides/CMU-1-Small-Region.svs", "geo/rasterio/RGB.byte.tif", "geo/rasterio/rgb_deflate.tif")
BROKEN = ("slides/unopenable.tiff", "slides/unreadable.svs", "geo/rasterio/corrupt.tif")


@dataclass(frozen=True, slots=True)
class Site:
    """A cluster, a Prefect server with a worker, and an archive."""

    api: Api
    gpu: Node
    staging: Node
    source: Path
    out: Path
    model: Path

    @property
    def deployment(self) -> str:
        return self.api.deployment("segment-archive", "segment-archive")

    def tiles(self) -> list[tuple[str, int]]:
        """All that the runs' ledgers hold, killed drivers' included."""
        return [(run.path.name, record.tile) for run in self.runs() for record in run.ledger.records()]

    def runs(self) -> list[Run]:
        """The runs that have begun; no run's own folders are walked, since a stager empties them meanwhile."""
        folders = []
        for folder, inner, files in os.walk(self.out / "slides"):
            if "run.json" in files:
                folders.append(Path(folder))
                inner.clear()
        return [Run.open(folder) for folder in sorted(folders)]

    def known(self) -> dict[str, SlideRecord]:
        return {record.slide: record for record in Archive.open(self.out).ledger}

    def flow_runs(self) -> list[dict[str, Any]]:
        asked = {"deployments": {"id": {"any_": [self.deployment]}}, "sort": "START_TIME_ASC"}
        return self.api.post("flow_runs/filter", asked)

    def in_state(self, *states: str) -> list[str]:
        return [each["id"] for each in self.flow_runs() if each["state_type"] in states]

    def schedule(self, *, active: bool) -> None:
        for each in self.api.get(f"deployments/{self.deployment}/schedules"):
            self.api.patch(f"deployments/{self.deployment}/schedules/{each['id']}", {"active": active})


def write_archive(source: Path, data_dir: Path) -> None:
    """Real slides, made ones of 512 to 1500 px, and broken ones."""
    for number in range(8):
        write_tissue(source / f"made/tissue{number}.tif", 512 + 140 * number, 1500 - 120 * number)
    for number in range(6):
        write_noise(source / f"made/noise{number}.tif", 600 + 90 * number, 700, seed=number)
    eyes = sorted((data_dir / "retina/CHASEDB1").glob("*.jpg"))[:4]
    cells = sorted((data_dir / "nuclei/images").glob("*.png"))[:2]
    (source / "real").mkdir()
    (source / "broken").mkdir()
    for path in (*(data_dir / name for name in REAL), *eyes, *cells):
        shutil.copy(path, source / "real")
    for name in BROKEN:
        shutil.copy(data_dir / name, source / "broken")
    whole = (source / "made/tissue0.tif").read_bytes()
    (source / "broken/cut.tif").write_bytes(whole[: len(whole) // 3])
    # Last in the order of work, which is by time.
    later = time.time() + 60
    write_noise(source / "late.tif", 1024, 1024, seed=40)
    os.utime(source / "late.tif", (later, later))


@pytest.fixture(scope="module")
def site(data_dir: Path, prefect_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    source, out = folder / "in", folder / "out"
    (source / "made").mkdir(parents=True)
    write_archive(source, data_dir)
    model = save_tiny(folder / "tiny")
    with (
        linked_namespace() as link,
        cluster(folder / "ray", link.here, PREFECT_API_URL=prefect_url, **QUICK_TO_NOTICE) as nodes,
    ):
        staging = nodes.join('--resources={"staging": 1}', ip=link.here)
        inside = (*link.inside, "env", "OVERTILE_DEVICE=cpu")
        gpu = nodes.join("--num-gpus=2", cpus=2, ip=link.there, within=inside)
        deploy(nodes, folder, {"source": str(source), "out": str(out), "model": str(model)})
        with worker(nodes, folder):
            yield Site(Api(prefect_url), gpu, staging, source, out, model)


def deploy(nodes: Cluster, folder: Path, archive: dict[str, str]) -> None:
    """The recipe as it is, but for where the archive is and when its nights begin."""
    recipe = yaml.safe_load((ROOT / "deploy/prefect.yaml").read_text())
    nightly = next(each for each in recipe["deployments"] if each["name"] == "segment-archive")
    more = {"core": CORE, "foreground": "none", "settle": 0, "ray_address": nodes.address}
    nightly["parameters"]["config"] = archive | more
    nightly["schedules"] = [{"cron": EVERY_MINUTE, "timezone": "UTC", "active": False}]
    (folder / "prefect.yaml").write_text(yaml.safe_dump(recipe))
    pool = ("work-pool", "create", "overtile", "--type", "process", "--overwrite")
    for command in (pool, ("--no-prompt", "deploy", "--all", "--prefect-file", str(folder / "prefect.yaml"))):
        ended = subprocess.run(
            [str(PREFECT), *command], env=nodes.environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr


@contextmanager
def worker(nodes: Cluster, folder: Path) -> Generator[None]:
    environment = nodes.environment | {"PREFECT_WORKER_QUERY_SECONDS": "2", "PREFECT_WORKER_PREFETCH_SECONDS": "2"}
    with (folder / "worker.log").open("wb") as log:
        command = [str(PREFECT), "worker", "start", "--pool", "overtile"]
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_until(reached: Callable[[], bool], what: str, seconds: float = 500) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: never")
        time.sleep(0.3)


def change_while_it_is_read(site: Site) -> threading.Thread:
    """As soon as its tiles are planned, somebody writes on a slide."""

    def change() -> None:
        deadline = time.monotonic() + 500
        while not (site.out / "slides/late.tif/run.json").is_file():
            if time.monotonic() > deadline:
                return
            time.sleep(0.02)
        with (site.source / "late.tif").open("ab") as file:
            file.write(b"more")

    thread = threading.Thread(target=change)
    thread.start()
    return thread


def driver_of(archive: Path) -> int:
    return int(json.loads((archive / "driver.lock").read_text())["process"])


@pytest.fixture(scope="module")
def first_night(site: Site) -> tuple[str, str]:
    """The killed flow run and the one that the clock started after it."""
    (site.source / "growing.tif").write_bytes((site.source / "made/tissue0.tif").read_bytes())
    with growing(site.source / "growing.tif", piece_bytes=50, every_seconds=0.02):
        site.schedule(active=True)
        wait_until(lambda: len(site.tiles()) > 400, "the first night comes to 400 tiles")
        (killed,) = site.in_state("RUNNING")
        assert len(site.gpu.of("TileActor")) == 2, "inference is on the node with GPUs"
        assert site.staging.of("StagingActor"), "staging is on the node that declares it"
        assert not site.gpu.of("StagingActor")
        assert not site.staging.of("TileActor")
        os.kill(driver_of(site.out), signal.SIGKILL)
        assert site.api.wait(killed, *ENDED)["type"] == "CRASHED"
        changing = change_while_it_is_read(site)
        wait_until(lambda: bool(set(site.in_state("RUNNING")) - {killed}), "the clock starts another night")
        (second,) = set(site.in_state("RUNNING")) - {killed}
        site.schedule(active=False)
        site.api.wait(second, *ENDED, seconds=600)
        changing.join()
    return killed, second


def test_a_killed_night_is_gone_on_with_by_the_clock(site: Site, first_night: tuple[str, str]) -> None:
    state = site.api.get(f"flow_runs/{first_night[1]}")["state"]
    assert state["type"] == "FAILED", "slides have failed, so the night has"
    known = site.known()
    by_state = {state: {name for name, each in known.items() if each.state is state} for state in SlideState}
    failed = by_state[SlideState.FAILED]
    assert failed == {f"broken/{Path(name).name}" for name in (*BROKEN, "cut.tif")}
    assert {name for name, record in known.items() if record.state is SlideState.CHANGING} == {
        "growing.tif",
        "late.tif",
    }
    done = {name for name, record in known.items() if record.state in {SlideState.DONE, SlideState.SAME}}
    assert len(done) == len(known) - len(failed) - 2 >= 20
    assert f"{len(failed)} failed" in state["message"]
    tiles = site.tiles()
    assert len(tiles) == len(set(tiles)), "no tile is in a ledger twice"
    for run in site.runs():
        if str(run.path).removeprefix(f"{site.out / 'slides'}/") in done:
            assert run.ledger.fold().count(TileState.DONE) == run.plan.count
    workers = {record.worker for run in site.runs() for record in run.ledger.records() if record.worker}
    assert {worker.split()[-1] for worker in workers} == {site.gpu.node_id}
    assert len(workers) == 4, "two actors of each driver"


def test_its_masks_are_those_of_one_pass(site: Site, first_night: tuple[str, str]) -> None:
    bundle = load_bundle(str(site.model))
    for name in ("made/tissue3.tif", "made/noise2.tif", "real/RGB.byte.tif"):
        run = Run.open(site.out / "slides" / name)
        with run.open_source() as source:
            pixels, held = source.read_filled(0, source.levels[0].box)
        even = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), mode="reflect")
        expected = whole_labels(bundle, even)[: pixels.shape[0], : pixels.shape[1]]
        if held is not None:
            expected[~held] = NO_DATA
        np.testing.assert_array_equal(run.open_mask().read(run.plan.mask), expected)


def test_the_second_night_does_only_what_is_new(site: Site, first_night: tuple[str, str]) -> None:
    before = site.known()
    written = {path: path.stat().st_mtime_ns for path in site.out.glob("slides/**/mask.ome.zarr/0/c/*/*")}
    os.utime(site.source / "made/tissue1.tif")
    write_noise(site.source / "made/noise0.tif", 600, 700, seed=70)
    write_noise(site.source / "new.tif", 300, 300, seed=71)
    write_tissue(site.source / "growing.tif", 400, 400)
    earlier = set(site.in_state(*ENDED))
    site.schedule(active=True)
    wait_until(lambda: bool(site.in_state("RUNNING")), "the clock starts the second night")
    (second,) = site.in_state("RUNNING")
    site.schedule(active=False)
    assert second not in earlier
    ended = site.api.wait(second, *ENDED)
    assert ended["type"] == "COMPLETED", f"failures that stood the night before fail no other night: {ended['message']}"
    known = site.known()
    tonight = {name: record for name, record in known.items() if before.get(name) != record}
    retried = {name for name, record in before.items() if record.state is SlideState.FAILED and not record.lasting}
    new = {"made/tissue1.tif", "made/noise0.tif", "new.tif", "growing.tif", "late.tif"}
    assert set(tonight) == new | retried
    assert {tonight[name].state for name in new} == {SlideState.DONE}
    redone = ("made/noise0.tif", "late.tif", *retried)
    for path, when in written.items():
        slide = path.relative_to(site.out / "slides").as_posix().partition("/mask.ome.zarr")[0]
        if slide not in redone:
            assert path.stat().st_mtime_ns == when, f"{slide} was written again"
    rows = {row["slide"]: row["state"] for row in csv.DictReader((site.out / "slides.csv").open())}
    assert rows == {name: record.state.value for name, record in known.items()}
