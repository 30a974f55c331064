"""Models that a process has loaded stay loaded, as long as their files stay the same."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tiny import save_tiny

from flows.config.run import SegmentConfig
from flows.run.model import MODELS_KEPT, load_model
from unet_core.bundles.bundle import load_bundle, save_bundle


def asked(folder: Path, model: Path) -> SegmentConfig:
    return SegmentConfig(image=folder / "image.tif", out=folder / "run", model=str(model))


def test_a_model_is_loaded_once_for_many_slides(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "tiny")
    assert load_model(asked(tmp_path / "one", model)) is load_model(asked(tmp_path / "other", model))


def test_other_symmetries_have_a_footprint_of_their_own(tmp_path: Path) -> None:
    config = asked(tmp_path, save_tiny(tmp_path / "tiny"))
    assert load_model(config) is not load_model(config.model_copy(update={"tta": "d4"}))


def test_other_weights_or_another_card_in_the_same_place_are_another_model(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "tiny")
    config = asked(tmp_path, model)
    first = load_model(config)
    bundle = load_bundle(model)
    with torch.no_grad():
        next(bundle.module.parameters()).add_(1.0)
    save_bundle(model, bundle.card, bundle.module)
    second = load_model(config)
    assert second.bundle.digest == load_bundle(model).digest != first.bundle.digest
    card = json.loads((model / "model.json").read_text())
    (model / "model.json").write_text(json.dumps(card | {"description": "another"}))
    assert load_model(config).bundle.card.description == "another"


def test_only_the_last_few_are_kept(tmp_path: Path) -> None:
    config = asked(tmp_path, save_tiny(tmp_path / "tiny"))
    first = load_model(config)
    for number in range(MODELS_KEPT):
        load_model(config.model_copy(update={"halo": f"approximate:{16 * (number + 1)}"}))
    assert load_model(config) is not first
