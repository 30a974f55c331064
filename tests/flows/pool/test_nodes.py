"""Nodes of a Ray cluster that are lost in the middle of a run, and nodes that join."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from cli import Cli, clean_environment
from ray_nodes import QUICK_TO_NOTICE, Cluster, Link, Node, cluster, linked_namespace
from small_bundles import noise, whole_labels
from tiny import save_tiny, write_noise

from tiling.geometry import Box
from tiling.runs.ledger import TileState
from tiling.runs.run import Run
from unet_core.bundles.bundle import load_bundle

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]

HEIGHT, WIDTH, CORE = 1280, 1920, 64
TILES = (HEIGHT // CORE) * (WIDTH // CORE)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("job")
    return write_noise(folder / "noise.tif", HEIGHT, WIDTH), save_tiny(folder / "tiny")


class Driver:
    """`overtile segment` on a cluster, and what its ledger says meanwhile."""

    def __init__(self, cluster: Cluster, job: tuple[Path, Path], folder: Path) -> None:
        self.image, self.model = job
        self.folder = folder
        options = ("--model", self.model, "--core", CORE, "--foreground", "none", "--ray-address", cluster.address)
        self.log = folder.with_suffix(".log")
        self.process = cluster.cli.start("segment", self.image, "--out", folder, *options, log=self.log)

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def tiles_of(self, node: Node) -> int:
        """How many tiles the ledger says that a node has computed."""
        name = node.node_id
        assert name is not None
        return self.tiles_by_node()[name]

    def tiles_by_node(self) -> Counter[str]:
        if not (self.folder / "run.json").is_file():
            return Counter()
        records = Run.open(self.folder).ledger.records()
        return Counter((record.worker or "").split()[-1] for record in records if record.worker)

    def wait_until(self, reached: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 400
        while not reached():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{what}: never; the ledger has {self.tiles_by_node()}, exit {self.process.poll()}")
            time.sleep(0.05)

    def expect_whole(self) -> None:
        """Every tile is in the ledger once, and the mask is that of one pass."""
        assert self.process.wait(400) == 0
        run = Run.open(self.folder)
        assert sorted(record.tile for record in run.ledger.records()) == list(range(TILES))
        assert run.ledger.fold().count(TileState.DONE) == TILES
        expected = whole_labels(load_bundle(str(self.model)), noise(HEIGHT, WIDTH))
        np.testing.assert_array_equal(run.open_mask().read(Box(0, 0, HEIGHT, WIDTH)), expected)


def test_a_killed_node_loses_no_tile_and_a_node_that_joins_is_used(job: tuple[Path, Path], tmp_path: Path) -> None:
    with cluster(tmp_path / "ray", **QUICK_TO_NOTICE) as nodes:
        first, second = nodes.join(), nodes.join()
        with Driver(nodes, job, tmp_path / "run") as driver:
            driver.wait_until(lambda: min(driver.tiles_of(first), driver.tiles_of(second)) > 0, "both nodes work")
            first.kill()
            known = driver.tiles_of(second)
            driver.wait_until(lambda: driver.tiles_of(second) > known + 20, "the other node goes on")
            (worker,) = second.of("TileActor")
            worker.suspend()  # so that there is something left for the newcomer
            third = nodes.join()
            driver.wait_until(lambda: driver.tiles_of(third) > 0, "the newcomer works")
            worker.resume()
            driver.expect_whole()


def test_a_driver_whose_head_is_killed_says_so_and_another_cluster_goes_on(
    job: tuple[Path, Path], tmp_path: Path
) -> None:
    """Ray itself would end the driver without a word, a minute later."""
    with cluster(tmp_path / "ray", **QUICK_TO_NOTICE) as nodes:
        node = nodes.join()
        with Driver(nodes, job, tmp_path / "run") as driver:
            driver.wait_until(lambda: driver.tiles_of(node) > 20, "the node works")
            (worker,) = node.of("TileActor")
            worker.suspend()  # actors need no head, so the work might be done before its death is noticed
            nodes.head.kill()
            assert driver.process.wait(55) == 1
            (message,) = [line for line in driver.log.read_text().splitlines() if line.startswith("error: ")]
            assert "the head of the Ray cluster at" in message
            assert "the same command resumes" in message
            known = sum(driver.tiles_by_node().values())
            assert 20 < known < TILES
    with cluster(tmp_path / "other", **QUICK_TO_NOTICE) as nodes:
        nodes.join()
        with Driver(nodes, job, tmp_path / "run") as driver:
            driver.expect_whole()


@pytest.fixture
def link() -> Iterator[Link]:
    with linked_namespace() as made:
        yield made


def test_a_node_whose_link_is_cut_loses_no_tile(job: tuple[Path, Path], link: Link, tmp_path: Path) -> None:
    """Nobody closes a connection: packets just don't arrive any more, and the node's worker still writes."""
    with cluster(tmp_path / "ray", link.here, **QUICK_TO_NOTICE) as nodes:
        near = nodes.join(ip=link.here)
        far = nodes.join(ip=link.there, within=link.inside)
        with Driver(nodes, job, tmp_path / "run") as driver:
            driver.wait_until(lambda: min(driver.tiles_of(near), driver.tiles_of(far)) > 0, "both nodes work")
            link.cut()
            known = driver.tiles_of(near)
            driver.wait_until(lambda: driver.tiles_of(near) > known + 20, "the near node goes on")
            driver.expect_whole()


def test_an_embedded_ray_joins_no_cluster_that_runs_on_the_machine(tmp_path: Path) -> None:
    image = write_noise(tmp_path / "noise.tif", 128, 128)
    command = ("segment", image, "--model", save_tiny(tmp_path / "tiny"), "--core", 64, "--foreground", "none")
    with cluster(tmp_path / "cluster") as beside:
        node = beside.join(cpus=2)
        ended = Cli(clean_environment(tmp_path / "prefect")).run(*command, "--workers", 1, "--out", tmp_path / "run")
        assert ended.code == 0, ended.err
        workers = {record.worker or "" for record in Run.open(tmp_path / "run").ledger.records()}
        assert not [each for each in workers if (node.node_id or "none") in each]
        assert node.node_id is not None, "the other cluster is as it was"
