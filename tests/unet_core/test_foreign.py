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
        (written("net.onnx"), "an ONNX graph, which is not read: .*torch.export.save"),
        (written("net.ONNX"), "an ONNX graph"),
        (written("folder/model.onnx"), "an ONNX graph"),
        (scripted, "a TorchScript archive, which is not read: .*torch.export.save"),
        (written("net.ts"), "a TorchScript archive"),
        (written("bundle/configs/inference.json"), "a MONAI bundle, which is not read: .*network_def"),
        (zipped("spleen/configs/metadata.json"), "a MONAI bundle"),
        (written("package/rdf.yaml"), "a package of bioimage.io, which is not read: .*pytorch_state_dict names Python"),
        (zipped("bioimageio.yaml"), "a package of bioimage.io"),
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


def test_a_bundle_beside_a_graph_of_onnx_is_a_bundle(tmp_path: Path) -> None:
    for name in ("model.json", "weights.safetensors", "net.onnx"):
        (tmp_path / name).write_bytes(b"{}")
    assert Origin(str(tmp_path)).kind == "bundle"
