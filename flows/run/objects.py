"""The rule by which a run has objects: of what was asked for, the model's card, or code of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.config.run import OBJECTS_AUTO, OBJECTS_COMPONENTS, OBJECTS_NONE, UM_PER_METRE, SegmentConfig
from flows.errors import ConfigError
from tiling.errors import RuleError
from tiling.export.formats import FORMATS
from tiling.geometry import PixelSize
from tiling.objects.build import build_objects
from tiling.objects.checked_rule import CheckedRule
from tiling.objects.image_labels import ImageLabels
from tiling.objects.record import ask_for_objects, asked_objects, built_objects
from tiling.objects.rule import Rule, builtin_rule
from tiling.objects.spec import ObjectSpec
from tiling.objects.write_labels import asked_labels, write_labels
from tiling.runs.card import ImageCard
from tiling.runs.ledger import LedgerState
from tiling.runs.run import Run
from unet_core.bundles.card import ModelCard
from unet_core.bundles.object_rule import ObjectRule
from unet_core.bundles.reference import FAILURES, follow

_TOP = 255
_UM = {"um": 1.0, "m": UM_PER_METRE}
"""Of lengths; degrees have none."""


def asked_rule(
    config: SegmentConfig, card: ModelCard, formats: Sequence[str], pixel_size: PixelSize | None = None
) -> ObjectSpec | None:
    """Rule that `--objects` means for a model and the formats with which the run is to end; None for no objects.

    `pixel_size` is the mask's, None where nobody knows it: areas in the card become pixels by it.

    Raises:
        ConfigError: code of the user's own without leave to run it, or that is no rule.
    """
    said = config.objects
    if said == OBJECTS_NONE:
        if config.labels_into is not None:
            raise ConfigError(
                "--labels-into writes numbered objects, and --objects none asks for none; give one of both"
            )
        return None
    if said == OBJECTS_AUTO:
        is_needed = are_numbered(config, card) or any(FORMATS[name].of_instances for name in formats)
        return spec_of(card.objects, card, pixel_size) if is_needed else None
    if said == OBJECTS_COMPONENTS:
        return spec_of(card.objects.as_components(), card, pixel_size)
    spec = ObjectSpec(rule=said, **_sizes(card.objects, card, pixel_size))
    rule_of(spec, trust_code=config.trust_code)
    return spec


def are_numbered(config: SegmentConfig, card: ModelCard) -> bool:
    """True if a run has numbered objects whatever formats it ends with: by its options or its model's card."""
    if config.objects == OBJECTS_AUTO:
        return config.labels_into is not None or not card.objects.is_plain
    return config.objects != OBJECTS_NONE


def asked_image_labels(config: SegmentConfig, image: ImageCard, model: str) -> ImageLabels | None:
    """Place in which `--labels-into` puts labels; None where nowhere.

    Raises:
        ExportError: they can't or mustn't be written there.
    """
    if config.labels_into is None:
        return None
    into = ImageLabels.of(config.labels_into, config.image, image.level, image.view, model)
    known = asked_labels(Run.open(config.out).ledger.fold()) if (config.out / "run.json").is_file() else None
    into.expect_own(None if known is None else known[1])
    return into


def number_where_needed(run: Run, state: LedgerState, formats: str, threads: int) -> None:
    """Number the objects of a finished run where a format needs them and the run has none: the areas of its classes.

    Those that were asked for by another rule are found by that; not by a user's own, which takes leave to run it.
    """
    needed = any(name in FORMATS and FORMATS[name].of_instances for name in formats.split(","))
    if not needed or not state.is_closed or built_objects(run, state) is not None:
        return
    spec = asked_objects(state)
    if spec is None:
        ask_for_objects(run, state, spec := ObjectSpec())
    if not spec.is_own:
        build_objects(run, state, spec, builtin_rule(spec), threads=threads)
        write_labels(run, state)


def takes_probabilities(spec: ObjectSpec | None, *, trust_code: bool) -> bool:
    """True if the rule looks at probabilities, so that the run has to keep them."""
    return spec is not None and rule_of(spec, trust_code=trust_code).takes_probabilities


def spec_of(rule: ObjectRule, card: ModelCard, pixel_size: PixelSize | None = None) -> ObjectSpec:
    """A card's rule by the numbers of its classes."""
    labels, predicted = _labels(card), [item.name for item in card.predicted]
    is_distance = rule.channel is not None
    return ObjectSpec(
        rule=rule.rule,
        radius_px=rule.radius_px,
        border=None if rule.border is None else labels[rule.border],
        channel=None if rule.channel is None else predicted.index(rule.channel),
        level=max(1, round(rule.level * _TOP)) if is_distance else ObjectSpec().level,
        spacing_px=rule.spacing_px if is_distance else 1,
        **_sizes(rule, card, pixel_size),
    )


def rule_of(spec: ObjectSpec, *, trust_code: bool) -> Rule:
    """The rule itself; of a user's own, what `package.module:factory` gives, which runs that code.

    Raises:
        ConfigError: without leave to run it, or what it gives is no rule.
    """
    if not spec.is_own:
        return builtin_rule(spec)
    if not trust_code:
        raise ConfigError(
            f"objects {spec.rule!r} is Python code, and finding objects runs it with all your rights: read it, then "
            f"give --trust-code; or give --objects auto"
        )
    try:
        rule = follow(spec.rule, Rule)
    except FAILURES as error:
        said = " ".join(str(error).split())
        raise ConfigError(
            f"objects {spec.rule!r} gives no rule ({type(error).__name__}: {said}); give package.module:factory, "
            f"importable from {Path.cwd()}, that takes no arguments"
        ) from error
    if not isinstance(rule, Rule):
        raise ConfigError(
            f"objects {spec.rule!r} gives a {type(rule).__name__}, which lacks something of the protocol "
            f"(seed_reach_px, reach_px, takes_probabilities, seeds, grow); docs/objects.md shows one"
        )
    try:
        return CheckedRule(rule, spec.rule)
    except RuleError as error:
        raise ConfigError(str(error)) from error


def _sizes(rule: ObjectRule, card: ModelCard, pixel_size: PixelSize | None) -> dict[str, Any]:
    labels, side_um = _labels(card), None if pixel_size is None else _UM.get(pixel_size.unit)
    pixel_um2 = None if pixel_size is None or side_um is None else pixel_size.y * pixel_size.x * side_um**2
    least_px = {labels[name]: pixels for name, pixels in rule.least_pixels(pixel_um2).items()}
    return {"least_px": least_px, "filled": tuple(sorted(labels[name] for name in rule.fill_holes))}


def _labels(card: ModelCard) -> dict[str, int]:
    return {item.name: label for label, item in enumerate(card.classes)}
