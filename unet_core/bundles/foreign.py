"""Formats of models that are not read: known by their files, and refused by name with the way out. Never imports torch.

What an ONNX graph or a TorchScript archive computes can't be followed to exact bounds here yet; a MONAI bundle and a
package of bioimage.io name Python code that would have to be run.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

EXPORT = (
    "where the network is at hand in Python, export it with torch.export.save and give the .pt2, or give "
    "package.module:factory with --weights and --trust-code"
)

_SUFFIXES = {
    ".onnx": "an ONNX graph",
    ".ts": "a TorchScript archive",
    ".torchscript": "a TorchScript archive",
    ".ckpt": "a checkpoint of a training",
    ".h5": "a Keras model",
    ".keras": "a Keras model",
    ".pb": "a TensorFlow graph",
    ".tflite": "a TensorFlow Lite model",
    ".mlmodel": "a Core ML model",
    ".mlpackage": "a Core ML model",
    ".engine": "a TensorRT engine",
    ".trt": "a TensorRT engine",
    ".pkl": "a pickle, which runs code as it is read",
}
_OF_FOLDERS = {
    "rdf.yaml": "a package of bioimage.io",
    "bioimageio.yaml": "a package of bioimage.io",
    "configs/metadata.json": "a MONAI bundle",
    "configs/inference.json": "a MONAI bundle",
    "configs/inference.yaml": "a MONAI bundle",
    "saved_model.pb": "a TensorFlow model",
}
_WAYS = {
    "a package of bioimage.io": "its pytorch_state_dict names Python code, and its other weights are ONNX or "
    "TorchScript; take the network's class from its source as package.module:factory, its weights with --weights, and "
    "its normalisation, classes and axes into --card",
    "a MONAI bundle": "its configuration names Python classes to run; get the network with "
    "ConfigParser.get_parsed_content('network_def'), take that as package.module:factory with the bundle's "
    "models/model.pt as --weights, and its normalisation and classes into --card",
    "a checkpoint of a training": "save the network's state_dict alone, and give it as --weights of its factory",
}
_MEMBERS_LOOKED_AT = 2000


def refusal_of(reference: str) -> str | None:
    """Refusal of a model of another format, with what to do; None where it is none that is known."""
    path = Path(reference)
    kind = _of_folder(path) if path.is_dir() else _of_file(path)
    if kind is None:
        return None
    return f"model {reference!r} is {kind}, which is not read: {_WAYS.get(kind, EXPORT)}"


def _of_folder(folder: Path) -> str | None:
    found = (kind for name, kind in _OF_FOLDERS.items() if (folder / name).is_file())
    graphs = ("an ONNX graph" for _ in folder.glob("*.onnx"))
    return next(found, None) or next(graphs, None)


def _of_file(path: Path) -> str | None:
    if path.suffix in {".pt", ".pth", ".zip"} and path.is_file() and zipfile.is_zipfile(path):
        return _of_archive(path)
    return _SUFFIXES.get(path.suffix.lower())


def _of_archive(path: Path) -> str | None:
    """A ZIP by the names of its members; nothing of it is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()[:_MEMBERS_LOOKED_AT]
    except (zipfile.BadZipFile, OSError):
        return None
    parts = {name.partition("/")[2] for name in names} | set(names)
    if any(part.startswith("code/") for part in parts):
        return "a TorchScript archive"
    return next((kind for name, kind in _OF_FOLDERS.items() if name in parts), None)
