"""Reader of `.pt2` archives that `torch.export.save` wrote, without `torch.export.load`.

`load` unpickles example inputs, constants and custom objects, and evaluates expressions of extents as Python: torch
itself warns against files of others. A `.pt2` is a ZIP of a JSON graph, raw tensor bytes and JSON tables of them
(torch/_export/serde/schema.py, version 8), so that much is read here, and the pickles are left alone.
"""

from __future__ import annotations

import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from unet_core.bundles.exported.graph import DTYPES, Program, TensorKind
from unet_core.bundles.exported.schema import translate
from unet_core.bundles.weights import expect_finite
from unet_core.errors import BundleError

_SCHEMA_MAJOR = 8
_DTYPE_OF = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
    12: "bool", 13: "bfloat16",
}  # fmt: skip
_STORED = {"float64": torch.float32}
_MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError, RuntimeError)


def read_archive(file: Path | IO[bytes]) -> tuple[Program, dict[str, Tensor]]:
    """The program in a `.pt2` file, and its tensors by name; floating point in float32 where it was float64.

    Raises BundleError for a file that is not whole, holds pickled tensors or custom objects, was exported in
    training mode, or calls what isn't known to be harmless.
    """
    name = str(file) if isinstance(file, Path) else "the exported network"
    try:
        with zipfile.ZipFile(file) as archive:
            return _read(_Archive(archive, name))
    except BundleError:
        raise
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        raise BundleError(f"program {name!r} is no whole .pt2 file: {error}; save or copy it again") from error
    except _MALFORMED as error:
        message = " ".join(str(error).split())[:200]
        raise BundleError(
            f"program {name!r} is not what torch.export.save writes ({type(error).__name__}: {message}); save it again"
        ) from error


@dataclass(frozen=True, slots=True)
class _Archive:
    file: zipfile.ZipFile
    name: str

    def names(self) -> dict[str, str]:
        """Every record's full name by its path below the archive's root folder."""
        return {full.partition("/")[2]: full for full in self.file.namelist()}

    def record(self, path: str) -> bytes:
        full = self.names()[path]
        info = self.file.getinfo(full)
        if info.compress_type != zipfile.ZIP_STORED:
            raise BundleError(
                f"program {self.name!r} holds compressed records, which may unfold to any size and which "
                f"torch.export.save never writes; save it again"
            )
        return self.file.read(full)


def _read(archive: _Archive) -> tuple[Program, dict[str, Tensor]]:
    models = [path for path in archive.names() if path.startswith("models/") and path.endswith(".json")]
    if len(models) != 1:
        raise BundleError(
            f"program {archive.name!r} holds {len(models)} programs in the form of torch 2.8 and newer, not one: "
            f"export the network again with torch.export.save"
        )
    name = models[0].removeprefix("models/").removesuffix(".json")
    model = json.loads(archive.record(models[0]))
    if model["schema_version"]["major"] != _SCHEMA_MAJOR:
        raise BundleError(
            f"program {archive.name!r} is in version {model['schema_version']['major']} of torch's format, known is "
            f"{_SCHEMA_MAJOR}; export it with the torch that overtile uses ({torch.__version__})"
        )
    draft = translate(model["graph_module"], archive.name)
    stored = _Tensors(archive, name)
    tensors = {wanted: stored.tensor(wanted) for wanted in draft.tensors}
    kinds = {wanted: _kind(tensor, stored.is_parameter(wanted)) for wanted, tensor in tensors.items()}
    return draft.program(kinds), tensors


def _kind(tensor: Tensor, is_parameter: bool) -> TensorKind:
    dtype = next(name for name, known in DTYPES.items() if known == tensor.dtype)
    return TensorKind(shape=tuple(tensor.shape), dtype=dtype, is_parameter=is_parameter)


class _Tensors:
    """The raw tensors of an archive: parameters and buffers, and constants."""

    def __init__(self, archive: _Archive, name: str) -> None:
        self._archive = archive
        self._tables: dict[str, tuple[str, dict[str, Any]]] = {}
        for folder, kind in (("weights", "weights"), ("constants", "constants")):
            path = f"data/{folder}/{name}_{kind}_config.json"
            if path not in archive.names():
                raise BundleError(
                    f"program {archive.name!r} has no {path}: its {kind} are pickled, as an older torch did, and "
                    f"reading them could run any code; save it again with torch.export.save"
                )
            table = json.loads(archive.record(path))["config"]
            self._tables |= {tensor: (f"data/{folder}/", entry) for tensor, entry in table.items()}

    def is_parameter(self, name: str) -> bool:
        return bool(self._tables[name][1]["is_param"])

    def tensor(self, name: str) -> Tensor:
        folder, entry = self._tables[name]
        meta = entry["tensor_meta"]
        if entry["use_pickle"] or meta is None:
            raise BundleError(
                f"program {self._archive.name!r} holds {name} as a pickle, and reading it could run any code: nothing "
                f"of it is read; use plain tensors as parameters and buffers, and export again"
            )
        raw = bytearray(self._archive.record(folder + entry["path_name"]))
        if meta["dtype"] not in _DTYPE_OF:
            raise BundleError(
                f"program {self._archive.name!r}: {name} is of a dtype that no network here computes with"
            )
        dtype = _DTYPE_OF[meta["dtype"]]
        sizes, strides = ([_known(extent) for extent in meta[key]] for key in ("sizes", "strides"))
        flat = torch.frombuffer(raw, dtype=DTYPES[dtype]) if raw else torch.empty(0, dtype=DTYPES[dtype])
        if math.prod(sizes) > flat.numel() or any(extent < 0 for extent in (*sizes, *strides)):
            raise BundleError(
                f"program {self._archive.name!r}: {name} is said to be {tuple(sizes)}, its record holds {flat.numel()} "
                f"numbers: the file is damaged; save it again"
            )
        tensor = flat.as_strided(sizes, strides, _known(meta["storage_offset"])).contiguous().clone()
        expect_finite(name, tensor, Path(self._archive.name))
        return tensor.to(_STORED.get(dtype, tensor.dtype))


def _known(extent: dict[str, Any]) -> int:
    return cast("int", extent["as_int"])
