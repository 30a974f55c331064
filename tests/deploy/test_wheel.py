"""The wheel: what it holds, and that it works in an environment with nothing else, with and without its extra."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import tomllib
import venv
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from flows.entry import refusal

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

SEGMENTED = """
import sys, time
began = time.perf_counter()
import overtile
imported = time.perf_counter()
import numpy as np
pixels = np.random.default_rng(0).integers(0, 255, (512, 512, 3), "uint8")
result = overtile.segment_image(pixels, image_mpp=0.5, foreground="none", progress=False)
first = time.perf_counter()
again = overtile.segment_image(pixels, image_mpp=0.5, foreground="none", progress=False)
assert (result.labels == again.labels).all().compute() and result.complete
assert not {"ray", "prefect"} & set(sys.modules)
print("import %.2f s, first %.2f s, second %.2f s"
      % (imported - began, first - imported, time.perf_counter() - first))
"""


def ran(*command: object, cwd: Path | None = None) -> str:
    ended = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ran("git", "clone", "--quiet", "--no-hardlinks", ROOT, source)  # what is committed, and no build folder of another
    ran("git", "-C", source, "remote", "set-url", "origin", "https://me:secret@git.example.org/lab/overtile.git")
    ran(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, source)
    (found,) = folder.glob("overtile-*.whl")
    return found


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


@pytest.mark.slow
def test_the_wheel_holds_models_pages_recipes_and_licences(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for needed in (
        "overtile.py",
        "overtile-stubs/__init__.pyi",
        "unet_core/bundles/nuclei/weights.safetensors",
        "unet_core/bundles/vessels/model.json",
        "unet_core/bundles/water/weights.safetensors",
        "unet_core/recipes/nuclei.toml",
        "flows/reporting/templates/report.html",
        "flows/viewer/static/vendor/openseadragon.min.js",
        "tiling/napari.yaml",
        "flows/py.typed",
    ):
        assert needed in names, needed
    licences = {name.partition("licenses/")[2] for name in names if ".dist-info/licenses/" in name}
    assert licences == {"LICENSE", "flows/viewer/static/vendor/openseadragon.LICENSE.txt"}
    assert not any(name.startswith(("tests/", "benchmarks/", "docs/")) for name in names)


@pytest.mark.slow
def test_its_metadata_ask_for_ranges(metadata: Message) -> None:
    needed = metadata.get_all("Requires-Dist") or []
    assert "torch<3,>=2.9" in needed
    assert [each for each in needed if "==" in each.partition(";")[0]] == []
    assert {each.partition(";")[0].strip() for each in needed if 'extra == "cluster"' in each} >= {
        "ray[default]>=2.60",
        "fastapi<0.140",
    }
    assert "Operating System :: POSIX :: Linux" in (metadata.get_all("Classifier") or [])


@pytest.mark.slow
def test_its_metadata_name_what_it_is_built_on_and_whose_checkout_it_is(metadata: Message) -> None:
    urls = dict(each.split(", ", 1) for each in metadata.get_all("Project-URL") or [])
    assert urls.pop("Source") == "https://git.example.org/lab/overtile"
    assert urls == addresses()["BUILT_ON"]
    assert all(len(label) <= 32 for label in urls), "the index shows no longer labels"


def addresses() -> dict[str, Any]:
    """Names of the build's script, which builds nothing when it is read."""
    return runpy.run_path(str(ROOT / "setup.py"))


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("https://github.com/lab/overtile.git\n", "https://github.com/lab/overtile"),
        ("https://oauth2:token@git.lab.org:8443/overtile/", "https://git.lab.org:8443/overtile"),
        ("https://git.lab.org/overtile?token=secret#key", "https://git.lab.org/overtile"),
        ("git@github.com:lab/overtile.git", ""),
        ("ssh://git@github.com/lab/overtile.git", ""),
        ("http://git.lab.org/overtile", ""),
        ("file:///work/overtile", ""),
        ("/work/overtile", ""),
        ("https://localhost/overtile", ""),
        ("https://10.0.0.7/overtile", ""),
        ("https://[::1]/overtile", ""),
        ("https://git.lab.internal/overtile", ""),
        ("https://git.lab.org:port/overtile", ""),
        ("", ""),
    ],
)
def test_only_an_address_that_others_can_open_is_named_and_no_name_of_an_account(given: str, named: str) -> None:
    assert addresses()["public"](given) == named


