"""MONAI bundle: a network of the installed library by its name, its weights, and what its configuration says of pixels.

A configuration is a program in itself (`$` runs Python, `_target_` calls anything). Here it is data: the network must
be a class of monai.networks.nets with plain arguments, and every other entry is known, or is refused by name.
"""

from __future__ import annotations

import ast
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import nn

from unet_core.bundles.facts import CardFacts, facts_from
from unet_core.bundles.library import build_network, import_library
from unet_core.bundles.packages.linear import Linear
from unet_core.bundles.packages.package import Package
from unet_core.bundles.weights import load_fitting, read_weights, without_prefix
from unet_core.errors import BundleError

CONFIGS = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml", "configs/train.json")
METADATA = "configs/metadata.json"
_WEIGHTS = ("models/model.safetensors", "models/model.pt")
_LIBRARY, _NETWORKS = "monai", "monai.networks.nets"
_MALFORMED = (TypeError, ValueError, KeyError, AttributeError, IndexError, RecursionError)
_DEEPEST = 20
# Reading, laying out and saving are overtile's own part, whatever the bundle does there.
_OURS = ("LoadImage", "EnsureChannelFirst", "AsChannelFirst", "EnsureType", "ToTensor", "SaveImage", "Invert")


@dataclass(frozen=True, slots=True)
class Described:
    """A network with its weights, and what its bundle says of it."""

    network: nn.Module
    bands: int | None
    facts: CardFacts


def read_monai(path: Path) -> Described:
    """The network of a bundle's folder or ZIP, and its facts.

    Raises BundleError where the library is absent, the network is none of the library's, an argument is an
    expression to run, or pre- and post-processing isn't one for all images.
    """
    package = Package(path)
    name = package.first(CONFIGS)
    if name is None:
        raise BundleError(f"MONAI bundle {str(path)!r} has none of {', '.join(CONFIGS)}; copy it again")
    config = package.described(name)
    metadata = package.described(METADATA) if package.has(METADATA) else {}
    try:
        values = _Values(package, config)
        facts, bands = _facts(package, values, metadata)
        network = _network(package, values)
    except _MALFORMED as error:
        raise BundleError(
            f"MONAI bundle {str(path)!r}: {name} is not what a bundle's configuration looks like "
            f"({type(error).__name__}: {error}); see monai.bundle verify_metadata"
        ) from error
    return Described(network, bands, facts)


@dataclass(frozen=True, slots=True)
class _Values:
    """A configuration's values without running any: references are followed, other expressions are refused."""

    package: Package
    config: dict[str, Any]

    def at(self, path: str) -> Any:
        value: Any = self.config
        for part in path.replace("#", "::").split("::"):
            value = value[int(part)] if isinstance(value, list) else value[part]
        return self.plain(value)

    def plain(self, value: Any, depth: int = 0) -> Any:
        """The value with its references followed."""
        if depth > _DEEPEST:
            raise ValueError("references lead in a circle")
        if isinstance(value, list):
            return [self.plain(item, depth + 1) for item in cast("list[Any]", value)]
        if isinstance(value, dict):
            return {key: self.plain(item, depth + 1) for key, item in cast("dict[str, Any]", value).items()}
        if isinstance(value, str) and value.removeprefix("$").startswith("@"):
            found: Any = self.config
            for part in value.removeprefix("$")[1:].replace("#", "::").split("::"):
                if not isinstance(found, list | dict) or (isinstance(found, dict) and part not in found):
                    raise self.expression(value)
                found = found[int(part)] if isinstance(found, list) else found[part]
            return self.plain(found, depth + 1)
        if isinstance(value, str) and value.startswith("$"):
            try:
                return ast.literal_eval(value[1:].strip())
            except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
                raise self.expression(value) from error
        return value

    def expression(self, value: str) -> BundleError:
        return BundleError(
            f"MONAI bundle {str(self.package.path)!r} asks to run {value[:100]!r}, which is Python: nothing of a "
            f"bundle is run; write its value into the configuration, or give the network as "
            f"package.module:factory with --trust-code"
        )


def _network(package: Package, values: _Values) -> nn.Module:
    options = values.at("network_def")
    target = str(options.pop("_target_"))
    options = {key: value for key, value in options.items() if not key.startswith("_")}
    if "." in target and not target.startswith(f"{_NETWORKS}."):
        raise _not_of_library(package, target)
    if options.get("spatial_dims", options.get("dimensions", 2)) != 2:
        raise BundleError(f"MONAI bundle {str(package.path)!r} segments volumes: only planes of pixels are read")
    needed = f"model {str(package.path)!r} is a MONAI bundle, whose network is built by a library that"
    library = import_library(_NETWORKS, needed, _LIBRARY)
    made: Any = getattr(library, target.rpartition(".")[2], None)
    of_library = isinstance(made, type) and made.__module__.startswith(_NETWORKS) and issubclass(made, nn.Module)
    if not of_library:
        raise _not_of_library(package, target)
    if "pretrained" in options:
        options["pretrained"] = False  # its weights come from the bundle
    remedy = f"use the version of {_LIBRARY} that its metadata names"
    network = build_network(made, options, f"{_NETWORKS}.{made.__name__}", package.path, remedy)
    return _weighted(package, network)


