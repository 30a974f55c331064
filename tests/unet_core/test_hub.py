"""Models of the Hugging Face Hub: downloaded once by commit and digest, or refused on one line; no pickle is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
import torch
from hub_server import COMMIT, Hub, hub_server
from tiled import unlike_fresh

from flows.config.run import SegmentConfig
from flows.run.custom_model import with_bundle
from flows.run.preflight import check
from unet_core.bundles.bundle import load_bundle
from unet_core.bundles.card import WEIGHTS_NAME, bundle_digest, read_card
from unet_core.bundles.facts import CardFacts
from unet_core.bundles.hub import client
from unet_core.bundles.hub.fetch import fetch
from unet_core.bundles.hub.model import HubModel
from unet_core.bundles.importing import import_model, import_network
from unet_core.bundles.origin import Origin
from unet_core.bundles.program_file import copy_bundle, write_program_file
from unet_core.errors import BundleError
from unet_core.models import build

FACTS = CardFacts(bands=("red", "green", "blue"), classes=("background", "cell"), mean=(0.0,) * 3, std=(1.0,) * 3)
OTHER = "f" * 40


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with hub_server() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield served


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, with files beside it that nobody may open."""
    folder = tmp_path_factory.mktemp("small")
    network = unlike_fresh(build("unet", {"bands": 3, "classes": 2, "first_channels": 2, "depth": 2}))
    import_network(network).save(folder, FACTS)
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    (folder / "modeling.py").write_text("raise SystemExit\n")
    (folder / "README.md").write_text("# Small\n")
    return folder


def test_a_bundle_is_downloaded_once_without_what_may_hold_code(hub: Hub, small: Path) -> None:
    reference = hub.add("lab/small", small)
    folder = fetch(reference)
    assert bundle_digest(folder) == bundle_digest(small)
    assert not {"pytorch_model.bin", "modeling.py", "README.md"} & {path.name for path in folder.iterdir()}
    assert not [path for path in hub.asked if path.endswith((".bin", ".py", ".md"))]
    before = list(hub.asked)
    assert fetch(reference) == folder
    assert hub.asked == before, "a commit's files never change"


def test_a_repository_cannot_replace_the_listing_that_is_kept(hub: Hub, small: Path) -> None:
    reference = hub.add("lab/small", small)
    hub.repositories["lab/small"][".listing.json"] = json.dumps({"sha": COMMIT, "siblings": []}).encode()
    for _ in range(2):
        assert bundle_digest(fetch(reference)) == bundle_digest(small)


@pytest.mark.parametrize("name", ["\ud800.json", "../up.json", "a/../../up.json", "/up.json", ".config/x.json"])
def test_names_that_lead_elsewhere_are_not_downloaded(hub: Hub, small: Path, name: str) -> None:
    reference = hub.add("lab/small", small)
    hub.repositories["lab/small"][name] = b"{}"
    folder = fetch(reference)
    assert {each.name for each in folder.iterdir()} == {".listing.json", "graph.json", "model.json", WEIGHTS_NAME}
    assert not [*folder.parents[3].rglob("up.json")]


def test_a_size_beyond_all_numbers_is_no_list_of_files(hub: Hub, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = hub.add("lab/small", small)
    answer = hub.listing("lab/small")
    answer["siblings"][0]["size"] = float("1e999")
    monkeypatch.setattr(Hub, "listing", lambda *_: answer)
    with pytest.raises(BundleError, match="no list of files"):
        fetch(reference)


def test_a_bundle_of_the_hub_keeps_its_card_and_its_digest(hub: Hub, tmp_path: Path) -> None:
    copy_bundle("nuclei", tmp_path / "nuclei")
    imported = import_model(Origin(hub.add("lab/nuclei", tmp_path / "nuclei")))
    imported.save(tmp_path / "bundle", CardFacts())
    assert read_card(tmp_path / "bundle") == read_card("nuclei")
    assert bundle_digest(tmp_path / "bundle") == bundle_digest("nuclei")
    changed = imported.card(CardFacts(name="other"))
    assert (changed.name, changed.bands) == ("other", read_card("nuclei").bands)


def test_a_program_deep_in_a_repository_is_the_model_where_it_is_the_only_one(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "repository" / "export").mkdir(parents=True)
    write_program_file("vessels", tmp_path / "repository" / "export" / "net.pt2")
    reference = hub.add("lab/vessels", tmp_path / "repository")
    for each in (reference, f"{reference}/export", f"{reference}/export/net.pt2"):
        imported = import_model(Origin(each))
        assert imported.known.name == "vessels"
        assert imported.bands == 3
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        theirs = load_bundle("vessels").module(image) > 0
        assert torch.equal(import_model(Origin(reference)).module(image) > 0, theirs)


def test_what_is_damaged_in_the_cache_is_downloaded_again(hub: Hub, small: Path) -> None:
    reference = hub.add("lab/small", small)
    weights = fetch(reference) / WEIGHTS_NAME
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + b"\0")
    weights.with_name("model.json").unlink()
    folder = fetch(reference)
    assert (folder / WEIGHTS_NAME).read_bytes() == content
    assert read_card(folder) == read_card(small)


