"""The Kubernetes recipe's fixed ports and token, on a real Ray head in a network of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli import clean_environment
from manifests import cluster_specs
from test_manifests import allowed_ports

PROGRAM = Path(__file__).parents[1] / "support" / "listening_ray.py"
# Ray Client, and the figures of autoscaler and dashboard: nobody asks for them, and no policy lets anybody.
UNUSED = {10001, 44217, 44227}


@pytest.mark.slow
def test_ray_listens_where_the_policies_let_it_be_reached_and_asks_for_its_token(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("a network of its own needs root and ip")
    parameters = cluster_specs()["RayJob"]["headGroupSpec"]["rayStartParams"]
    options = [f"--{name}={value}" for name, value in parameters.items()]
    inside = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    ended = subprocess.run(
        [*inside, sys.executable, str(PROGRAM), "10.99.0.1", *options],
        env=clean_environment(tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="c" * 64),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(ended.stdout)
    ports = set(found["ports"])
    assert {6379, 6380, 6381, 8080, 8265, 52365} <= ports
    assert ports - UNUSED <= allowed_ports("ray-nodes") | allowed_ports("metrics")
    # Kubernetes' probes bring no token; everything else must.
    assert found["health"] == 200
    assert found["jobs without a token"] == 401