def _not_of_library(package: Package, target: str) -> BundleError:
    return BundleError(
        f"MONAI bundle {str(package.path)!r} wants {target[:100]!r}, which is no network of {_NETWORKS}: code of "
        f"others is not run; give it as package.module:factory with --weights and --trust-code"
    )


def _weighted(package: Package, network: nn.Module) -> nn.Module:
    name = package.first(_WEIGHTS)
    if name is None:
        raise BundleError(
            f"MONAI bundle {str(package.path)!r} has none of {', '.join(_WEIGHTS)}: TorchScript (model.ts) is not "
            f"read; download the bundle's weights into it"
        )
    with tempfile.TemporaryDirectory() as folder:
        file = package.save(name, Path(folder))
        tensors = read_weights(file)
    tensors = without_prefix(tensors, network.state_dict())
    load_fitting(
        network, tensors, package.path / name, f"use the version of {_LIBRARY} that the bundle's metadata names"
    )
    return network


def _facts(package: Package, values: _Values, metadata: dict[str, Any]) -> tuple[CardFacts, int | None]:
    data = metadata.get("network_data_format") or {}
    image = next(iter((data.get("inputs") or {}).values()), {})
    pred = next(iter((data.get("outputs") or {}).values()), {})
    options = values.at("network_def")
    bands = options.get("in_channels") or image.get("num_channels")
    linear = Linear(bands or 1)
    steps = _steps(values, "preprocessing")
    for step in steps:
        _prepare(package, linear, *step)
    mean, std = linear.mean_and_std()
    names, labels = _defined(image), _defined(pred)
    facts: dict[str, Any] = {
        "description": " ".join(str(metadata.get("description") or metadata.get("task") or "").split())[:1000],
        "bands": names if len(names) == bands and len(set(names)) == bands else None,
        "mean": mean if bands else None,
        "std": std if bands else None,
        "dtype": "uint8" if any(options.get("clip") for _, options in steps) else None,
    }
    facts |= _decision(package, values, labels)
    return facts_from({key: value for key, value in facts.items() if value}), bands


def _defined(tensor: dict[str, Any]) -> tuple[str, ...]:
    """The channels' names in order."""
    named: dict[str, Any] = tensor.get("channel_def") or {}
    return tuple(str(named[key]) for key in sorted(named, key=int))


def _steps(values: _Values, key: str) -> list[tuple[str, dict[str, Any]]]:
    """The transforms of a Compose, by their names without the `d` of dictionaries, and their options."""
    if key not in values.config:
        return []
    composed = values.config[key]
    entries = composed.get("transforms", [composed]) if isinstance(composed, dict) else composed
    found: list[tuple[str, dict[str, Any]]] = []
    for raw in entries if isinstance(entries, list) else values.plain(entries):
        entry = values.plain(raw) if isinstance(raw, str) else raw
        name = str(entry["_target_"]).rpartition(".")[2]
        name = name.removesuffix("Dict").removesuffix("d").removesuffix("D")
        if name in _OURS or entry.get("_disabled_") is True:
            continue
        found.append((name, {option: values.plain(value) for option, value in entry.items()}))
    return found


def _prepare(package: Package, linear: Linear, name: str, options: dict[str, Any]) -> None:
    """One step of preprocessing, where it is the same for all images."""
    match name:
        case "ScaleIntensityRange" if options.get("b_min") is not None and options.get("b_max") is not None:
            low, high = float(options["a_min"]), float(options["a_max"])
            to_low, to_high = float(options["b_min"]), float(options["b_max"])
            if options.get("clip") and (low > 0 or high < 255):  # what 8 bits hold is not cut
                raise _refusal(package, "before", name, f"it cuts at {low:g} and {high:g}")
            gain = (to_high - to_low) / (high - low)
            linear.scale(gain, to_low - low * gain)
        case "NormalizeIntensity" if options.get("divisor") is not None and not options.get("nonzero"):
            linear.standardize(options.get("subtrahend") or 0.0, options["divisor"])
        case "CastToType" if "float32" in str(options.get("dtype", "float32")):
            return
        case _:
            raise _refusal(package, "before", name, "it follows each image's own values, or cuts or moves pixels")


def _decision(package: Package, values: _Values, labels: tuple[str, ...]) -> dict[str, Any]:
    rule: str | None = None
    threshold: float | None = None
    for name, options in _steps(values, "postprocessing"):
        match name:
            case "Activations" if options.get("sigmoid") and not options.get("softmax"):
                rule = "threshold"
            case "Activations" if options.get("softmax") and not options.get("sigmoid"):
                rule = "argmax"
            case "AsDiscrete" if options.get("argmax") and rule != "threshold":
                rule = "argmax"
            case "AsDiscrete" if options.get("threshold") is not None and rule == "threshold":
                threshold = float(options["threshold"])
            case _:
                raise _refusal(package, "after", name, "it changes labels in a way that is not overtile's")
    classes = labels
    if rule == "threshold" and labels and labels[0].lower() != "background":
        classes = ("background", *labels)
    count = max(1, len(classes) - 1)
    return {"decision": rule, "classes": classes, "thresholds": (threshold,) * count if threshold else None}


def _refusal(package: Package, when: str, name: str, why: str) -> BundleError:
    return BundleError(
        f"model {str(package.path)!r} is a MONAI bundle that asks for {name!r} {when} its network, which is not read: "
        f"{why}; a tile's labels would not be those of the whole; give the network as package.module:factory with "
        f"--weights and --trust-code, and --card"
    )
