"""Run in a process of its own, whose only cluster this is: where a pool's actors run on nodes of unlike resources.

python unlike_nodes.py RUN WHEN, of a run that is planned and whose staged array is there; tells as JSON. The node with
GPUs is there at the start where WHEN is `early`; else it joins when everything is staged, and actors that want GPUs
wait for it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from flows.pool.backlog import Backlog
from flows.pool.embedded import private_folder
from flows.pool.pool import Pool
from flows.worker.result import TileResult
from tiling.runs.run import Run
from tiling.storage.place import place_of


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


SMALL: dict[str, Any] = {"object_store_memory": 80_000_000, "include_log_monitor": False}


@contextmanager
def staging_cluster() -> Generator[tuple[Cluster, str]]:
    """A cluster with a node that is there to stage, and its identifier; the head has no processors."""
    # Ray notes the address of a cluster among its sessions, where another user of the machine may have been first.
    os.environ.setdefault("RAY_TMPDIR", str(private_folder()))
    os.environ["PYTHONPATH"] = f"{Path(__file__).parent}:{Path(__file__).parents[2]}"
    head = {"num_cpus": 0, "num_gpus": 0, "include_dashboard": False, **SMALL}
    cluster = Cluster(initialize_head=True, connect=False, head_node_args=head)
    try:
        staging = cluster.add_node(num_cpus=2, num_gpus=0, resources={"staging": 1}, **SMALL)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield cluster, staging.node_id
    finally:
        ray.shutdown()
        cluster.shutdown()


def join_with_gpus(cluster: Cluster) -> str:
    """A further node's identifier."""
    return cluster.add_node(num_cpus=2, num_gpus=2, **SMALL).node_id


def node_of(actor: Any) -> str:
    return ray.get(actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()))


def main() -> None:
    run, early = Run.open(Path(sys.argv[1])), sys.argv[2] == "early"
    with ExitStack() as stack:
        cluster, staging = stack.enter_context(staging_cluster())
        gpu = join_with_gpus(cluster) if early else ""
        pool = stack.enter_context(Pool(actor=Labeller, device="auto" if early else "cuda"))
        backlog = stack.enter_context(Backlog(limit=run.plan.count))
        pool.stage(run.path, range(run.plan.count), backlog)
        stagers = {node_of(actor) for actor in pool._stagers.actors}  # pyright: ignore[reportPrivateUsage]
        backlog.close()
        gpu = gpu or join_with_gpus(cluster)
        reasons = [ended.result.reason for ended in pool.infer(backlog)]
        facts = {
            "nodes": {"gpu": gpu, "staging": staging},
            "size": pool.size,
            "stagers": sorted(stagers),
            "told": reasons,
        }
    sys.stdout.write(f"\n{json.dumps(facts)}\n")


if __name__ == "__main__":
    main()
