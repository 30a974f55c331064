"""A bundle's card: what the model is, expects and decides. Reading it never imports torch.

A bundle is a folder with `model.json` (the card) and `weights.safetensors`; where the network isn't one of
overtile's, `graph.json` holds it, and the card names its digest among the parameters. The process that plans and lists
models reads cards only; the weights belong to the processes that predict (`unet_core.bundles.bundle`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal
from unicodedata import category

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails

from unet_core.bundles.object_rule import ObjectRule
from unet_core.errors import BundleError

CARD_NAME = "model.json"
WEIGHTS_NAME = "weights.safetensors"
EXPORTED = "exported"
"""The architecture of a bundle whose network is a program of its own: `graph.json`, named by its digest."""

FORMAT_VERSION = 1
SHIPPED_DIR = Path(__file__).resolve().parent
# Label 255 means "not predicted" in a mask, so a model's own labels end at 254.
MAX_CLASSES = 255

_LONGEST_SHOWN = 80
_CARD_BYTES_LIMIT = 4_000_000
_LABEL_FIELDS = ("architecture", "parameters", "bands", "dtype", "normalization", "decision")
_STRICT = ConfigDict(extra="forbid")

LONGEST_NAME = 200
_NO_LETTERS = {"Cc", "Cs", "Zl", "Zp"}
_TURNING = {chr(code) for code in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(gt=0, lt=1)]


def label_name(text: str) -> str:
    """The name itself, where it is one that every output can hold and that looks like no other; else ValueError."""
    if not text.strip() or len(text) > LONGEST_NAME:
        raise ValueError(f"a name has 1 to {LONGEST_NAME} letters, and {text[:20]!r} has {len(text)}; give another")
    for letter in text:
        if category(letter) in _NO_LETTERS or letter in _TURNING or (ord(letter) & 0xFFFE) == 0xFFFE:
            raise ValueError(
                f"a name holds no control characters, line ends or marks that turn the direction of writing, and "
                f"{text[:80]!a} holds {letter!a}: it would look like another, or make a file that no reader takes; "
                f"leave that character out"
            )
    return text


@dataclass(frozen=True, slots=True, config=_STRICT)
class ClassInfo:
    """One label's name and its colour as `#rrggbb`."""

    name: Annotated[str, AfterValidator(label_name)]
    color: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]


@dataclass(frozen=True, slots=True, config=_STRICT)
class Normalization:
    """`y = (x - mean) / std` per band, in the image's raw units (uint8: 0 to 255). One for all images."""

    mean: tuple[FiniteFloat, ...]
    std: tuple[PositiveFloat, ...]


@dataclass(frozen=True, slots=True, config=_STRICT)
class Decision:
    """Rule by which the network's C outputs become labels.

    `argmax`: output c is label c. `threshold`: the outputs' sigmoids are the probabilities of labels 1 to C;
    a pixel gets the label whose probability exceeds its threshold by the greatest factor, 0 where none does.
    """

    rule: Literal["argmax", "threshold"]
    thresholds: tuple[Probability, ...] = ()


class ModelCard(BaseModel):
    """The card of a bundle. `classes[label]` names each label; label 0 is the background."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format_version: Literal[1] = FORMAT_VERSION
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=100)]
    description: str
    architecture: str
    parameters: dict[str, Any]
    bands: Annotated[tuple[Annotated[str, AfterValidator(label_name)], ...], Field(min_length=1)]
    dtype: Literal["uint8", "uint16", "float32"]
    classes: Annotated[tuple[ClassInfo, ...], Field(min_length=2, max_length=MAX_CLASSES)]
    decision: Decision
    normalization: Normalization
    pixel_size_um: PositiveFloat | None = None
    plausible_um: tuple[PositiveFloat, PositiveFloat] | None = None
    """Between which pixel sizes the model can be right, where it was trained on images of several or unknown ones."""
    license: str
    training: dict[str, Any] = Field(default_factory=dict)
    objects: ObjectRule = ObjectRule()
    """How classes become objects, which changes no label."""

    @property
    def outputs(self) -> int:
        """Number of channels of the network's head under the decision rule."""
        return len(self.classes) if self.decision.rule == "argmax" else len(self.classes) - 1

    @property
    def predicted(self) -> tuple[ClassInfo, ...]:
        """The classes of the head's channels: under `threshold` the background has none."""
        return self.classes[-self.outputs :]

    @model_validator(mode="after")
    def _lengths_agree(self) -> ModelCard:
        bands, normalization = len(self.bands), self.normalization
        if len(normalization.mean) != bands or len(normalization.std) != bands:
            raise ValueError(
                f"normalization holds {len(normalization.mean)} means and {len(normalization.std)} deviations "
                f"for {bands} bands: give one of each per band"
            )
        names = [item.name for item in self.classes]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"two classes are called {twice[0]!r}: nothing would tell them apart; give each its own name"
            )
        self.objects.expect_classes(names)
        wanted = self.outputs if self.decision.rule == "threshold" else 0
        if len(self.decision.thresholds) != wanted:
            raise ValueError(
                f"decision rule {self.decision.rule!r} with {len(self.classes)} classes takes {wanted} thresholds, "
                f"got {len(self.decision.thresholds)}"
            )
        for parameter, count in (("bands", bands), ("classes", self.outputs)):
            given = self.parameters.get(parameter, count)
            if given != count:
                raise ValueError(
                    f"parameters.{parameter} is {given}, but the card's bands, classes and decision need {count}"
                )
        return self


