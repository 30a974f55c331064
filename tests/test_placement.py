"""Where actors run on a cluster of unlike nodes: real raylets, each with the resources that it declares."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import ray
from ray.cluster_utils import Cluster
from tiny import save_tiny, write_noise

from flows.backlog import Backlog
from flows.config import SegmentConfig
from flows.pool import Pool
from flows.prepare import prepare
from flows.result import TileResult
from flows.tuning import Tuning
from tiling.run import Run
from tiling.storage import place_of


@ray.remote
class Labeller:
    """Stands where the real actor would on a GPU that isn't there, and tells on which node."""

    def __init__(self, device: str) -> None:
        self._reason = f"{device} {ray.get_runtime_context().get_node_id()}"

    def is_ready(self) -> bool:
        return True

    def process(self, run_path: str, index: int, staged: bool) -> TileResult:
        assert staged
        assert Run.open(place_of(run_path)).open_staged().holds(index)
        return TileResult(index, None, 0, {}, self._reason)


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[str, str]]:
    """Identifiers of a head without processors, a node with GPUs and one that is there to stage."""
    small: dict[str, Any] = {"object_store_memory": 80_000_000, "include_log_monitor": False}
    with mock.patch.dict(os.environ, {"PYTHONPATH": str(Path(__file__).parent)}, clear=False):
        os.environ["PYTHONPATH"] += f":{Path(__file__).parents[1]}"
        head = {"num_cpus": 0, "num_gpus": 0, "include_dashboard": False, **small}
        cluster = Cluster(initialize_head=True, connect=False, head_node_args=head)
        try:
            gpu = cluster.add_node(num_cpus=2, num_gpus=2, **small)
            staging = cluster.add_node(num_cpus=2, num_gpus=0, resources={"staging": 1}, **small)
            ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
            yield {"gpu": gpu.node_id, "staging": staging.node_id}
        finally:
            ray.shutdown()
            cluster.shutdown()


def planned(folder: Path) -> Run:
    image, model = write_noise(folder / "noise.tif", 256, 256), save_tiny(folder / "tiny")
    config = SegmentConfig(image=image, out=folder / "run", model=str(model), core=64, foreground="none")
    run = prepare(config, 2, lambda _: Tuning("float32", 64, {}))
    run.create_staged()
    return run


def node_of(actor: Any) -> str:
    return ray.get(actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()))


def test_cpu_nodes_stage_and_gpu_nodes_infer(nodes: dict[str, str], tmp_path: Path) -> None:
    run = planned(tmp_path)
    with Pool(actor=Labeller) as pool, Backlog(limit=run.plan.count) as backlog:
        assert pool.size == 2, "one actor per GPU"
        pool.stage(run.path, range(run.plan.count), backlog)
        stagers = {node_of(actor) for actor in pool._stagers.actors}  # pyright: ignore[reportPrivateUsage]
        assert stagers == {nodes["staging"]}
        backlog.close()
        told = {ended.result.reason for ended in pool.infer(backlog)}
    assert told == {f"cuda {nodes['gpu']}"}