def test_whoever_builds_the_wheel_gives_its_addresses_or_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERTILE_DOCUMENTATION", "https://lab.example.org/overtile/")
    monkeypatch.setenv("OVERTILE_ISSUES", "https://lab.example.org/issues")
    found = addresses()["addresses"]()
    assert found["Documentation"] == "https://lab.example.org/overtile"
    assert found["Issues"] == "https://lab.example.org/issues"
    assert found.items() >= addresses()["BUILT_ON"].items()
    monkeypatch.setenv("OVERTILE_ISSUES", "lab.example.org/issues")
    with pytest.raises(SystemExit, match=r"OVERTILE_ISSUES=lab.example.org/issues is no public https address"):
        addresses()["addresses"]()


def test_the_lock_keeps_torch_exact_and_without_a_build() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert [line for line in lines if line.startswith("torch==")] == ["torch==2.13.0"]


def test_the_citation_names_this_version() -> None:
    assert f"\nversion: {PROJECT['version']}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.parametrize(
    ("platform", "said"),
    [("win32", "Windows, .* WSL"), ("darwin", "macOS, .* Linux"), ("freebsd14", "this is freebsd")],
)
def test_other_systems_are_refused_in_one_line(platform: str, said: str) -> None:
    message = refusal(platform)
    assert re.search(said, message)
    assert "\n" not in message
    assert refusal("linux") == ""


ELSEWHERE = """
import sys
sys.platform = sys.argv.pop(1)
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
"""


@pytest.mark.parametrize(("platform", "said"), [("win32", "Windows, .* WSL"), ("darwin", "macOS, .* Linux")])
def test_without_what_linux_alone_has_the_command_and_python_end_in_that_line(platform: str, said: str) -> None:
    for code, returned in (("from flows.entry import main; main()", 2), ("import overtile; overtile.open_run", 1)):
        command = [sys.executable, "-c", f"{ELSEWHERE}{code}", platform, "status", "run"]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == returned
        assert re.search(said, ended.stderr.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_an_empty_environment_segments_an_array_and_the_demo_without_ray_and_prefect(
    wheel: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty" / "bin" / "python"
    install = ["install", "--quiet", "--no-compile", "--constraint", ROOT / "requirements.lock", wheel]
    ran(python, "-m", "pip", *install, cwd=tmp_path)
    installed = ran(python, "-m", "pip", "list", "--format=freeze")
    assert "torch==2.13.0" in installed
    assert not {"ray", "prefect"} & {line.partition("==")[0] for line in installed.splitlines()}
    overtile = python.with_name("overtile")
    assert ran(overtile, "--version", cwd=tmp_path) == f"overtile {PROJECT['version']}\n"
    said = ran(python, "-c", SEGMENTED, cwd=tmp_path)
    assert said.startswith("import 0."), said
    sys.stdout.write(said)
    assert "complete: 36 of 36 tiles" in ran(overtile, "demo", cwd=tmp_path)
    refused = subprocess.run(
        [overtile, "verify", "runs/demo"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "pip install 'overtile[cluster]'" in refused.stderr


WITHOUT = """
import sys
for name in ("ray", "prefect", "grpc", "fastapi", "sqlalchemy"):
    sys.modules[name] = None
from flows.entry import main
main()
"""


@pytest.mark.slow
def test_without_the_extra_a_run_is_made_in_one_process_and_what_needs_it_names_it(tmp_path: Path) -> None:
    def overtile(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", WITHOUT, *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert "complete: 36 of 36 tiles" in overtile("demo", "-o", "demo").stdout
    assert overtile("rerun", "demo", "--tile", "0,0").returncode == 0
    for words in (
        ["verify", "demo"],
        ["serve", "night"],
        ["archive", "slides", "-o", "night", "--dry-run"],
        ["rerun", "demo", "--tile", "0,0", "--workers", "2"],
    ):
        ended = overtile(*words)
        assert ended.returncode == 2, words
        assert "pip install 'overtile[cluster]'" in ended.stderr
