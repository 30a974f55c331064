"""Models in formats that are not read: refused by name, with the way out, and nothing of them is read or run."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from flows.config.run import SegmentConfig
from flows.run.preflight import check
from unet_core.bundles.origin import Origin
from unet_core.errors import BundleError


def scripted(folder: Path) -> Path:
    torch.jit.script(torch.nn.Conv2d(3, 1, 1)).save(folder / "net.pt")
    return folder / "net.pt"


def weights(folder: Path) -> Path:
    torch.save(torch.nn.Conv2d(3, 1, 1).state_dict(), folder / "weights.pt")
    return folder / "weights.pt"


def written(name: str) -> object:
    def make(folder: Path) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\x08\x07 anything")
        return folder / name.partition("/")[0]

    return make


def zipped(member: str) -> object:
    def make(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "package.zip", "w") as archive:
            archive.writestr(member, "type: model")
        return folder / "package.zip"

    return make


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (written("folder/model.onnx"), "a folder with an ONNX graph, which is not read: give the .onnx file itself"),
        (scripted, "a TorchScript archive, which is not read: .*torch.export.save"),
        (written("net.ts"), "a TorchScript archive"),
        (written("model/saved_model.pb"), "a TensorFlow model"),
        (written("epoch.ckpt"), "a checkpoint of a training, .*state_dict alone"),
        (weights, "holds weights, which don't say of which network"),
    ],
)
def test_a_model_of_another_format_is_refused_by_name(make: object, said: str, tmp_path: Path) -> None:
    path = make(tmp_path)  # type: ignore[operator]
    with pytest.raises(BundleError, match=said) as refused:
        _ = Origin(str(path)).kind
    assert "\n" not in str(refused.value)
    config = SegmentConfig.model_validate({"image": "none.tif", "out": tmp_path / "run", "model": str(path)})
    with pytest.raises(BundleError, match=said):
        check(config)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (written("net.onnx"), "onnx"),
        (written("net.ONNX"), "onnx"),
        (written("bundle/configs/inference.json"), "monai"),
        (zipped("spleen/configs/metadata.json"), "monai"),
        (written("package/rdf.yaml"), "bioimageio"),
        (zipped("bioimageio.yaml"), "bioimageio"),
    ],
)
def test_a_model_of_a_format_that_is_read_is_known_by_its_files(make: object, kind: str, tmp_path: Path) -> None:
    assert Origin(str(make(tmp_path))).kind == kind  # type: ignore[operator]


def test_a_bundle_beside_a_graph_of_onnx_is_a_bundle(tmp_path: Path) -> None:
    for name in ("model.json", "weights.safetensors", "net.onnx"):
        (tmp_path / name).write_bytes(b"{}")
    assert Origin(str(tmp_path)).kind == "bundle"
