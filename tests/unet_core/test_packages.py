"""Packages of bioimage.io and MONAI bundles: what their descriptions ask for is honoured, or refused by name.

Where bioimageio.spec or monai is installed, packages made by these libraries are read too.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from threads import one_thread
from tiled import unlike_fresh
from torch import nn

from unet_core.bundles.facts import CardFacts
from unet_core.bundles.importing import Imported, import_model
from unet_core.bundles.origin import Origin
from unet_core.errors import BundleError
from unet_core.models import build

NAMES = CardFacts(bands=("red", "green", "blue"), classes=("background", "cell", "wall"))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return unlike_fresh(build("unet_configurable", {"bands": 3, "classes": 3, "first_channels": 2, "depth": 2}))


@pytest.fixture(scope="module")
def graph(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graphs") / "weights.onnx"
    axes = {"tile": {0: "n", 2: "y", 3: "x"}}
    with warnings.catch_warnings(), one_thread():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (torch.zeros(2, 3, 64, 96),), path, dynamo=False, input_names=["tile"], dynamic_axes=axes
        )
    return path


def space(name: str, scale: float = 1.0) -> dict[str, Any]:
    return {"type": "space", "id": name, "size": {"min": 16, "step": 16}, "unit": "micrometer", "scale": scale}


def description(graph: Path, *before: dict[str, Any], after: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    channels = {"type": "channel", "channel_names": ["red", "green", "blue"]}
    labels = {"type": "channel", "channel_names": ["background", "cell", "wall"]}
    entry = {"id": "raw", "axes": [{"type": "batch"}, channels, space("y", 0.5), space("x", 0.5)]}
    result = {"id": "prob", "axes": [{"type": "batch"}, labels, space("y"), space("x")]}
    return {
        "type": "model",
        "format_version": "0.5.4",
        "description": "Cells and walls.",
        "license": "CC0-1.0",
        "inputs": [{**entry, "data": {"type": "uint8"}, "preprocessing": list(before)}],
        "outputs": [{**result, "postprocessing": after or []}],
        "weights": {"onnx": {"source": graph.name, "sha256": hashlib.sha256(graph.read_bytes()).hexdigest()}},
    }


def package(folder: Path, graph: Path, described: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rdf.yaml").write_text(yaml.safe_dump(described))
    shutil.copyfile(graph, folder / graph.name)
    return folder


def expect_same_labels(imported: Imported, network: nn.Module) -> None:
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode(), one_thread():
        assert torch.equal(imported.module(image).argmax(1), network(image).argmax(1))


SCALED = {"id": "scale_linear", "kwargs": {"gain": 1 / 255, "offset": 0}}
FIXED = {
    "id": "fixed_zero_mean_unit_variance",
    "kwargs": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.1], "axis": "channel", "eps": 0},
}


@pytest.mark.parametrize("is_zip", [False, True])
def test_a_package_of_bioimageio_is_its_network_with_its_normalisation(
    network: nn.Module, graph: Path, tmp_path: Path, is_zip: bool
) -> None:
    described = description(graph, {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}, SCALED, FIXED)
    path = package(tmp_path / "package", graph, described)
    if is_zip:
        path = Path(shutil.make_archive(str(tmp_path / "package"), "zip", path))
    imported = import_model(Origin(str(path)))
    expect_same_labels(imported, network)
    card = imported.card(NAMES)
    assert card.normalization.mean == pytest.approx((127.5, 102, 76.5))
    assert card.normalization.std == pytest.approx((51, 63.75, 25.5))
    assert (card.pixel_size_um, card.dtype, card.license, card.bands) == (0.5, "uint8", "CC0-1.0", NAMES.bands)


def test_older_descriptions_name_their_steps_otherwise(graph: Path, tmp_path: Path) -> None:
    step = {"name": "zero_mean_unit_variance", "kwargs": {"mode": "fixed", "mean": 100, "std": 50, "eps": 1e-6}}
    entry = {"name": "raw", "axes": "bcyx", "data_type": "uint8", "preprocessing": [step]}
    described = description(graph) | {"format_version": "0.4.10", "inputs": [entry]}
    card = import_model(Origin(str(package(tmp_path, graph, described)))).card(NAMES)
    assert card.normalization.mean == pytest.approx((100,) * 3)
    assert card.normalization.std == pytest.approx((50,) * 3)


@pytest.mark.parametrize(
    ("after", "decision", "classes", "thresholds"),
    [
        ([{"id": "softmax", "kwargs": {"axis": "channel"}}], "argmax", 3, ()),
        ([{"id": "sigmoid"}], "threshold", 4, (0.5,) * 3),
        ([{"id": "sigmoid"}, {"id": "binarize", "kwargs": {"threshold": 0.3}}], "threshold", 4, (0.3,) * 3),
    ],
)
def test_postprocessing_becomes_the_decision(
    graph: Path, tmp_path: Path, after: list[dict[str, Any]], decision: str, classes: int, thresholds: tuple[float, ...]
) -> None:
    described = description(graph, SCALED, after=after)
    if decision == "threshold":
        described["outputs"][0]["axes"][1]["channel_names"] = ["cell", "wall", "gap"]
    card = import_model(Origin(str(package(tmp_path, graph, described)))).card(CardFacts())
    assert (card.decision.rule, len(card.classes), card.decision.thresholds) == (decision, classes, thresholds)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"id": "zero_mean_unit_variance", "kwargs": {"axes": ["x", "y"]}}, "'zero_mean_unit_variance' before its"),
        ({"id": "scale_range", "kwargs": {"min_percentile": 1}}, "'scale_range' before its network"),
        ({"id": "clip", "kwargs": {"min": 0, "max": 1}}, "'clip' before its network"),
        ({"id": "scale_linear", "kwargs": {"gain": 0, "offset": 1}}, "a gain of 0"),
        ({"id": "scale_linear", "kwargs": {"gain": [1, 2], "offset": 1}}, "are not 3 numbers"),
    ],
)
def test_preprocessing_that_is_not_one_for_all_images_is_refused(
    graph: Path, tmp_path: Path, step: dict[str, Any], message: str
) -> None:
    with pytest.raises(BundleError, match=message) as refused:
        import_model(Origin(str(package(tmp_path, graph, description(graph, step)))))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {"torchscript": {"source": "net.pt"}}}, "with torchscript and without ONNX weights"),
        ({"weights": {"pytorch_state_dict": {"source": "net.pt"}}}, "package.module:factory"),
        ({"weights": {"onnx": {"source": "weights.onnx", "sha256": "0" * 64}}}, "has not the SHA-256"),
        ({"weights": {"onnx": {"source": "https://example.org/w.onnx"}}}, "which is not in it: download it"),
        ({"weights": {"onnx": {"source": "../weights.onnx"}}}, "which is not in it"),
        ({"inputs": []}, "0 inputs and 1 outputs"),
        ({"inputs": [{"axes": "bczyx"}]}, "takes bczyx pixels"),
    ],
)
def test_a_package_that_cannot_be_read_safely_is_refused(
    graph: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        import_model(Origin(str(package(tmp_path / "p", graph, description(graph) | changes))))


CONFIG: dict[str, Any] = {
    "in_channels": 3,
    "network_def": {
        "_target_": "UNet", "spatial_dims": 2, "in_channels": "@in_channels", "out_channels": "$3",
        "channels": [4, 8, 16], "strides": [2, 2], "num_res_units": 1, "norm": "batch",
    },
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 0, "a_max": 255, "b_min": -1, "b_max": 1,
             "clip": True},
        ],
    },
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            {"_target_": "SaveImaged", "keys": "pred"},
        ],
    },
}  # fmt: skip
METADATA: dict[str, Any] = {
    "description": "Cells and walls.",
    "network_data_format": {
        "inputs": {"image": {"num_channels": 3, "channel_def": {"0": "R", "1": "G", "2": "B"}}},
        "outputs": {"pred": {"channel_def": {"0": "background", "1": "cell", "2": "wall"}}},
    },
}


def bundle(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor] | None = None) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    (folder / "configs" / "metadata.json").write_text(json.dumps(METADATA))
    torch.save(tensors or {}, folder / "models" / "model.pt")
    return folder


HAS_MONAI = importlib.util.find_spec("monai") is not None


@pytest.mark.skipif(HAS_MONAI, reason="monai is installed")
def test_a_bundle_of_monai_names_the_library_that_builds_its_network(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"pip install monai; or, .*torch\.export\.save"):
        import_model(Origin(str(bundle(tmp_path / "b", CONFIG))))


def steps(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"_target_": "Compose", "transforms": list(entries)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network_def": {"_target_": "os.system", "command": "id"}}, "'os.system', which is no network of monai"),
        ({"network_def": {"_target_": "UNet", "in_channels": "$__import__('os').getpid()"}}, "which is Python"),
        ({"network_def": "$import nets"}, "which is Python"),
        ({"in_channels": "@in_channels"}, "lead in a circle"),
        ({"network_def": {"_target_": "UNet", "spatial_dims": 3, "in_channels": 1}}, "segments volumes"),
        ({"preprocessing": steps({"_target_": "ScaleIntensityd"})}, "'ScaleIntensity' before its network"),
        ({"preprocessing": steps({"_target_": "NormalizeIntensityd"})}, "'NormalizeIntensity' before its network"),
        ({"preprocessing": steps({"_target_": "Spacingd", "pixdim": [1, 1]})}, "'Spacing' before its network"),
        ({"preprocessing": steps({"_target_": "monai.transforms.Lambdad", "func": "$lambda x: x"})}, "which is Python"),
        (
            {"postprocessing": steps({"_target_": "KeepLargestConnectedComponentd"})},
            "'KeepLargestConnectedComponent' after its network",
        ),
    ],
)
def test_what_a_bundle_of_monai_would_run_or_do_otherwise_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BundleError, match=message) as refused:
        import_model(Origin(str(bundle(tmp_path / "b", {**CONFIG, **changes}))))
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(not HAS_MONAI, reason="monai is not installed")
def test_a_bundle_of_monai_is_its_network_with_its_normalisation(tmp_path: Path) -> None:
    from monai.bundle import ConfigParser  # pyright: ignore[reportMissingImports]

    parser: Any = ConfigParser(CONFIG)
    made = unlike_fresh(parser.get_parsed_content("network_def"))
    folder = bundle(tmp_path / "b", CONFIG, made.state_dict())
    for path in (folder, Path(shutil.make_archive(str(tmp_path / "b"), "zip", tmp_path, "b"))):
        imported = import_model(Origin(str(path)))
        expect_same_labels(imported, made)
        card = imported.card(CardFacts())
        assert card.normalization.mean == pytest.approx((127.5,) * 3)
        assert card.normalization.std == pytest.approx((127.5,) * 3)
        assert (card.decision.rule, card.dtype, card.bands) == ("argmax", "uint8", ("R", "G", "B"))
        assert [item.name for item in card.classes] == ["background", "cell", "wall"]


@pytest.mark.skipif(importlib.util.find_spec("bioimageio") is None, reason="bioimageio.spec is not installed")
def test_a_package_that_bioimageios_own_tool_wrote_is_read(network: nn.Module, graph: Path, tmp_path: Path) -> None:
    import numpy as np
    from bioimageio.spec import save_bioimageio_package  # pyright: ignore[reportMissingImports]
    from bioimageio.spec.model import v0_5 as spec  # pyright: ignore[reportMissingImports]

    library: Any = spec
    tile = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 96), np.uint8)
    with torch.inference_mode():
        logits = network(torch.from_numpy(tile).float()).numpy()
    np.save(tmp_path / "in.npy", tile)
    np.save(tmp_path / "out.npy", logits)
    (tmp_path / "doc.md").write_text("# Cells\n")
    sizes = [library.SpaceInputAxis(id=name, size=library.ParameterizedSize(min=16, step=16)) for name in "yx"]
    outs = [
        library.SpaceOutputAxis(id=name, size=library.SizeReference(tensor_id="raw", axis_id=name)) for name in "yx"
    ]
    model = library.ModelDescr(
        name="cells and walls",
        description="Cells and walls.",
        authors=[library.Author(name="A", affiliation="B")],
        cite=[library.CiteEntry(text="none", url="https://example.org")],
        license="CC0-1.0",
        documentation=library.FileDescr(source=tmp_path / "doc.md"),
        inputs=[
            library.InputTensorDescr(
                id="raw",
                axes=[library.BatchAxis(), library.ChannelAxis(channel_names=["red", "green", "blue"]), *sizes],
                test_tensor=library.FileDescr(source=tmp_path / "in.npy"),
                data=library.IntervalOrRatioDataDescr(type="uint8"),
                preprocessing=[
                    library.ScaleLinearDescr(kwargs=library.ScaleLinearKwargs(gain=1 / 255, offset=-0.5)),
                    library.EnsureDtypeDescr(kwargs=library.EnsureDtypeKwargs(dtype="float32")),
                ],
            )
        ],
        outputs=[
            library.OutputTensorDescr(
                id="prob",
                axes=[library.BatchAxis(), library.ChannelAxis(channel_names=["background", "cell", "wall"]), *outs],
                test_tensor=library.FileDescr(source=tmp_path / "out.npy"),
                postprocessing=[library.SoftmaxDescr(kwargs=library.SoftmaxKwargs(axis="channel"))],
            )
        ],
        weights=library.WeightsDescr(onnx=library.OnnxWeightsDescr(source=graph, opset_version=17)),
    )
    path = save_bioimageio_package(model, output_path=tmp_path / "package.zip")
    imported = import_model(Origin(str(path)))
    expect_same_labels(imported, network)
    card = imported.card(CardFacts())
    assert card.normalization.mean == pytest.approx((127.5,) * 3)
    assert (card.decision.rule, card.bands) == ("argmax", ("red", "green", "blue"))
