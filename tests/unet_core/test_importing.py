"""Anybody's network becomes a bundle: the same labels, tile by tile, and a complete card or a clear refusal."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_bundles import noise, stitched
from third_party import Net
from tiled import unlike_fresh
from torch import nn
from torch.export import Dim

from unet_core.bounds import footprint
from unet_core.bundles.bundle import bundle_digest, load_bundle, read_card
from unet_core.bundles.facts import CardFacts, read_facts
from unet_core.bundles.importing import import_model, import_network
from unet_core.bundles.origin import Origin
from unet_core.bundles.program_file import copy_bundle, write_program_file
from unet_core.errors import BundleError, FootprintError
from unet_core.inference.predictor import Predictor
from unet_core.models import build

FACTS = CardFacts(
    bands=("red", "green", "blue"),
    classes=("background", "cell", "wall"),
    mean=(100.0, 120.0, 140.0),
    std=(60.0, 50.0, 70.0),
)
FACTORY = "third_party:make_net"


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """The user's network, its three classes about equally frequent."""
    made = unlike_fresh(Net())
    with torch.no_grad():
        logits = made(normalised(noise(64, 64)))
        spread = logits.std((0, 2, 3))
        made.get_parameter("head.bias").sub_(logits.mean((0, 2, 3))).div_(spread)
        made.get_parameter("head.weight").div_(spread.view(-1, 1, 1, 1))
    return made


