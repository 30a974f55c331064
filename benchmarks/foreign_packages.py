"""Packages of networks that MONAI, bioimageio.spec and segmentation_models_pytorch write, where these are installed."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

_BYTE = 255
_TILE = (1, 3, 64, 96)


def is_installed(name: str) -> bool:
    """True if a library is there, whatever it takes to import it."""
    return importlib.util.find_spec(name) is not None


def _monai_description(classes: int) -> dict[str, Any]:
    shape = {"spatial_dims": 2, "in_channels": 3, "out_channels": classes, "channels": [8, 16, 32, 64]}
    return {"_target_": "UNet", **shape, "strides": [2, 2, 2], "num_res_units": 2, "norm": "batch"}


def monai_network(classes: int) -> nn.Module:
    """MONAI's U-Net as its own parser of bundles makes it."""
    from monai.bundle import ConfigParser  # pyright: ignore[reportMissingImports]

    parser: Any = ConfigParser({"network_def": _monai_description(classes)})
    return parser.get_parsed_content("network_def")


def write_monai(network: nn.Module, classes: Sequence[str], middle: float, folder: Path) -> Path:
    """A bundle of that network, which takes pixels from -1 to 1."""
    from monai.bundle import ConfigParser  # pyright: ignore[reportMissingImports]

    scaled = {"a_min": 0, "a_max": 2 * middle, "b_min": -1, "b_max": 1, "clip": True}
    steps = {
        "preprocessing": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "ScaleIntensityRanged", "keys": "image", **scaled},
        ],
        "postprocessing": [{"_target_": "AsDiscreted", "keys": "pred", "argmax": True}],
    }
    chains = {name: {"_target_": "Compose", "transforms": chain} for name, chain in steps.items()}
    channels = {str(number): name for number, name in enumerate(classes)}
    metadata = {
        "network_data_format": {
            "inputs": {"image": {"num_channels": 3, "channel_def": {"0": "R", "1": "G", "2": "B"}}},
            "outputs": {"pred": {"channel_def": channels}},
        }
    }
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    config = {"network_def": _monai_description(len(classes)), **chains}
    ConfigParser.export_config_file(config, str(folder / "configs" / "inference.json"))
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder


def smp_network(classes: int) -> nn.Module:
    """A U-Net of segmentation_models_pytorch, without pretrained weights to download."""
    import segmentation_models_pytorch as smp  # pyright: ignore[reportMissingImports]

    library: Any = smp
    return library.Unet("resnet18", encoder_weights=None, decoder_channels=(32, 16, 16, 8, 8), classes=classes)


def write_smp(network: nn.Module, folder: Path) -> Path:
    """The folder that its `save_pretrained` writes."""
    shutil.rmtree(folder, ignore_errors=True)
    written: Any = network
    written.save_pretrained(folder)
    return folder


def write_bioimageio(network: nn.Module, graph: Path, classes: Sequence[str], middle: float, folder: Path) -> Path:
    """A package of bioimage.io around the network's ONNX graph, by bioimageio.spec."""
    from bioimageio.spec import save_bioimageio_package  # pyright: ignore[reportMissingImports]
    from bioimageio.spec.model import v0_5  # pyright: ignore[reportMissingImports]

    spec: Any = v0_5
    tile = np.random.default_rng(0).integers(0, _BYTE, _TILE, np.uint8)
    with torch.inference_mode():
        np.save(folder / "out.npy", network((torch.from_numpy(tile).float() - middle) / middle).softmax(1).numpy())
    np.save(folder / "in.npy", tile)
    (folder / "doc.md").write_text("# Nuclei\n", encoding="utf-8")
    sizes = [spec.SpaceInputAxis(id=name, size=spec.ParameterizedSize(min=32, step=32)) for name in "yx"]
    outs = [spec.SpaceOutputAxis(id=name, size=spec.SizeReference(tensor_id="raw", axis_id=name)) for name in "yx"]
    scaled = spec.ScaleLinearDescr(kwargs=spec.ScaleLinearKwargs(gain=1 / middle, offset=-1))
    taken = spec.InputTensorDescr(
        id="raw",
        axes=[spec.BatchAxis(), spec.ChannelAxis(channel_names=["red", "green", "blue"]), *sizes],
        test_tensor=spec.FileDescr(source=folder / "in.npy"),
        data=spec.IntervalOrRatioDataDescr(type="uint8"),
        preprocessing=[scaled, spec.EnsureDtypeDescr(kwargs=spec.EnsureDtypeKwargs(dtype="float32"))],
    )
    given = spec.OutputTensorDescr(
        id="prob",
        axes=[spec.BatchAxis(), spec.ChannelAxis(channel_names=list(classes)), *outs],
        test_tensor=spec.FileDescr(source=folder / "out.npy"),
        postprocessing=[spec.SoftmaxDescr(kwargs=spec.SoftmaxKwargs(axis="channel"))],
    )
    model = spec.ModelDescr(
        name="nuclei and their borders",
        description="Nuclei and their borders.",
        authors=[spec.Author(name="A", affiliation="B")],
        cite=[spec.CiteEntry(text="none", url="https://example.org")],
        license="CC0-1.0",
        documentation=spec.FileDescr(source=folder / "doc.md"),
        inputs=[taken],
        outputs=[given],
        weights=spec.WeightsDescr(onnx=spec.OnnxWeightsDescr(source=graph, opset_version=17)),
    )
    path = folder / "package.zip"
    path.unlink(missing_ok=True)
    save_bioimageio_package(model, output_path=path)
    return path
