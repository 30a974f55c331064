"""Bundles: a card and weights on disk, and every way in which they can be wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from unet_core.bundles.bundle import (
    ClassInfo,
    Decision,
    ModelCard,
    Normalization,
    bundle_digest,
    list_bundles,
    load_bundle,
    read_card,
    save_bundle,
)
from unet_core.errors import BundleError
from unet_core.models import build

PARAMETERS = {"bands": 2, "classes": 1, "first_channels": 4, "depth": 2}
SHIPPED_BYTES_LIMIT = 32_000_000


def a_card(**changes: Any) -> ModelCard:
    fields: dict[str, Any] = {
        "name": "tiny",
        "description": "a network for tests",
        "architecture": "unet",
        "parameters": PARAMETERS,
        "bands": ("red", "green"),
        "dtype": "uint8",
        "classes": (ClassInfo("background", "#000000"), ClassInfo("thing", "#56b4e9")),
        "decision": Decision("threshold", (0.5,)),
        "normalization": Normalization((32.0, 32.0), (64.0, 64.0)),
        "license": "Apache-2.0",
        "training": {"data": "none"},
    }
    return ModelCard(**(fields | changes))


@pytest.fixture
def bundle_dir(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_bundle(tmp_path / "tiny", a_card(), build("unet", PARAMETERS))
    return tmp_path / "tiny"


def test_what_a_constructor_computes_is_there_beside_what_the_file_holds(tmp_path: Path) -> None:
    parameters = {"bands": 2, "classes": 1, "first_channels": 1, "head_channels": 4, "upsampling": "fixed"}
    saved = build("fcn8s", parameters).eval()
    save_bundle(tmp_path / "fixed", a_card(architecture="fcn8s", parameters=parameters), saved)
    loaded = load_bundle(tmp_path / "fixed").module
    beside = {name: buffer for name, buffer in saved.named_buffers() if name not in saved.state_dict()}
    assert beside
    assert all(torch.equal(loaded.get_buffer(name), buffer) for name, buffer in beside.items())
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in saved.state_dict().items())


def test_a_loaded_network_shares_no_memory_with_its_file(bundle_dir: Path) -> None:
    module, before = load_bundle(bundle_dir).module, load_file(bundle_dir / "weights.safetensors")
    kept = {name: tensor.clone() for name, tensor in before.items()}
    with (bundle_dir / "weights.safetensors").open("r+b") as file:
        file.seek(-8, 2)
        file.write(b"\x7f" * 8)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in module.state_dict().items())


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "weights.safetensors")
    change(tensors)
    save_file(tensors, folder / "weights.safetensors")


def edit_card(folder: Path, **changes: Any) -> None:
    fields = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(fields | changes))


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = build("unet", PARAMETERS).eval()
    save_bundle(tmp_path / "b", a_card(pixel_size_um=0.5), network)
    bundle = load_bundle(tmp_path / "b")
    images_NCHW = torch.rand(1, 2, 16, 16)
    assert bundle.card == a_card(pixel_size_um=0.5)
    assert not bundle.module.training
    assert torch.equal(bundle.module(images_NCHW), network(images_NCHW))


def test_half_precision_bundle_is_loaded_as_float32(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = build("unet", PARAMETERS).eval()
    save_bundle(tmp_path / "b", a_card(), network, stored="float16")
    loaded = load_bundle(tmp_path / "b").module
    for name, tensor in network.state_dict().items():
        rounded = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(loaded.state_dict()[name], rounded)


def test_digest_follows_what_changes_labels(bundle_dir: Path) -> None:
    first = bundle_digest(bundle_dir)
    assert load_bundle(bundle_dir).digest == first
    edit_card(bundle_dir, description="other words", training={"more": 1}, license="MIT", pixel_size_um=0.25)
    assert bundle_digest(bundle_dir) == first
    edit_card(bundle_dir, decision={"rule": "threshold", "thresholds": [0.4]})
    second = bundle_digest(bundle_dir)
    edit_weights(bundle_dir, lambda tensors: tensors["head.bias"].add_(1e-3))
    assert len({first, second, bundle_digest(bundle_dir)}) == 3


def test_card_and_digest_are_read_without_torch(bundle_dir: Path) -> None:
    code = (
        "import sys; from unet_core.bundles.card import bundle_digest, list_bundles, read_card; list_bundles();"
        "read_card(sys.argv[1]); bundle_digest(sys.argv[1]); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(bundle_dir)], check=True, timeout=60)


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(BundleError, match="nuclei"):
        load_bundle("nuklei")


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_missing_file_is_named(bundle_dir: Path, name: str) -> None:
    (bundle_dir / name).unlink()
    with pytest.raises(BundleError, match=f"has no {name}"):
        load_bundle(bundle_dir)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_truncated_weights_are_refused(bundle_dir: Path, kept: float) -> None:
    weights = bundle_dir / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(BundleError, match="not whole safetensors"):
        load_bundle(bundle_dir)


def test_pickled_weights_are_refused(bundle_dir: Path) -> None:
    torch.save({"head.bias": torch.zeros(1)}, bundle_dir / "weights.safetensors")
    with pytest.raises(BundleError, match="not whole safetensors"):
        load_bundle(bundle_dir)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("head.bias"), "1 tensors are missing .head.bias."),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "1 are unknown .extra."),
        (lambda tensors: tensors.update({"head.bias": torch.zeros(2)}), r"head.bias is \(2,\)"),
        (lambda tensors: tensors.update({"head.bias": torch.zeros(1, dtype=torch.int32)}), "torch.int32"),
        (lambda tensors: tensors.update({"head.bias": torch.zeros(1, dtype=torch.float64)}), "torch.float64"),
        (lambda tensors: tensors["head.bias"].fill_(float("nan")), "head.bias holds NaN"),
        (lambda tensors: tensors["head.weight"].fill_(float("inf")), "head.weight holds NaN or infinity"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    bundle_dir: Path, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    edit_weights(bundle_dir, change)
    with pytest.raises(BundleError, match=message):
        load_bundle(bundle_dir)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "vnet"}, "known ones are .*unet"),
        ({"parameters": PARAMETERS | {"first_channels": 8}}, "the network needs"),
        ({"parameters": PARAMETERS | {"bands": 3}}, "parameters.bands is 3"),
        ({"bands": ["red"]}, "2 means and 2 deviations for 1 bands"),
        ({"decision": {"rule": "threshold", "thresholds": []}}, "takes 1 thresholds, got 0"),
        ({"decision": {"rule": "argmax", "thresholds": [0.5]}}, "takes 0 thresholds"),
        ({"decision": {"rule": "argmax"}}, "parameters.classes is 1"),
        ({"normalization": {"mean": [0, 0], "std": [1, 0]}}, "normalization.std.1"),
        ({"classes": [{"name": "background", "color": "black"}] * 2}, "classes.0.color"),
        ({"format_version": 2}, "format_version"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_card_that_contradicts_itself_or_the_weights_is_refused(
    bundle_dir: Path, changes: dict[str, Any], message: str
) -> None:
    edit_card(bundle_dir, **changes)
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(bundle_dir)
    assert "\n" not in str(caught.value)


def test_card_that_is_no_json_is_refused(bundle_dir: Path) -> None:
    (bundle_dir / "model.json").write_text("{")
    with pytest.raises(BundleError, match="does not describe a model"):
        read_card(bundle_dir)


def test_network_that_is_not_finite_is_not_saved(bundle_dir: Path) -> None:
    before = (bundle_dir / "weights.safetensors").read_bytes()
    network = build("unet", PARAMETERS)
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    with pytest.raises(BundleError, match="holds NaN"):
        save_bundle(bundle_dir, a_card(), network)
    assert (bundle_dir / "weights.safetensors").read_bytes() == before


def test_shipped_bundles_load_and_are_small() -> None:
    cards = list_bundles()
    assert "nuclei" in [card.name for card in cards]
    for card in cards:
        bundle = load_bundle(card.name)
        assert bundle.digest == bundle_digest(card.name)
        folder = Path(__file__).parents[2] / "unet_core" / "bundles" / card.name
        assert sum(path.stat().st_size for path in folder.iterdir()) <= SHIPPED_BYTES_LIMIT
