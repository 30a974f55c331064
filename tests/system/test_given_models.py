"""Models in the formats of others through the command line: the labels are those of the source network's whole pass."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from cli import Cli, tissue, write_tissue
from hub_server import hub_server
from oracle import whole_image_logits
from threads import one_thread
from tiled import unlike_fresh
from torch import nn

from flows.worker.model import model_of
from tiling.geometry import Box
from tiling.runs.run import Run
from tiling.source import open_source
from unet_core.bundles.bundle import Bundle, load_bundle
from unet_core.models import build

pytestmark = pytest.mark.slow

MEAN = STD = 127.5
CLASSES = ["background", "cell", "wall"]
TIE = 1e-5  # of logits whose deviation is 1: what rounding moves when batch norm is folded
HAS_MONAI = importlib.util.find_spec("monai") is not None
CARD = f"""
bands = ["red", "green", "blue"]
classes = {json.dumps(CLASSES)}
mean = [{MEAN}, {MEAN}, {MEAN}]
std = [{STD}, {STD}, {STD}]
"""


def spread(network: nn.Module) -> nn.Module:
    """The network with logits of deviation 1 on tissue: a mask of one class would pass every comparison."""
    pixels = (torch.from_numpy(tissue(128, 128)).permute(2, 0, 1)[None].float() - MEAN) / STD
    head = [part for part in network.modules() if isinstance(part, nn.Conv2d | nn.ConvTranspose2d)][-1]
    along = 1 if isinstance(head, nn.ConvTranspose2d) else 0
    with torch.no_grad():
        logits = network(pixels)
        middle, deviation = logits.mean((0, 2, 3)), logits.std((0, 2, 3))
        assert head.bias is not None
        head.bias.sub_(middle).div_(deviation)
        head.weight.div_(deviation.view(*(len(CLASSES) if axis == along else 1 for axis in range(4))))
    return network


def write_onnx(network: nn.Module, path: Path) -> Path:
    axes = {"tile": {0: "n", 2: "y", 3: "x"}}
    with warnings.catch_warnings(), one_thread():
        warnings.simplefilter("ignore")
        example = torch.zeros(2, 3, 64, 96)
        torch.onnx.export(network, (example,), path, dynamo=False, input_names=["tile"], dynamic_axes=axes)
    return path


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tissue(tmp_path_factory.mktemp("image") / "tissue.tif", 300, 260)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    options = {"bands": 3, "classes": 3, "first_channels": 4, "depth": 2, "batch_norm": True}
    return spread(unlike_fresh(build("unet_configurable", options)))


@pytest.fixture(scope="module")
def graph(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_onnx(network, tmp_path_factory.mktemp("graph") / "net.onnx")


def expect_labels_of(network: nn.Module, out: Path) -> None:
    """The run's labels against one pass of the source network over the whole image, by the numbers given here."""
    run = Run.open(out)
    with open_source(run.card.image.path) as source:
        pixels = source.read(0, source.levels[0].box)
    card = load_bundle(model_of(run)).card
    assert card.normalization.mean == pytest.approx((MEAN,) * 3)
    assert card.normalization.std == pytest.approx((STD,) * 3)
    assert [item.name for item in card.classes] == CLASSES
    fixed = replace(card.normalization, mean=(MEAN,) * 3, std=(STD,) * 3)
    given = Bundle(card.model_copy(update={"normalization": fixed}), network, "the source's own")
    logits = whole_image_logits(given, pixels, stride=4)
    expected, best = logits.argmax(0).numpy(), logits.topk(2, dim=0).values
    is_tie = (best[0] - best[1] < TIE).numpy()
    assert len(np.unique(expected)) == len(CLASSES)
    assert is_tie.mean() < 1e-4
    labels = run.open_mask().read(Box(0, 0, *run.card.image.extent))
    np.testing.assert_array_equal(labels[~is_tie], expected[~is_tie])


def segment(cli: Cli, image: Path, out: Path, *model: object) -> None:
    common = ("--as-is", "--core", 128, "--foreground", "none", "--export", "none", "--workers", 1)
    ended = cli.run("segment", image, "--out", out, *common, "--model", *model)
    assert ended.code == 0, ended.err


def test_an_onnx_graph_is_segmented_with_the_labels_of_its_network(
    cli: Cli, image: Path, network: nn.Module, graph: Path, tmp_path: Path
) -> None:
    (tmp_path / "card.toml").write_text(CARD)
    segment(cli, image, tmp_path / "run", graph, "--card", tmp_path / "card.toml")
    expect_labels_of(network, tmp_path / "run")


