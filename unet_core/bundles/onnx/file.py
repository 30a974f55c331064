"""File of an ONNX graph: a protocol buffer, its large tensors in it or in a file beside it.

Nothing of it runs. The tensors beside it are read from plain files of the same folder alone: a path that leaves the
folder could read any file of whoever imports the model.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unet_core.errors import BundleError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto

_LARGEST = 2**31
_OPSETS = range(9, 27)
_PROTOBUF_FAULTS = (ValueError, TypeError, KeyError, IndexError, RecursionError, OverflowError, AttributeError)
# The element types of tensors that networks of this kind compute with, by their number in ONNX.
_ELEMENTS = {1: "float32", 2: "uint8", 3: "int8", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 11: "float64"}


def read_model(path: Path) -> ModelProto:
    """The graph of a file, checked for what can't be translated at all.

    Raises BundleError where the library is absent, or the file isn't whole, is of a version that isn't known, or calls
    operations that other programs added.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise BundleError(
            f"model {str(path)!r} is an ONNX graph, which is read with a library that isn't installed: "
            f"pip install 'overtile[onnx]'"
        ) from error
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise BundleError(f"model {str(path)!r} has {size} bytes: an ONNX file holds {_LARGEST} at most")
        model = onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise BundleError(f"model {str(path)!r} can't be read: {error}; correct the path") from error
    except (DecodeError, *_PROTOBUF_FAULTS) as error:
        raise BundleError(
            f"model {str(path)!r} is no whole ONNX file ({' '.join(str(error).split())[:100]}); copy or export it again"
        ) from error
    if not model.graph.node:
        raise BundleError(f"model {str(path)!r} holds no graph of ONNX: copy or export it again")
    versions = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    if versions.get("ai.onnx") not in _OPSETS:
        raise BundleError(
            f"model {str(path)!r} is of ONNX opset {versions.get('ai.onnx')}: {_OPSETS[0]} to {_OPSETS[-1]} are known; "
            f"export it again with opset_version=20"
        )
    return model


def read_tensors(graph: GraphProto, folder: Path) -> dict[str, NDArray[Any]]:
    """The graph's stored tensors by name; raises BundleError for one that isn't whole or of another type."""
    return {tensor.name: array_of(tensor, folder) for tensor in graph.initializer}


def array_of(tensor: TensorProto, folder: Path | None) -> NDArray[Any]:
    """One stored tensor; `folder` is where its bytes may lie, None where they must be in the graph."""
    from onnx import numpy_helper

    name, kind = tensor.name or "a constant", _ELEMENTS.get(tensor.data_type)
    if kind is None:
        from onnx import TensorProto as Types

        raise BundleError(
            f"the ONNX graph holds {name} as {Types.DataType.Name(tensor.data_type)}: quantised and half weights are "
            f"not read; export the network in float32"
        )
    if tensor.external_data:
        return _beside(tensor, name, np.dtype(kind), folder)
    try:
        return np.array(numpy_helper.to_array(tensor))
    except _PROTOBUF_FAULTS as error:
        raise BundleError(
            f"the ONNX graph holds {name} in another size than it says ({' '.join(str(error).split())[:100]}): the "
            f"file is damaged; copy or export it again"
        ) from error


def _beside(tensor: TensorProto, name: str, dtype: np.dtype[Any], folder: Path | None) -> NDArray[Any]:
    """A tensor of the file beside the graph."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location, shape = entries.get("location", ""), tuple(tensor.dims)
    plain = location not in ("", ".", "..") and Path(location).name == location and "\\" not in location
    path = (folder or Path()) / location
    if folder is None or not plain or path.is_symlink() or not path.is_file():
        raise BundleError(
            f"the ONNX graph keeps {name} in {location[:100]!r}: only a plain file beside the graph is read; copy "
            f"both files into one folder, or export with external_data=False"
        )
    try:
        offset, wanted = int(entries.get("offset", 0)), math.prod(shape) * dtype.itemsize
        if offset < 0 or any(extent < 0 for extent in shape) or offset + wanted > path.stat().st_size:
            raise ValueError(f"{wanted} bytes at {offset} of a file of {path.stat().st_size}")
        with path.open("rb") as file:
            file.seek(offset)
            return np.frombuffer(file.read(wanted), dtype=dtype.newbyteorder("<")).astype(dtype).reshape(shape)
    except (OSError, ValueError) as error:
        raise BundleError(
            f"the ONNX graph's {name} is not whole in {location[:100]!r} ({error}); copy both files again"
        ) from error
