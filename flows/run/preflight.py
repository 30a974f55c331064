"""Early checks of an image, a model and options: refused in a second, before Ray, Prefect or torch are loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

from flows.config.run import OBJECTS_NONE, SegmentConfig
from flows.errors import FlowError
from tiling.export.formats import AUTO, NONE, chosen_formats
from tiling.export.subject import Subject
from tiling.geometry import IMAGE_GRID
from tiling.georeference.placement import Placement
from tiling.selection.choose_view import choose_view
from tiling.selection.emptiness import expect_data
from tiling.selection.normalisation import Normalisation
from tiling.selection.view_request import ModelRequirements
from tiling.source import ImageSource, open_source
from unet_core.bundles.card import ModelCard, read_card
from unet_core.bundles.facts import CardFacts, read_facts
from unet_core.bundles.hub.fetch import fetch
from unet_core.bundles.origin import DESCRIBED, Origin

_ANY_RANGE = "0,1"
SIZES_TOLD = ("image", "bands", "values", "pixels")
"""Notes of decisions that are shown before anything is computed."""


@dataclass(frozen=True, slots=True)
class Preflight:
    """Findings of the early checks: notes that are worth telling, and what the pixels to segment take as an array."""

    notes: dict[str, str]
    array_bytes: int


def check(config: SegmentConfig) -> Preflight:
    """Open the image, read the model's card and hold them against each other.

    Raises:
        SourceError, BundleError, PlanError, FlowError: as `prepare` would, minutes of start-up later on a cluster.
    """
    config = on_this_machine(config)
    origin = config.origin()
    origin.expect_trust()
    if origin.kind == "bundle":
        card, wanted = read_card(config.model), replace(config.view_request(), damaged=None)  # found when it begins
        if wanted.normalise is not None and Normalisation.parse(wanted.normalise).of_percentiles:
            wanted = replace(wanted, normalise=_ANY_RANGE)  # measuring takes longer than a second
        with open_source(config.image, wanted.first_view) as image:
            choice = choose_view(image, wanted, requirements_of(card))
            with image.viewed(choice.view) as source:
                check_fit(source, card)
                expect_formats(source, choice.level, config)
                array_bytes = bytes_of(source, choice.level)
            # Values as the image has them: what is stretched no longer tells where there is no data.
            seen = choice.view and choice.view.model_copy(update={"stretch": None})
            with image.viewed(seen) as source:
                expect_data(source, choice.level)
        return Preflight({fact: text for fact, text in choice.notes.items() if fact in SIZES_TOLD}, array_bytes)
    with open_source(config.image, config.image_view()) as source:
        facts = read_facts(config.card) if config.card else CardFacts()
        if origin.kind not in DESCRIBED:
            facts.expect_complete(config.model)
        level = config.level or 0
        expect_formats(source, level, config)
        return Preflight({}, bytes_of(source, min(level, len(source.levels) - 1)))


def on_this_machine(config: SegmentConfig) -> SegmentConfig:
    """The same with a model of the Hugging Face Hub as its files in the cache, to look at; a run takes a copy.

    Raises:
        BundleError: it can't be downloaded, or isn't what it should be.
    """
    if config.origin().kind != "hub":
        return config
    fetched = str(fetch(config.model))
    if Origin(fetched).kind == "bundle":
        config.origin().expect_no_card()
    return config.model_copy(update={"model": fetched})


def bytes_of(source: ImageSource, index: int) -> int:
    """Bytes that a level's pixels take as an array."""
    level = source.levels[index]
    return level.height * level.width * len(source.bands) * source.dtype.itemsize


def bands_needed(config: SegmentConfig) -> int | None:
    """Number of bands that the model takes, as its card says; None where none says so."""
    config = on_this_machine(config)
    if config.origin().kind == "bundle":
        return len(read_card(config.model).bands)
    facts = read_facts(config.card) if config.card else CardFacts()
    return len(facts.bands) if facts.bands else None


def expect_formats(source: ImageSource, index: int, config: SegmentConfig) -> None:
    """Refuse formats that can't say where the image lies, or that need what the run won't keep; raises ExportError."""
    if config.export in (NONE, AUTO) or index >= len(source.levels):
        return
    level = source.levels[index]
    placement = Placement.of(source, index, IMAGE_GRID)
    numbered = config.objects != OBJECTS_NONE
    subject = Subject(str(config.image), placement, (level.height, level.width), config.probabilities, numbered)
    for each in chosen_formats(config.export, placement, probabilities=config.probabilities):
        each.expect(subject)


def requirements_of(card: ModelCard) -> ModelRequirements:
    """Requirements of a model on its images."""
    return ModelRequirements(card.name, card.pixel_size_um, card.dtype, card.plausible_um, card.bands)


def check_fit(source: ImageSource, card: ModelCard) -> None:
    """Refuse an image, or a view of one, that the model wasn't made for."""
    if len(source.bands) != len(card.bands):
        raise FlowError(
            f"model {card.name} takes {len(card.bands)} band(s) ({', '.join(card.bands)}) and {source.path} has "
            f"{len(source.bands)} ({', '.join(source.bands)}); choose with --bands, for example --bands "
            f"{','.join(str(min(number, len(source.bands))) for number in range(1, len(card.bands) + 1))}, or use a "
            f"model for such images"
        )
    if str(source.dtype) != card.dtype:
        known = str(source.dtype) in get_args(ModelCard.model_fields["dtype"].annotation)
        trained = f'say so in its card (dtype = "{source.dtype}") if its network was trained on such numbers, '
        raise FlowError(
            f"model {card.name} takes {card.dtype} and {source.path} is {source.dtype}: its brightness would mean "
            f"something else; give --normalise LOW,HIGH or --normalise percentiles:1,99, "
            f"{trained if known else ''}or use a model for such images"
        )
