"""Formats of models that are not read: known by their files, and refused by name with the way out. Never imports torch.

What a TorchScript archive computes can't be followed to exact bounds here; a checkpoint would have to be
run.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

EXPORT = (
    "where the network is at hand in Python, export it with torch.export.save and give the .pt2, or give "
    "package.module:factory with --weights and --trust-code"
)

_SUFFIXES = {
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
PACKAGES: dict[str, Literal["bioimageio", "monai"]] = {
    "rdf.yaml": "bioimageio",
    "bioimageio.yaml": "bioimageio",
    "configs/metadata.json": "monai",
    "configs/inference.json": "monai",
    "configs/inference.yaml": "monai",
    "configs/inference.yml": "monai",
    "configs/train.json": "monai",
}
"""Packages of other projects, by a file that each has."""

_OF_FOLDERS = {"saved_model.pb": "a TensorFlow model"}
_WAYS = {
    "a folder with an ONNX graph": "give the .onnx file itself",
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


def package_of(path: Path) -> Literal["bioimageio", "monai"] | None:
    """Whose package a folder or a ZIP is; nothing of it is read."""
    if path.is_dir():
        return next((kind for name, kind in PACKAGES.items() if (path / name).is_file()), None)
    if path.suffix.lower() != ".zip" or not path.is_file():
        return None
    names = _members(path)
    return next((kind for name, kind in PACKAGES.items() if name in names), None)


def _of_folder(folder: Path) -> str | None:
    found = (kind for name, kind in _OF_FOLDERS.items() if (folder / name).is_file())
    graphs = ("a folder with an ONNX graph" for _ in folder.glob("*.onnx"))
    return next(found, None) or next(graphs, None)


def _of_file(path: Path) -> str | None:
    if path.suffix in {".pt", ".pth", ".zip"} and path.is_file() and zipfile.is_zipfile(path):
        return _of_archive(path)
    return _SUFFIXES.get(path.suffix.lower())


def _of_archive(path: Path) -> str | None:
    """A ZIP by the names of its members; nothing of it is read."""
    parts = _members(path)
    if any(part.startswith("code/") for part in parts):
        return "a TorchScript archive"
    return next((kind for name, kind in _OF_FOLDERS.items() if name in parts), None)


def _members(path: Path) -> set[str]:
    """The names in a ZIP, also below one folder."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()[:_MEMBERS_LOOKED_AT]
    except (zipfile.BadZipFile, OSError):
        return set()
    return {name.partition("/")[2] for name in names} | set(names)