@pytest.fixture(scope="module")
def program(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("programs") / "My Net.pt2"
    extents = {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}
    torch.export.save(torch.export.export(network, (torch.zeros(2, 3, 64, 96),), dynamic_shapes=(extents,)), path)
    return path


def normalised(pixels_HWC: Any) -> torch.Tensor:
    pixels = torch.from_numpy(np.ascontiguousarray(pixels_HWC)).permute(2, 0, 1)[None].float()
    assert FACTS.mean is not None
    assert FACTS.std is not None
    return (pixels - torch.tensor(FACTS.mean).view(1, 3, 1, 1)) / torch.tensor(FACTS.std).view(1, 3, 1, 1)


def expect_same_labels(folder: Path, network: nn.Module) -> None:
    """Labels of the bundle's tiles against one pass of the user's own module over the whole image."""
    bundle, pixels = load_bundle(folder), noise(192, 160)
    with torch.no_grad():
        whole = network(normalised(pixels)).argmax(1)[0].numpy()
    labels = stitched(Predictor(bundle), pixels, 64, footprint(bundle.module, 3))
    assert len(np.unique(whole)) == 3
    assert np.array_equal(labels, whole)


def test_program_becomes_a_bundle_with_exactly_its_labels(network: nn.Module, program: Path, tmp_path: Path) -> None:
    card = import_model(Origin(str(program))).save(tmp_path / "b", FACTS)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [
        "graph.json",
        "model.json",
        "weights.safetensors",
    ]
    assert (card.name, card.architecture, card.decision.rule) == ("my-net", "exported", "argmax")
    expect_same_labels(tmp_path / "b", network)


def test_factory_with_weights_becomes_a_bundle_with_exactly_its_labels(network: nn.Module, tmp_path: Path) -> None:
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    import_model(Origin(FACTORY, tmp_path / "w.safetensors", trust_code=True)).save(tmp_path / "b", FACTS)
    expect_same_labels(tmp_path / "b", network)


def test_same_source_gives_the_same_digest_and_other_weights_another(program: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        import_model(Origin(str(program))).save(tmp_path / name, FACTS)
    save_file(unlike_fresh(Net(), seed=9).state_dict(), tmp_path / "w.safetensors")
    import_model(Origin(FACTORY, tmp_path / "w.safetensors", trust_code=True)).save(tmp_path / "c", FACTS)
    first = bundle_digest(tmp_path / "a")
    assert bundle_digest(tmp_path / "b") == first == load_bundle(tmp_path / "a").digest
    assert bundle_digest(tmp_path / "c") != first


def test_changed_graph_is_refused(program: Path, tmp_path: Path) -> None:
    """The card names the graph's digest, so that the bundle's digest covers it."""
    import_model(Origin(str(program))).save(tmp_path / "b", FACTS)
    graph = tmp_path / "b" / "graph.json"
    graph.write_text(graph.read_text().replace("avg_pool2d.default", "max_pool2d.default"))
    with pytest.raises(BundleError, match="not the one that the bundle's card names"):
        load_bundle(tmp_path / "b")
    before = bundle_digest(tmp_path / "b")
    card = json.loads((tmp_path / "b" / "model.json").read_text())
    card["parameters"]["graph"] = "0" * 64
    (tmp_path / "b" / "model.json").write_text(json.dumps(card))
    assert bundle_digest(tmp_path / "b") != before


def test_factory_runs_only_with_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "untrusted_net.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match=r"Python code.*--trust-code"):
        import_model(Origin("untrusted_net:make"))
    assert not (tmp_path / "canary").exists()


def test_current_folder_is_importable_with_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_here.py").write_text("from third_party import Net\nclass Mine(Net): pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert import_model(Origin("mine_here:Mine", trust_code=True)).outputs == 3


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("third_party:nothing", "gives no network .AttributeError"),
        ("no_such_module:make", "gives no network .ModuleNotFoundError"),
        ("third_party:ConvBlock", "gives no network .TypeError"),
        ("third_party:make_text", "gives a str"),
        ("third_party:make_nothing_on_two_lines", "gives no network .RuntimeError: size mismatch for stem: 3, 4."),
        ("sys:exit", "gives no network .SystemExit"),
    ],
)
def test_factory_that_gives_no_network_is_named(factory: str, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        import_model(Origin(factory, trust_code=True))


def test_network_without_finite_bounds_is_imported_and_refused_an_exact_halo(tmp_path: Path) -> None:
    facts = FACTS.model_copy(update={"classes": ("background", "cell")})
    import_model(Origin("third_party:make_globally", trust_code=True)).save(tmp_path / "b", facts)
    with pytest.raises(FootprintError, match="mean and variance over the whole image"):
        footprint(load_bundle(tmp_path / "b").module, 3)


def test_network_of_overtile_is_imported_with_its_weights(tmp_path: Path) -> None:
    parameters = {"bands": 3, "classes": 3, "first_channels": 4, "depth": 2}
    made = unlike_fresh(build("unet", parameters))
    torch.save(made.state_dict(), tmp_path / "w.pt")
    card = import_model(Origin("unet", tmp_path / "w.pt", parameters=parameters)).save(tmp_path / "b", FACTS)
    assert (card.architecture, card.parameters) == ("unet", parameters)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["model.json", "weights.safetensors"]


def test_bundle_is_imported_with_other_facts(program: Path, tmp_path: Path) -> None:
    import_model(Origin(str(program))).save(tmp_path / "b", FACTS)
    renamed = CardFacts(name="other", pixel_size_um=0.25)
    card = import_model(Origin(str(tmp_path / "b"))).save(tmp_path / "c", renamed)
    assert (card.name, card.pixel_size_um, card.bands) == ("other", 0.25, FACTS.bands)
    assert bundle_digest(tmp_path / "c") == bundle_digest(tmp_path / "b")


def test_everything_that_is_missing_is_named_at_once(program: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        import_model(Origin(str(program))).save(tmp_path / "b", CardFacts())
    assert all(f"--{name}" in str(caught.value) for name in ("bands", "classes", "mean", "std"))
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bands": ("gray",)}, "takes 3 bands, 1 are named"),
        ({"classes": ("background", "cell")}, "gives 3 channels"),
        ({"classes": ("background", "a", "b", "c"), "decision": "argmax"}, "decided by argmax need 4"),
        ({"mean": (1.0,)}, "1 means and 3 deviations for 3 bands"),
        ({"std": (1.0, 0.0, 1.0)}, "std.1"),
        ({"colors": ("#000000",)}, "1 colours for 3 classes"),
        ({"colors": ("#000000", "red", "#ffffff")}, "color"),
        ({"pixel_size_um": -1.0}, "pixel_size_um"),
    ],
)
def test_facts_that_do_not_fit_are_named(program: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        import_model(Origin(str(program))).save(tmp_path / "b", FACTS.model_copy(update=changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "b").exists()


def test_one_class_per_channel_is_decided_by_thresholds(program: Path, tmp_path: Path) -> None:
    facts = FACTS.model_copy(update={"classes": ("background", "a", "b", "c")})
    card = import_model(Origin(str(program))).save(tmp_path / "b", facts)
    assert (card.decision.rule, card.decision.thresholds) == ("threshold", (0.5, 0.5, 0.5))


@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_facts_come_from_a_file(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"card{suffix}"
    marked = "utf-8-sig"  # as some editors write UTF-8
    file.write_text('{"mean": [1, 2]}' if suffix == ".json" else "mean = [1, 2]\n", encoding=marked)
    assert read_facts(file).mean == (1.0, 2.0)
    file.write_text('{"meen": [1]}' if suffix == ".json" else "meen = [1]\n")
    with pytest.raises(BundleError, match=r"meen.*known are name"):
        read_facts(file)


def smp_folder(folder: Path) -> Path:
    """What save_pretrained writes, as far as it matters here."""
    folder.mkdir()
    config = {"_model_class": "Unet", "encoder_name": "resnet18", "in_channels": 3, "classes": 3}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"a": torch.zeros(1)}, folder / "model.safetensors")
    return folder


def test_folder_of_segmentation_models_pytorch_is_told_how_to_get_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)  # as where it isn't installed
    origin = Origin(str(smp_folder(tmp_path / "smp")))
    assert origin.kind == "smp"
    with pytest.raises(BundleError, match="pip install segmentation-models-pytorch"):
        import_model(origin)


