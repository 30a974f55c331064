"""Checks of Prefect's server and Ray's cluster: that they answer, and that every node has what this machine has."""

from __future__ import annotations

import base64
import json
import logging
import os
import platform
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import grpc
import psutil
import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flows.doctor.checks import Check
from flows.doctor.nodes import Probe, image_fault, shared_probe
from flows.errors import FlowError
from flows.lifecycle.prefect_server import EmbeddedServer
from flows.lifecycle.prefect_settings import read_settings, unused_files
from flows.pool.actors import short_reason
from tiling.storage.place import Place

ANSWER_SECONDS = 5.0
NODE_SECONDS = 90.0
CLOCKS_MAY_DIFFER_SECONDS = 5.0
GIB = 2**30
SAME_ON_ALL = ("overtile", "ray", "torch", "zarr", "tifffile", "imagecodecs", "numpy")


def check_prefect() -> Iterator[Check]:
    """The server that flows would report to, and its clock."""
    if EmbeddedServer.is_wanted():
        yield _embedded()
        return
    url = os.environ["PREFECT_API_URL"].rstrip("/")
    try:
        found, date = _ask(f"{url}/admin/version")
    except urllib.error.HTTPError as error:
        remedy = "set PREFECT_API_AUTH_STRING to the server's user:password" if error.code in {401, 403} else ""
        remedy = remedy or "give the API's address in PREFECT_API_URL, as in http://host:4200/api"
        yield Check.missing("prefect", f"{url} answers {error.code} {error.reason}", remedy)
        return
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        remedy = "start 'prefect server start', correct PREFECT_API_URL, or unset it for an embedded server"
        yield Check.missing("prefect", f"{url} doesn't answer ({reason})", remedy)
        return
    own = version("prefect")
    if found != own:
        remedy = f"install prefect=={own} on the server, as the lock file says"
        yield Check.missing("prefect", f"the server at {url} is {found}, this machine has {own}", remedy)
    else:
        yield Check.ok("prefect", f"{found} at {url}")
    if date is not None and abs(date - time.time()) > CLOCKS_MAY_DIFFER_SECONDS:
        remedy = "synchronise both clocks (NTP): schedules are the server's"
        yield Check.warning("prefect's clock", f"{date - time.time():+.0f} s against this machine's", remedy)


def _embedded() -> Check:
    """Start one as a run does: what keeps it from that is seen now."""
    own = version("prefect")
    files = ", ".join(unused_files())
    try:
        with EmbeddedServer().begin():
            if not files:
                return Check.ok("prefect", f"{own}, embedded: no server is configured, and one of its own starts")
    except (FlowError, OSError) as error:
        remedy = "repair what the server says, or set PREFECT_API_URL to one that runs"
        return Check.missing("prefect", f"{own}, embedded: {error}", remedy)
    remedy = "set PREFECT_API_URL in the environment, or in your Prefect profile, where flows are to report to a server"
    return Check.warning("prefect", f"{own}, embedded: {files} of the working folder is not followed", remedy)


def _ask(url: str) -> tuple[str, float | None]:
    """A JSON string from the server, and what time it has.

    Raises:
        OSError: no answer, or an HTTP error.
        HTTPException: an answer that isn't HTTP.
        ValueError: an answer that isn't Prefect's.
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise ValueError("neither http:// nor https://")
    request = urllib.request.Request(url)
    secret = read_settings().api.auth_string
    if secret is not None:
        basic = base64.b64encode(secret.get_secret_value().encode()).decode()
        request.add_header("Authorization", f"Basic {basic}")
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
        text = json.loads(answer.read(4096))
        date = answer.headers.get("Date")
    if not isinstance(text, str):
        raise ValueError("the answer is not Prefect's")
    return text, parsedate_to_datetime(date).timestamp() if date else None


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """Facts of a node, as it reports them."""

    node_id: str
    versions: dict[str, str]
    time: float
    free_bytes: int | None  # where the runs will be; None where that is an object store
    out_fault: str | None  # why the runs' place can't be used from there
    image_fault: str | None  # nor the image be opened


def check_ray(address: str, out: Place | None, image: Place | None = None) -> Iterator[Check]:
    """Attach as a run would, then ask every node."""
    fault = _unreachable(address)
    if fault is not None:
        yield fault
        return
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RayError, RuntimeError, ValueError) as error:
        remedy = "give the cluster the same Ray and Python as here, from the same requirements.lock"
        yield Check.missing("ray", f"{address}: {' '.join(str(error).split())[:300]}", remedy)
        return
    try:
        yield from _check_nodes(out, image)
    finally:
        ray.shutdown()


def _unreachable(address: str) -> Check | None:
    """Find at once what Ray itself would find out after half a minute."""
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "://" not in address:
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
        except OSError as error:
            remedy = "start it there (ray start --head --port …), correct --ray-address, or open that port"
            return Check.missing("ray", f"nothing answers at {address} ({error.strerror or error})", remedy)
        if _is_refused(address):
            remedy = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH, to the cluster's token"
            return Check.missing("ray", f"{address} asks for another token than this machine's", remedy)
    if "://" not in address and not any(each.info["name"] == "raylet" for each in psutil.process_iter(["name"])):
        remedy = f"run overtile on a node of the cluster, or make this machine one: ray start --address {address}"
        return Check.missing("ray", "no Ray node runs on this machine, and a driver needs one", remedy)
    return None


def _is_refused(address: str) -> bool:
    """True if the cluster's head turns this machine's token down, by the call that Ray's own health check makes."""
    if os.environ.get("RAY_USE_TLS") == "1":
        return False
    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")
        try:
            ask(b"", timeout=ANSWER_SECONDS, metadata=(("authorization", f"Bearer {_token()}"),))
        except grpc.RpcError as error:
            return error.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]
    return False


