"""`overtile models` and `overtile doctor` with models that aren't bundles yet, by the name that segment takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli import write_tissue
from hub_server import hub_server
from tiled import unlike_fresh
from torch import nn
from typer.testing import CliRunner

from flows.cli import app
from flows.doctor.checks import DoctorConfig, Level
from flows.doctor.storage import check_image, check_model
from unet_core.bundles.card import bundle_digest
from unet_core.bundles.facts import CardFacts
from unet_core.bundles.importing import import_network
from unet_core.bundles.program_file import write_program_file
from unet_core.models import build

FACTS = CardFacts(bands=("red", "green", "blue"), classes=("background", "cell"), mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    network = unlike_fresh(build("unet", {"bands": 3, "classes": 2, "first_channels": 2, "depth": 2}))
    import_network(network).save(folder, FACTS)
    return folder


@pytest.fixture
def reference(small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Name of a bundle on a hub."""
    with hub_server() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield hub.add("lab/small", small)


def invoked(*words: object) -> Any:
    return CliRunner().invoke(app, list(map(str, words)))


def test_a_model_of_the_hub_is_shown_and_exported_as_any_other(reference: str, small: Path, tmp_path: Path) -> None:
    shown = json.loads(invoked("models", "show", reference, "--json").stdout)
    assert shown["digest"] == bundle_digest(small)
    assert "halo top" in invoked("models", "inspect", reference).stdout
    assert invoked("models", "export", reference, "-o", tmp_path / "bundle").exit_code == 0
    assert bundle_digest(tmp_path / "bundle") == bundle_digest(small)
    assert invoked("models", "export", reference, "-o", tmp_path / "net.pt2").exit_code == 0
    refused = invoked("models", "show", reference.partition("@")[0])
    assert refused.exit_code == 2
    assert f"as {reference!r}" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_the_doctor_plans_for_a_model_of_the_hub_and_loads_it_without_an_image(reference: str, tmp_path: Path) -> None:
    image = write_tissue(tmp_path / "tissue.tif", 256, 256)
    checks = list(check_image(DoctorConfig(image=image, model=reference, workers=1)))
    assert [check.name for check in checks] == [f"image {image}", "memory"]
    assert check_model(reference).verdict is Level.ok
    absent = check_model(reference.replace("small", "none"))
    assert absent.verdict is Level.missing
    assert "there is no public repository 'lab/none'" in absent.found


def test_a_program_without_its_facts_is_refused_by_what_is_missing(tmp_path: Path) -> None:
    write_program_file("vessels", tmp_path / "net.pt2")
    refused = invoked("models", "show", tmp_path / "net.pt2")
    assert refused.exit_code == 2
    assert "as options of overtile models import" in refused.stderr


def test_an_import_is_told_as_json_as_the_model_is_shown(small: Path, tmp_path: Path) -> None:
    imported = json.loads(
        invoked("models", "import", small, "-o", tmp_path / "mine", "--name", "mine", "--json").stdout
    )
    shown = json.loads(invoked("models", "show", tmp_path / "mine", "--json").stdout)
    assert imported["out"] == str(tmp_path / "mine")
    assert {name: imported[name] for name in shown if name != "command"} == {
        name: value for name, value in shown.items() if name != "command"
    }


def test_json_says_why_a_network_has_no_halo(tmp_path: Path) -> None:
    norm = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 1))
    import_network(norm).save(tmp_path, FACTS)
    shown = json.loads(invoked("models", "show", tmp_path, "--json").stdout)
    assert (shown["halo_px"], shown["stride_px"]) == (None, None)
    assert "it normalises by the mean and variance over the whole image" in shown["unbounded"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("models import unet -o {}/mine", "'unet' is a network without weights"),
        ("segment a.tif -m fcn8s -o {}/run", "'fcn8s' is a network without weights"),
        ("models import nuclei -o {}/file", "is a file, and a bundle is a folder"),
        ("models import nuclei -o {}/mine --pixel-size wide", "--pixel-size: a number above 0 is needed, not 'wide'"),
        ("models import nuclei -o {}/mine --pixel-size 0", "--pixel-size: a number above 0 is needed, not '0'"),
        ("models export nuclei -o {}/none/net.pt2", "there is no folder"),
        ("view {}/none", "none holds no run"),
        ("view {}/file", "file holds no run"),
    ],
)
def test_what_can_not_be_is_refused_on_one_line(words: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = invoked(*words.format(tmp_path).split())
    assert refused.exit_code == 2
    assert said in refused.stderr
    assert refused.stderr.count("\n") == 1