def package(graph: Path, folder: Path) -> Path:
    """A bioimage.io package that says all that a card would."""

    def axes(names: list[str]) -> list[dict[str, Any]]:
        sides = [{"type": "space", "id": side, "size": {"min": 16, "step": 16}} for side in "yx"]
        return [{"type": "batch"}, {"type": "channel", "channel_names": names}, *sides]

    scaled = {"id": "scale_linear", "kwargs": {"gain": 1 / STD, "offset": -MEAN / STD}}
    bands = {"id": "raw", "axes": axes(["red", "green", "blue"]), "data": {"type": "uint8"}, "preprocessing": [scaled]}
    labels = {"id": "probabilities", "axes": axes(CLASSES), "postprocessing": [{"id": "softmax"}]}
    sha256 = hashlib.sha256(graph.read_bytes()).hexdigest()
    described = {"type": "model", "format_version": "0.5.4", "inputs": [bands], "outputs": [labels]}
    folder.mkdir()
    shutil.copyfile(graph, folder / graph.name)
    weights = {"onnx": {"source": graph.name, "sha256": sha256}}
    (folder / "rdf.yaml").write_text(yaml.safe_dump({**described, "weights": weights}))
    return folder


def test_a_package_of_bioimageio_is_segmented_without_a_card(
    cli: Cli, image: Path, network: nn.Module, graph: Path, tmp_path: Path
) -> None:
    archive = shutil.make_archive(str(tmp_path / "package"), "zip", package(graph, tmp_path / "package"))
    segment(cli, image, tmp_path / "run", archive)
    expect_labels_of(network, tmp_path / "run")


def test_a_package_on_the_hugging_face_hub_is_segmented_by_its_commit_and_resumes_without_a_network(
    cli: Cli, image: Path, network: nn.Module, graph: Path, tmp_path: Path
) -> None:
    with hub_server() as hub:
        reference = hub.add("lab/cells", package(graph, tmp_path / "package"))
        online = {"HF_ENDPOINT": hub.address, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        here = Cli(cli.environment | online)
        segment(here, image, tmp_path / "run", reference)
        shown = json.loads(here.run("models", "show", reference, "--json").out)
    assert shown["digest"] == Run.open(tmp_path / "run").card.model.digest
    expect_labels_of(network, tmp_path / "run")
    offline = Cli(here.environment | {"HF_HUB_OFFLINE": "1"})
    segment(offline, image, tmp_path / "run", reference)
    shutil.rmtree(tmp_path / "cache")
    refused = offline.run("segment", image, "--out", tmp_path / "other", "--model", reference)
    assert refused.code == 2
    assert len(refused.err.strip().splitlines()) == 1
    assert "HF_HUB_OFFLINE forbids downloading it" in refused.err


@pytest.mark.skipif(not HAS_MONAI, reason="monai is not installed")
def test_a_bundle_of_monai_is_segmented_without_a_card(cli: Cli, image: Path, tmp_path: Path) -> None:
    from monai.bundle import ConfigParser  # pyright: ignore[reportMissingImports]

    shape = {"spatial_dims": 2, "in_channels": 3, "out_channels": 3, "channels": [4, 8, 16], "strides": [2, 2]}
    made = {"_target_": "UNet", **shape, "num_res_units": 1, "norm": "batch"}
    scaled = {"a_min": 0, "a_max": 255, "b_min": -1, "b_max": 1, "clip": True}
    before = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "ScaleIntensityRanged", "keys": "image", **scaled},
    ]
    after = [{"_target_": "AsDiscreted", "keys": "pred", "argmax": True}]
    chains = {"preprocessing": before, "postprocessing": after}
    steps = {name: {"_target_": "Compose", "transforms": chain} for name, chain in chains.items()}
    metadata = {
        "network_data_format": {
            "inputs": {"image": {"num_channels": 3, "channel_def": {"0": "R", "1": "G", "2": "B"}}},
            "outputs": {"pred": {"channel_def": dict(zip("012", CLASSES, strict=True))}},
        }
    }
    parser: Any = ConfigParser({"network_def": made})
    network = spread(unlike_fresh(parser.get_parsed_content("network_def")))
    (tmp_path / "bundle" / "configs").mkdir(parents=True)
    (tmp_path / "bundle" / "models").mkdir()
    (tmp_path / "bundle" / "configs" / "inference.json").write_text(json.dumps({"network_def": made, **steps}))
    (tmp_path / "bundle" / "configs" / "metadata.json").write_text(json.dumps(metadata))
    torch.save(network.state_dict(), tmp_path / "bundle" / "models" / "model.pt")
    segment(cli, image, tmp_path / "run", tmp_path / "bundle")
    expect_labels_of(network, tmp_path / "run")