def _token() -> str:
    """Token from where Ray looks for it, in that order; empty where there is none."""
    given = os.environ.get("RAY_AUTH_TOKEN")
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if given is None and path.is_file():
        given = path.read_text(encoding="utf-8", errors="replace")
    return (given or "").strip()


def _check_nodes(out: Place | None, image: Place | None) -> Iterator[Check]:
    nodes = [node for node in ray.nodes() if node["Alive"]]
    resources = ray.cluster_resources()
    found = f"{ray.__version__}: {len(nodes)} nodes, {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs"
    if max(resources.get("CPU", 0), resources.get("GPU", 0)) < 1:
        yield Check.missing("ray", f"{found}: no worker can be placed", "add nodes, or start them with --num-cpus")
    else:
        yield Check.ok("ray", found)
    asked, deadline = time.time(), time.monotonic() + NODE_SECONDS
    with shared_probe(out) as probe:
        for node, answer in [(node, _ask_node(node["NodeID"], probe, image)) for node in nodes]:
            name = f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            yield _judge_node(name, answer, asked, deadline, probe)


def _ask_node(node_id: str, probe: Probe | None, image: Place | None) -> Any:
    """A task that runs there and nowhere else."""
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    task = ray.remote(_facts).options(num_cpus=0, scheduling_strategy=strategy)
    place = image.absolute() if isinstance(image, Path) else image
    return task.remote(node_id, probe, None if place is None else str(place))


def _facts(node_id: str, probe: Probe | None, image: str | None) -> NodeFacts:
    """Facts of this node."""
    versions = {"python": platform.python_version()} | {name: version(name) for name in SAME_ON_ALL}
    fault = None if probe is None else probe.answer(node_id)
    place = None if probe is None or fault else probe.place
    free = shutil.disk_usage(place).free if isinstance(place, Path) else None
    unread = None if image is None else image_fault(image)
    return NodeFacts(node_id, versions, time.time(), free, fault, unread)


def _judge_node(name: str, answer: Any, asked: float, deadline: float, probe: Probe | None) -> Check:
    try:
        facts = cast("NodeFacts", ray.get(answer, timeout=max(1.0, deadline - time.monotonic())))
    except GetTimeoutError:
        remedy = "look into Ray's logs of that node: it doesn't start workers"
        return Check.missing(name, f"no answer within {NODE_SECONDS:g} s", remedy)
    except RayError as error:
        remedy = "install overtile there from the same requirements.lock"
        return Check.missing(name, short_reason(error), remedy)
    own = {"python": platform.python_version()} | {each: version(each) for each in SAME_ON_ALL}
    other = [f"{each} {facts.versions[each]}, here {own[each]}" for each in own if facts.versions[each] != own[each]]
    if other:
        return Check.missing(name, "; ".join(other), "install overtile there from the same requirements.lock")
    fault = None if probe is None else facts.out_fault or probe.expect_answer(facts.node_id)
    if probe is not None and fault:
        return Check.missing(name, f"it doesn't share the runs' storage with this machine ({fault})", probe.remedy)
    if facts.image_fault:
        remedy = (
            "let every node see the image at the same path; for a URL, start Ray there with its store's credentials"
        )
        return Check.missing(name, f"the image can't be opened there ({facts.image_fault})", remedy)
    late, early = facts.time - time.time(), asked - facts.time
    if max(late, early) > CLOCKS_MAY_DIFFER_SECONDS:
        found = f"its clock is {abs(late) if late > 0 else early:.0f} s {'ahead' if late > 0 else 'behind'}"
        return Check.warning(name, found, "synchronise the clocks (NTP)")
    space = f", {facts.free_bytes / GIB:.1f} GiB free for runs" if facts.free_bytes is not None else ""
    return Check.ok(name, f"the same versions as here{space}")
