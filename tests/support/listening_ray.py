"""Run in a network of its own: starts a Ray head as a manifest asks, and tells as JSON where its processes listen.

python listening_ray.py ADDRESS RAY_START_OPTION…
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import ray


class Worker:
    def answer(self) -> int:
        return 42


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def main() -> None:
    address, *options = sys.argv[1:]
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    program = Path(sys.executable).parent / "ray"
    start = [program, "start", "--head", f"--node-ip-address={address}", "--port=6379", "--dashboard-host=0.0.0.0"]
    subprocess.run([*start, "--temp-dir=/tmp/ray-ports", *options], check=True, stdout=sys.stderr)
    ray.init(address=f"{address}:6379", log_to_driver=False, logging_level=logging.ERROR)
    actor: Any = ray.remote(Worker)
    worker = actor.options(num_cpus=0).remote()
    ray.get(worker.answer.remote())
    listening = {tuple(each.laddr) for each in psutil.net_connections("tcp") if each.status == "LISTEN"}
    health = f"http://{address}:52365/api/local_raylet_healthz"
    report = {
        "ports": sorted({port for ip, port, *_ in listening if ip not in {"127.0.0.1", "::1"}}),
        "health": status_of(health),
        "jobs without a token": status_of(f"http://{address}:8265/api/jobs/"),
    }
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()