def test_folder_with_pickled_weights_of_segmentation_models_pytorch_is_refused(tmp_path: Path) -> None:
    folder = smp_folder(tmp_path / "smp")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BundleError, match=r"no model.safetensors"):
        import_model(Origin(str(folder)))


def test_network_of_segmentation_models_pytorch_becomes_a_bundle(tmp_path: Path) -> None:
    library = pytest.importorskip("segmentation_models_pytorch", reason="the library is not in the lock file")
    made: Any = unlike_fresh(library.Unet("resnet18", encoder_weights=None, classes=3))
    made.save_pretrained(tmp_path / "smp")
    import_model(Origin(str(tmp_path / "smp"))).save(tmp_path / "b", FACTS)
    bundle, image = load_bundle(tmp_path / "b"), torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(bundle.module(image), made(image))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("gone.pt2", "does not exist"),
        ("weights.pt", "don't say of which network"),
        ("nuklei", "no model called"),
    ],
)
def test_what_is_no_model_is_refused(reference: str, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        import_model(Origin(reference))


def test_weights_beside_a_program_are_refused(program: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="has no use"):
        import_model(Origin(str(program), tmp_path / "w.pt"))


def test_an_exported_model_is_imported_with_the_same_labels_and_its_card(tmp_path: Path, network: nn.Module) -> None:
    import_network(network).save(tmp_path / "mine", FACTS)
    facts = write_program_file(str(tmp_path / "mine"), tmp_path / "out.pt2")
    import_model(Origin(str(tmp_path / "out.pt2"))).save(tmp_path / "again", read_facts(facts))
    before, after = read_card(tmp_path / "mine"), read_card(tmp_path / "again")
    assert (after.bands, after.classes, after.normalization) == (before.bands, before.classes, before.normalization)
    expect_same_labels(tmp_path / "again", network)
    copy_bundle(str(tmp_path / "mine"), tmp_path / "copy")
    assert bundle_digest(tmp_path / "copy") == bundle_digest(tmp_path / "mine")
    (tmp_path / "other.toml").write_text("")
    with pytest.raises(BundleError, match="nothing is overwritten"):
        write_program_file(str(tmp_path / "mine"), tmp_path / "other.pt2")
