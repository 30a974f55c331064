"""Package of bioimage.io: its ONNX weights, and what its description says of pixels before and labels after them.

Versions 0.4 and 0.5 of https://bioimage-io.github.io/spec-bioimage-io. A `pytorch_state_dict` names Python code, which
is not run; TorchScript can't be followed to exact bounds.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from unet_core.bundles.facts import CardFacts, facts_from
from unet_core.bundles.onnx import OnnxNetwork, read_onnx
from unet_core.bundles.packages.linear import Linear
from unet_core.bundles.packages.package import Package
from unet_core.errors import BundleError

DESCRIPTIONS = ("rdf.yaml", "bioimageio.yaml")
_ONE_NUMBER = (TypeError, ValueError, KeyError, AttributeError, IndexError)
_EPSILON = 1e-6
_DTYPES = ("uint8", "uint16", "float32")
_WAY = (
    "take the network's class from its source as package.module:factory, its weights with --weights and --trust-code, "
    "and its normalisation, classes and axes into --card; or have the package's author add ONNX weights"
)


@dataclass(frozen=True, slots=True)
class Described:
    """A network, and what its package says of it."""

    network: OnnxNetwork
    facts: CardFacts


def read_bioimageio(path: Path) -> Described:
    """The network of a folder or a ZIP, and its facts.

    Raises BundleError for a package without ONNX weights, weights that aren't those that it names, or pre- and
    post-processing that isn't one for all images.
    """
    package = Package(path)
    name = package.first(DESCRIPTIONS) or DESCRIPTIONS[0]
    described = package.described(name)
    try:
        inputs, outputs = described["inputs"], described["outputs"]
        if described.get("type", "model") != "model" or len(inputs) != 1 or len(outputs) != 1:
            raise BundleError(
                f"package {str(path)!r} has {len(inputs)} inputs and {len(outputs)} outputs, not one each"
            )
        network = _network(package, described.get("weights") or {})
        facts = _facts(package, described, network)
    except _ONE_NUMBER as error:
        raise BundleError(
            f"package {str(path)!r}: {name} is no description of a model ({type(error).__name__}: {error}); see "
            f"bioimageio validate"
        ) from error
    return Described(network, facts)


def _network(package: Package, weights: dict[str, Any]) -> OnnxNetwork:
    entry = weights.get("onnx")
    if not isinstance(entry, dict):
        held = ", ".join(weights) or "no weights"
        raise BundleError(
            f"model {str(package.path)!r} is a package of bioimage.io with {held} and without ONNX weights, the one "
            f"format of it that is read: {_WAY}"
        )
    onnx = cast("dict[str, Any]", entry)
    with tempfile.TemporaryDirectory() as folder:
        file = _checked(package, onnx, Path(folder))
        if isinstance(onnx.get("external_data"), dict):
            _checked(package, cast("dict[str, Any]", onnx["external_data"]), Path(folder))
        return read_onnx(file)


def _checked(package: Package, entry: dict[str, Any], folder: Path) -> Path:
    """A copy of the file that an entry names, which must be the one whose SHA-256 it names."""
    file = package.save(str(entry["source"]), folder)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if entry.get("sha256") not in (None, digest):
        raise BundleError(
            f"package {str(package.path)!r}: {entry['source']} has not the SHA-256 that its description names: it is "
            f"damaged or another file; download the package again"
        )
    return file


def _facts(package: Package, described: dict[str, Any], network: OnnxNetwork) -> CardFacts:
    entry, result = described["inputs"][0], described["outputs"][0]
    _expect_planes(package, entry)
    bands = network.program.bands
    linear = Linear(bands)
    dtype = (entry.get("data") or {}).get("type") if isinstance(entry.get("data"), dict) else entry.get("data_type")
    for step in entry.get("preprocessing") or []:
        _prepare(package, linear, step, dtype)
    mean, std = linear.mean_and_std()
    names = _channels(entry)
    known: dict[str, Any] = {
        "description": " ".join(str(described.get("description", "")).split())[:1000] or None,
        "bands": names if len(names) == bands else None,
        "dtype": dtype if dtype in _DTYPES else None,
        "mean": mean,
        "std": std,
        "pixel_size_um": _pixel_size(entry),
        "license": str(described["license"]) if isinstance(described.get("license"), str) else None,
    }
    return facts_from({key: value for key, value in (known | _decision(package, result, network)).items() if value})


def _expect_planes(package: Package, entry: dict[str, Any]) -> None:
    axes = entry["axes"]
    kinds = axes if isinstance(axes, str) else "".join(_axis_letter(axis) for axis in axes)
    if kinds not in ("bcyx", "byxc"):
        raise BundleError(f"package {str(package.path)!r} takes {kinds} pixels: batch, channel, y and x are read")


def _axis_letter(axis: dict[str, Any]) -> str:
    letters = {"batch": "b", "channel": "c", "time": "t", "index": "i"}
    return letters.get(str(axis["type"])) or str(axis.get("id", "?"))


def _channels(entry: dict[str, Any]) -> tuple[str, ...]:
    """The names of channels, without those that the library makes up."""
    axes = entry["axes"]
    if isinstance(axes, str):
        return ()
    names = next((axis.get("channel_names") for axis in axes if axis["type"] == "channel"), None)
    listed: list[Any] = names if isinstance(names, list) else []
    made_up = all(str(name).removeprefix("channel").isdigit() for name in listed)
    return () if made_up else tuple(map(str, listed))


def _pixel_size(entry: dict[str, Any]) -> float | None:
    axes = entry["axes"]
    spaces = [] if isinstance(axes, str) else [axis for axis in axes if axis["type"] == "space"]
    sizes = {float(axis.get("scale", 1)) for axis in spaces if axis.get("unit") == "micrometer"}
    return sizes.pop() if len(sizes) == 1 and len(spaces) == 2 else None


def _step(step: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return str(step.get("id") or step.get("name")), dict(step.get("kwargs") or {})


def _prepare(package: Package, linear: Linear, step: dict[str, Any], dtype: str | None) -> None:
    """One step of preprocessing, where it is the same for all images."""
    name, options = _step(step)
    match name:
        case "ensure_dtype" if options.get("dtype") in ("float32", "float64"):
            return
        case "ensure_dtype" if options.get("dtype") == dtype and linear.is_untouched:
            return  # the numbers that come in
        case "scale_linear" if options.get("axis") in (None, "channel"):
            linear.scale(options.get("gain", 1.0), options.get("offset", 0.0))
        case "fixed_zero_mean_unit_variance" if options.get("axis") in (None, "channel"):
            linear.standardize(options["mean"], _widened(options))
        case "zero_mean_unit_variance" if options.get("mode") == "fixed":
            linear.standardize(options["mean"], _widened(options))
        case _:
            raise _refusal(package, "before", name, "it follows each image's own values, or cuts or moves pixels")


def _widened(options: dict[str, Any]) -> Any:
    """The deviation with the small number that bioimageio.core adds to it."""
    deviation, epsilon = options["std"], float(options.get("eps", _EPSILON))
    return [float(each) + epsilon for each in deviation] if isinstance(deviation, list) else float(deviation) + epsilon


def _decision(package: Package, result: dict[str, Any], network: OnnxNetwork) -> dict[str, Any]:
    """The decision that the description's postprocessing and the graph's end make."""
    last = network.program.without_last_activation()[1] or network.left_out
    threshold: float | None = None
    for step in result.get("postprocessing") or []:
        name, options = _step(step)
        match name:
            case "ensure_dtype":
                continue
            case "sigmoid" | "softmax" if last is None:
                last = name
            case "binarize" if last == "sigmoid" and isinstance(options.get("threshold"), float | int):
                threshold = float(options["threshold"])
            case _:
                raise _refusal(package, "after", name, f"its network ends in {last or 'logits'}")
    names = _channels(result)
    if last == "sigmoid":
        classes = ("background", *names) if names else None
        count = len(names) or 1
        return {"decision": "threshold", "classes": classes, "thresholds": (threshold,) * count if threshold else None}
    return {"decision": "argmax" if last else None, "classes": names if last else None}


def _refusal(package: Package, when: str, name: str, why: str) -> BundleError:
    return BundleError(
        f"model {str(package.path)!r} is a package of bioimage.io that asks for {name!r} {when} its network, which is "
        f"not read: {why}, so that a tile's labels would not be those of the whole; give its ONNX file as the model, "
        f"with --card"
    )
