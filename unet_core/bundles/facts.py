"""Facts that a person must give of a network of their own before it can label an image. Never imports torch."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from unet_core.bundles.card import ModelCard, faults_of
from unet_core.errors import BundleError

QUESTIONS = {
    "bands": "names of the bands, in the order in which the network takes them (red,green,blue)",
    "classes": "names of the labels, 0 first (background,nucleus)",
    "mean": "mean per band that was subtracted, in the image's raw numbers (0 to 255 for uint8)",
    "std": "deviation per band that was divided by, in the same numbers",
}
"""What can't be derived from a network, and has no harmless default."""

# Okabe and Ito 2008: told apart by colour-blind eyes.
_COLORS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999")
_BACKGROUND = "#000000"
_HALF = 0.5


class CardFacts(BaseModel):
    """Part of a card that can't be read off a network; all optional, so that facts from several places merge."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str | None = None
    description: str | None = None
    bands: tuple[str, ...] | None = None
    dtype: Literal["uint8", "uint16", "float32"] | None = None
    classes: tuple[str, ...] | None = None
    colors: tuple[str, ...] | None = None
    decision: Literal["argmax", "threshold"] | None = None
    thresholds: tuple[float, ...] | None = None
    pixel_size_um: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    license: str | None = None

    def merged_with(self, other: CardFacts) -> CardFacts:
        """These facts, and the other's where these say nothing."""
        return CardFacts(**(other.model_dump(exclude_none=True) | self.model_dump(exclude_none=True)))

    def missing(self) -> list[str]:
        """The facts that somebody must still give."""
        return [name for name in QUESTIONS if getattr(self, name) is None]

    def expect_complete(self, source: str) -> None:
        """Raises BundleError that names every fact that is missing."""
        missing = self.missing()
        if missing:
            asked = "; ".join(f"--{name}: {QUESTIONS[name]}" for name in missing)
            raise BundleError(
                f"model {source!r} does not say what its pixels and labels mean, and a guess would give wrong labels: "
                f"give {asked}; as options of overtile models import, or in a file for --card"
            )

    def card(self, source: str, architecture: str, parameters: dict[str, Any], outputs: int) -> ModelCard:
        """The card of a network with `outputs` channels.

        Raises BundleError for facts that are missing, contradict each other or don't fit the network.
        """
        self.expect_complete(source)
        classes = self.classes or ()
        rule = self.decision or ("argmax" if outputs == len(classes) else "threshold")
        wanted = len(classes) if rule == "argmax" else len(classes) - 1
        if outputs != wanted:
            raise BundleError(
                f"model {source!r} gives {outputs} channels, and {len(classes)} classes ({', '.join(classes)}) "
                f"decided by {rule} need {wanted}: name the background first, then one class per channel (threshold) "
                f"or all channels in order (argmax)"
            )
        colors = self.colors or (_BACKGROUND, *(_COLORS[index % len(_COLORS)] for index in range(len(classes) - 1)))
        try:
            if len(colors) != len(classes):
                raise ValueError(f"{len(colors)} colours for {len(classes)} classes")
            thresholds = self.thresholds or ((_HALF,) * outputs if rule == "threshold" else ())
            return ModelCard.model_validate(
                {
                    "name": self.name or name_of(source),
                    "description": self.description or f"imported from {Path(source).name}",
                    "architecture": architecture,
                    "parameters": parameters,
                    "bands": self.bands,
                    "dtype": self.dtype or "uint8",
                    "classes": [{"name": name, "color": color} for name, color in zip(classes, colors, strict=True)],
                    "decision": {"rule": rule, "thresholds": thresholds},
                    "normalization": {"mean": self.mean, "std": self.std},
                    "pixel_size_um": self.pixel_size_um,
                    "license": self.license or "not stated",
                }
            )
        except ValidationError as error:
            raise BundleError(f"model {source!r}: {faults_of(error)}; correct what was given") from error
        except ValueError as error:
            raise BundleError(f"model {source!r}: {error}; give one per class, the background first") from error


def facts_of(card: ModelCard) -> CardFacts:
    """Facts of a card, to be changed in part."""
    return CardFacts(
        name=card.name,
        description=card.description,
        bands=card.bands,
        dtype=card.dtype,
        classes=tuple(item.name for item in card.classes),
        colors=tuple(item.color for item in card.classes),
        decision=card.decision.rule,
        thresholds=card.decision.thresholds or None,
        pixel_size_um=card.pixel_size_um,
        mean=card.normalization.mean,
        std=card.normalization.std,
        license=card.license,
    )


def facts_from(values: Mapping[str, object]) -> CardFacts:
    """Facts from a mapping; raises BundleError for other keys, or values that can't be."""
    try:
        return CardFacts.model_validate(dict(values))
    except ValidationError as error:
        raise BundleError(
            f"card: {faults_of(error)}; correct it; known are {', '.join(CardFacts.model_fields)}"
        ) from error


def read_facts(path: Path) -> CardFacts:
    """Facts from a TOML or JSON file; raises BundleError for a file that is none, or holds other keys."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        return CardFacts.model_validate(values)
    except ValidationError as error:
        known = ", ".join(CardFacts.model_fields)
        raise BundleError(f"card {str(path)!r}: {faults_of(error)}; correct it; known are {known}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"card {str(path)!r} can't be read as {path.suffix or 'TOML'}: {error}") from error


def name_of(source: str) -> str:
    """A card's name from the last part of a path, or a factory's name."""
    last = source.rpartition(":")[2] if ":" in source else Path(source).stem
    return re.sub(r"[^a-z0-9_.-]+", "-", last.lower()).strip("-_.") or "model"
