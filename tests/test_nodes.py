"""Nodes of a Ray cluster that are lost in the middle of a run, and nodes that join."""

from __future__ import annotations

import secrets
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from ray_nodes import QUICK_TO_NOTICE, Cluster, Node, cluster
from small_bundles import noise, whole_labels
from tiny import save_tiny, write_noise

from tiling.geometry import Box
from tiling.ledger import TileState
from tiling.run import Run
from unet_core.bundle import load_bundle

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
        self.process = cluster.cli.start("segment", self.image, "--out", folder, *options)

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


@pytest.fixture
def link() -> Iterator[tuple[str, str, str, str]]:
    """A network namespace, the two addresses of a link to it, and the link's name on this side."""
    name, octet = f"ov{secrets.token_hex(3)}", 1 + secrets.randbelow(250)
    here, there = f"10.213.{octet}.1", f"10.213.{octet}.2"
    if not _ip("netns", "add", name):
        pytest.skip("a network namespace needs root")
    try:
        assert _ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
        assert _ip("address", "add", f"{here}/24", "dev", f"{name}a")
        assert _ip("link", "set", f"{name}a", "up")
        assert _ip("-n", name, "address", "add", f"{there}/24", "dev", f"{name}b")
        assert _ip("-n", name, "link", "set", f"{name}b", "up")
        assert _ip("-n", name, "link", "set", "lo", "up")
        yield name, here, there, f"{name}a"
    finally:
        _ip("link", "delete", f"{name}a")
        _ip("netns", "delete", name)


def _ip(*arguments: str) -> bool:
    return subprocess.run(["ip", *arguments], capture_output=True, check=False).returncode == 0


def test_a_node_whose_link_is_cut_loses_no_tile(
    job: tuple[Path, Path], link: tuple[str, str, str, str], tmp_path: Path
) -> None:
    """Nobody closes a connection: packets just don't arrive any more, and the node's worker still writes."""
    namespace, here, there, device = link
    with cluster(tmp_path / "ray", here, **QUICK_TO_NOTICE) as nodes:
        near = nodes.join(ip=here)
        far = nodes.join(ip=there, within=("ip", "netns", "exec", namespace))
        with Driver(nodes, job, tmp_path / "run") as driver:
            driver.wait_until(lambda: min(driver.tiles_of(near), driver.tiles_of(far)) > 0, "both nodes work")
            _ip("link", "set", device, "down")
            known = driver.tiles_of(near)
            driver.wait_until(lambda: driver.tiles_of(near) > known + 20, "the near node goes on")
            driver.expect_whole()
