"""Weights from files that anybody may have made: read without running anything, and held against their network.

Safetensors hold arrays and a JSON header. `.pt` and `.pth` are pickles, which can run any code when they are read;
they go through torch's restricted unpickler (`weights_only`), which knows tensors and plain containers alone.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from unet_core.errors import BundleError

PICKLED = (".pt", ".pth")
LONGEST_HEADER = 16 * 2**20

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
# Under which key training scripts keep the weights beside their optimizer.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
# What wrappers of a network for several devices, or for training, put before every name.
_PREFIXES = ("module.", "model.", "_orig_mod.")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors`, `.pt` or `.pth` file, by name, on the CPU.

    Raises BundleError for a file that is missing, not whole, of another kind, or a pickle that wants to run more
    than tensors need; the reason is named and nothing of it runs.
    """
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix not in PICKLED:
        raise BundleError(
            f"weights {str(path)!r}: a file that ends in {path.suffix or 'nothing'} is not known to hold weights; "
            f"use .safetensors, or .pt or .pth that hold a state_dict"
        )
    return _named_tensors(_unpickled(path), path)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises BundleError where it isn't whole."""
    try:
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
        if header_bytes > min(LONGEST_HEADER, path.stat().st_size):
            raise ValueError(f"a header of {header_bytes} bytes is none: {LONGEST_HEADER} are allowed")
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise BundleError(
            f"weights {str(path)!r} are not whole safetensors: {error}; copy or save the bundle again"
        ) from error


def _expect_stored(path: Path) -> None:
    """Refuse an archive whose records unfold: what its directory says is read, and nothing else."""
    if not zipfile.is_zipfile(path):
        return  # the format before torch 1.6
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    held, size = sum(record.file_size for record in records), path.stat().st_size
    if held > size or any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise BundleError(
            f"weights {str(path)!r} hold compressed records, {held} bytes in a file of {size}, which may unfold to any "
            f"size and which torch.save never writes; save model.state_dict() again, best as safetensors"
        )


def _unpickled(path: Path) -> Any:
    try:
        _expect_stored(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BundleError(
            f"weights {str(path)!r} want more than tensors ({_reason(error)}): reading them could run any code, so "
            f"nothing of them is read; save model.state_dict() alone, best as safetensors"
        ) from error
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
        zipfile.BadZipFile,
    ) as error:
        raise BundleError(
            f"weights {str(path)!r} can't be read ({_reason(error)}); copy them again, or save model.state_dict() "
            f"as safetensors"
        ) from error


def _reason(error: Exception) -> str:
    """Objection of torch's restricted unpickler, without its advice to switch it off."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = next((line for line in lines if "nsupported" in line), lines[0] if lines else type(error).__name__)
    _, found, cause = named.partition("WeightsUnpickler error: ")
    return (cause if found else named).split(" Please use")[0].rstrip(".")[:200]


def _named_tensors(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The state_dict in what was read, whatever a training script wrapped it in."""
    for key in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    tensors = dict(loaded) if isinstance(loaded, Mapping) else {}
    odd = [str(name) for name, value in tensors.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if not tensors or odd:
        kind = f"{odd[0]} is no tensor" if odd else f"it holds a {type(loaded).__name__}"
        raise BundleError(
            f"weights {str(path)!r} hold no state_dict of named tensors ({kind}); save model.state_dict() alone"
        )
    return tensors


def without_prefix(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names of the network, where a wrapper put one prefix before all of them."""
    for prefix in _PREFIXES:
        wrapped = all(name.startswith(prefix) for name in tensors)
        if wrapped and not tensors.keys() & expected.keys():
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return dict(tensors)


def expect_fit(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], weights: Path, remedy: str) -> None:
    """Hold stored tensors against those of the network; raises BundleError that names what differs."""
    where = f"weights {str(weights)!r} don't fit the network"
    missing, surplus = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or surplus:
        raise BundleError(
            f"{where}: {len(missing)} tensors are missing ({_some(missing)}) and {len(surplus)} are unknown "
            f"({_some(surplus)}); {remedy}"
        )
    for name, tensor in tensors.items():
        wanted = expected[name]
        if tensor.shape != wanted.shape:
            raise BundleError(
                f"{where}: {name} is {tuple(tensor.shape)}, the network needs {tuple(wanted.shape)}; {remedy}"
            )
        fits = tensor.dtype in _FLOATS if wanted.is_floating_point() else tensor.dtype == wanted.dtype
        if not fits:
            raise BundleError(
                f"{where}: {name} is stored as {tensor.dtype}, the network needs {wanted.dtype}; save it as that"
            )
        expect_finite(name, tensor, weights)


def load_fitting(network: nn.Module, tensors: Mapping[str, Tensor], weights: Path, remedy: str) -> None:
    """Load the tensors of a file into a network.

    Raises:
        BundleError: they don't fit it.
    """
    expect_fit(network.state_dict(), tensors, weights, remedy)
    network.load_state_dict(tensors)


def expect_finite(name: str, tensor: Tensor, weights: Path) -> None:
    """Raises BundleError for a tensor with NaN or infinity."""
    if tensor.is_floating_point() and not _is_finite(tensor):
        raise BundleError(
            f"weights {str(weights)!r}: {name} holds NaN or infinity, every label would be wrong; "
            "go back to an earlier checkpoint"
        )


def copied(tensor: Tensor) -> Tensor:
    """The same in memory of its own, not in the file that it was read from.

    By NumPy in one thread: torch wakes all of its threads for each tensor, and they wait for each other longest where
    the machine is busy.
    """
    return tensor.clone() if tensor.dtype is torch.bfloat16 else torch.from_numpy(tensor.numpy().copy())


def _is_finite(tensor: Tensor) -> bool:
    """True if all numbers are finite; by NumPy as `copied` is."""
    values = tensor.detach().cpu()
    return bool(np.isfinite((values.float() if values.dtype is torch.bfloat16 else values).numpy()).all())


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "") if names else "none"
