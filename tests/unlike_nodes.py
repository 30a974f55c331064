"""Run in a process of its own, whose only cluster this is: where a pool's actors run on nodes of unlike resources.

python unlike_nodes.py RUN, of a run that is planned and whose staged array is there; tells as JSON.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from flows.backlog import Backlog
from flows.pool import Pool
from flows.result import TileResult
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


@contextmanager
def nodes() -> Generator[dict[str, str]]:
    """Identifiers of a node with GPUs and of one that is there to stage; the head has no processors."""
    small: dict[str, Any] = {"object_store_memory": 80_000_000, "include_log_monitor": False}
    os.environ["PYTHONPATH"] = f"{Path(__file__).parent}:{Path(__file__).parents[1]}"
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


def node_of(actor: Any) -> str:
    return ray.get(actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()))


def main() -> None:
    run = Run.open(Path(sys.argv[1]))
    with nodes() as known, Pool(actor=Labeller) as pool, Backlog(limit=run.plan.count) as backlog:
        pool.stage(run.path, range(run.plan.count), backlog)
        stagers = {node_of(actor) for actor in pool._stagers.actors}  # pyright: ignore[reportPrivateUsage]
        backlog.close()
        told = [ended.result.reason for ended in pool.infer(backlog)]
        facts = {"nodes": known, "size": pool.size, "stagers": sorted(stagers), "told": told}
    sys.stdout.write(f"\n{json.dumps(facts)}\n")


if __name__ == "__main__":
    main()