def list_bundles() -> list[ModelCard]:
    """The cards of the shipped bundles, by name."""
    return [read_card(folder) for folder in _shipped_folders().values()]


def is_shipped(reference: str) -> bool:
    """True for the name of a shipped bundle, which wins over a folder of that name."""
    return reference in _shipped_folders()


def locate(reference: str | Path) -> Path:
    """The folder of a bundle: a shipped name such as `"nuclei"`, or a folder's path.

    A shipped name wins over a folder of the same name (`"./nuclei"` is the folder).
    Raises BundleError for neither, or a folder that lacks one of the bundle's two files.
    """
    shipped = _shipped_folders()
    folder = shipped.get(reference) if isinstance(reference, str) else None
    if folder is None:
        folder = Path(reference)
        if not folder.is_dir():
            known = ", ".join(shipped) or "none"
            raise BundleError(
                f"no model called {str(reference)!r}: the shipped ones are {known}; "
                "give one of these or the folder of a bundle"
            )
    for name in (CARD_NAME, WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise BundleError(f"bundle {str(folder)!r} has no {name}: it is incomplete; save or copy it again")
    return folder


def read_card(reference: str | Path) -> ModelCard:
    """The card of a shipped bundle or of one in a folder, checked.

    Raises BundleError when the bundle can't be found or its card is not one.
    """
    path = locate(reference) / CARD_NAME
    try:
        if path.stat().st_size > _CARD_BYTES_LIMIT:
            raise BundleError(f"card {str(path)!r} is larger than {_CARD_BYTES_LIMIT} bytes: not a model card")
        return ModelCard.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BundleError(f"card {str(path)!r} does not describe a model: {faults_of(error)}; correct it") from error
    except OSError as error:
        raise BundleError(f"card {str(path)!r} can't be read: {error}") from error


def faults_of(error: ValidationError) -> str:
    """All that is wrong with a card or its facts, on one line: where, what may be there, and what is."""
    return "; ".join(map(_fault, error.errors(include_url=False)))


def _fault(fault: ErrorDetails) -> str:
    where = ".".join(map(str, fault["loc"])) or "card"
    if fault["type"] == "extra_forbidden":
        return f"{where}: there is no such key"
    said = " ".join(fault["msg"].split()).removeprefix("Value error, ")
    # Rules of our own name the value themselves, and of what is missing or no JSON there is none.
    given = "" if fault["type"] in {"missing", "value_error", "json_invalid"} else repr(fault["input"])
    shown = given if len(given) <= _LONGEST_SHOWN else f"{given[:_LONGEST_SHOWN]}…"
    return f"{where}: {said}, not {shown}" if shown else f"{where}: {said}"


def bundle_digest(reference: str | Path) -> str:
    """sha256 (hex) over all of a bundle that can change a label: its weights and the card's label fields."""
    folder = locate(reference)
    return digest_of(read_card(folder), folder / WEIGHTS_NAME)


def digest_of(card: ModelCard, weights: Path) -> str:
    """sha256 (hex) over the weights file's bytes and the canonical JSON of the card's label fields."""
    try:
        with weights.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256")
    except OSError as error:
        raise BundleError(f"weights {str(weights)!r} can't be read: {error}") from error
    digest.update(canonical_json(card.model_dump(mode="json", include=set(_LABEL_FIELDS))).encode())
    return digest.hexdigest()


def canonical_json(value: Mapping[str, Any]) -> str:
    """One text for one value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


@cache
def _shipped_folders() -> Mapping[str, Path]:
    """Folders that hold a shipped bundle, by the bundle's name; they are the package's own, and looked for once."""
    if not SHIPPED_DIR.is_dir():
        return {}
    return {path.name: path for path in sorted(SHIPPED_DIR.iterdir()) if (path / CARD_NAME).is_file()}