def test_a_file_that_changes_on_its_way_is_refused_and_not_kept(hub: Hub, small: Path, tmp_path: Path) -> None:
    reference, hub.damaged = hub.add("lab/small", small), True
    with pytest.raises(BundleError, match=r"came with the digest \w{12}, not \w{12} as the hub lists it") as refused:
        fetch(reference)
    assert "\n" not in str(refused.value)
    digests = {path.name for path in (tmp_path / "cache").rglob("blobs/*")}
    hub.damaged = False
    assert bundle_digest(fetch(reference)) == bundle_digest(small)
    assert digests < {path.name for path in (tmp_path / "cache").rglob("blobs/*")}


@pytest.mark.parametrize("place", ["head", "listing", "file"])
def test_a_hub_that_sends_byte_by_byte_is_given_up(
    hub: Hub, small: Path, monkeypatch: pytest.MonkeyPatch, place: Literal["head", "listing", "file"]
) -> None:
    reference, hub.drips = hub.add("lab/small", small), place
    with monkeypatch.context() as impatient:
        impatient.setattr(client, "GRACE_SECONDS", 0.25)
        with pytest.raises(BundleError, match=r"answers too slowly: an answer has 0.25 s, .*; try again") as refused:
            fetch(reference)
    assert "\n" not in str(refused.value)
    hub.drips = "nothing"
    assert bundle_digest(fetch(reference)) == bundle_digest(small)


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("hf:lab/small", rf"names no commit, .*as 'hf:lab/small@{COMMIT}'"),
        ("hf:lab/small@main", rf"names 'main', which is no commit, .*as 'hf:lab/small@{COMMIT}'"),
        (f"hf:lab/small@{COMMIT[:7]}", "which is no commit"),
        (f"hf:lab/small@{OTHER}", f"lab/small has no revision '{OTHER}'"),
        (f"hf:lab/none@{COMMIT}", "no public repository 'lab/none' .*private or gated"),
        (f"hf:lab/small@{COMMIT}/net.onnx", r"its repository has no net.onnx; it has README.md, .*model.json, "),
        (f"hf:lab/small@{COMMIT}/pytorch_model.bin", "read without unpickling"),
        (f"hf:lab/small@{COMMIT}/../../x", "a place outside of its repository"),
        ("hf:small", "no name on the Hugging Face Hub: give hf:OWNER/NAME@COMMIT"),
        (f"hf:../..@{COMMIT}", "no name on the Hugging Face Hub"),
    ],
)
def test_names_that_lead_nowhere_are_refused_with_the_remedy(hub: Hub, small: Path, reference: str, told: str) -> None:
    hub.add("lab/small", small)
    with pytest.raises(BundleError, match=told) as refused:
        fetch(reference)
    assert "\n" not in str(refused.value)


def test_without_a_network_the_cache_serves_and_all_else_is_one_line(
    hub: Hub, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = hub.add("lab/small", small)
    folder = fetch(reference)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert fetch(reference) == folder
    with pytest.raises(BundleError, match=r"http://127.0.0.1:9 can't be reached \(.*refused.*\); try again"):
        fetch(f"hf:lab/small@{OTHER}")
    with pytest.raises(BundleError, match=r"names no commit, .* as 'hf:lab/small@COMMIT'"):
        fetch("hf:lab/small")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch(reference) == folder
    with pytest.raises(BundleError, match="is not in the cache, and HF_HUB_OFFLINE forbids"):
        fetch(f"hf:lab/small@{OTHER}")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example.org")
    with pytest.raises(BundleError, match="no https address"):
        fetch(f"hf:lab/small@{OTHER}")


def test_a_repository_of_pickles_alone_is_refused_by_what_it_has(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    for name in ("pytorch_model.bin", "net.ckpt", "config.json"):
        (tmp_path / "r" / name).write_text("{}")
    with pytest.raises(BundleError, match=r"which are read without unpickling; it has config.json, net.ckpt, pytorch"):
        fetch(hub.add("lab/pickles", tmp_path / "r"))
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / "r" / name).write_bytes(b"")
    with pytest.raises(BundleError, match=r"holds a\.onnx, b\.onnx: name one"):
        fetch(hub.add("lab/two", tmp_path / "r"))


def test_answers_that_are_no_lists_of_that_commit_are_refused(hub: Hub, small: Path) -> None:
    hub.add("lab/small", small)
    hub.repositories["lab/small"]["../../escaped.json"] = b"{}"
    assert "../../escaped.json" not in HubModel.parse(f"hf:lab/small@{COMMIT}").wanted(hub.repositories["lab/small"])[0]
    kept = fetch(f"hf:lab/small@{COMMIT}") / ".listing.json"
    listing = json.loads(kept.read_text())
    for changed, message in (({"sha": OTHER}, "answers for the commit 'ffff"), ({"siblings": 1}, "no list of files")):
        kept.write_text(json.dumps(listing | changed))
        with pytest.raises(BundleError, match=message):
            fetch(f"hf:lab/small@{COMMIT}")


def test_facts_beside_a_bundle_of_the_hub_are_refused_as_beside_any_bundle(
    hub: Hub, small: Path, tmp_path: Path
) -> None:
    reference, card = hub.add("lab/small", small), tmp_path / "card.toml"
    card.write_text('name = "other"\n')
    config = SegmentConfig(image=tmp_path / "gone.tif", out=tmp_path / "run", model=reference, card=card)
    for begin in (check, with_bundle):
        with pytest.raises(BundleError, match=rf"--card has no use: model '{reference}' is a bundle"):
            begin(config)
