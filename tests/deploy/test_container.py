"""The container's build steps, carried out in clean root folders, and the result run as the image would be."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from clean_root import build, pip_settings, run_in
from manifests import ROOT
from test_image import stages

pytestmark = [
    pytest.mark.skipif(os.environ.get("OVERTILE_SOAK") != "1", reason="installs everything anew: make soak"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a root folder of its own needs root"),
    pytest.mark.timeout(1800),
]


def test_the_cpu_image_builds_and_segments_as_nobody_on_a_read_only_root(tmp_path: Path) -> None:
    settings = pip_settings()
    # A machine that has the CPU build of torch in a folder takes it from there.
    index = next(iter(settings.get("PIP_EXTRA_INDEX_URL", "").split()), "")
    local = {"TORCH_INDEX": index} if index.startswith("file:") else {}
    image = build(stages(), ROOT, tmp_path, {**settings, **local, "VARIANT": "cpu"})
    assert image.user == "10001:10001"

    doctor = run_in(image, ["overtile", "doctor", "--json"], read_only=True)
    checks = {check["name"]: check for check in json.loads(doctor.stdout)["checks"]}
    assert checks["packages"]["verdict"] == "ok", checks["packages"]
    assert "+cpu" in checks["processor"]["found"]

    demo = run_in(image, ["overtile", "demo", "--out", "/tmp/run"], read_only=True, more={"HOME": "/tmp"})
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "complete: 36 of 36 tiles" in demo.stdout

    size = subprocess.run(["du", "-sb", str(image.root)], capture_output=True, text=True, check=True).stdout
    packages = run_in(image, ["python", "-m", "pip", "list", "--format=freeze"]).stdout.splitlines()
    assert not [line for line in packages if line.startswith(("pytest", "ruff", "pyright", "playwright", "hadolint"))]
    assert int(size.split()[0]) < 3e9
