"""What can be refused in a second, before Ray, Prefect or torch are loaded."""

from __future__ import annotations

from flows.config import SegmentConfig
from flows.errors import FlowError
from tiling.errors import PlanError
from tiling.source import ImageSource, open_source
from unet_core.card import ModelCard, read_card
from unet_core.facts import CardFacts, read_facts


def check(config: SegmentConfig) -> None:
    """Open the image, read the model's card and hold them against each other.

    Raises:
        SourceError, BundleError, PlanError, FlowError: as `prepare` would, minutes of start-up later on a cluster.
    """
    origin = config.origin()
    origin.expect_trust()
    with open_source(config.image) as source:
        if origin.kind == "bundle":
            check_fit(source, read_card(config.model), config.level)
        else:
            facts = read_facts(config.card) if config.card else CardFacts()
            facts.expect_complete(config.model)


def check_fit(source: ImageSource, card: ModelCard, level: int) -> None:
    """Refuse an image that the model wasn't made for."""
    if level >= len(source.levels):
        raise PlanError(f"level {level} is not in the image; it has levels 0 to {len(source.levels) - 1}")
    if len(source.bands) != len(card.bands):
        raise FlowError(
            f"model {card.name} takes {len(card.bands)} band(s) ({', '.join(card.bands)}) and {source.path} has "
            f"{len(source.bands)} ({', '.join(source.bands)}); use a model for such images"
        )
    if str(source.dtype) != card.dtype:
        raise FlowError(
            f"model {card.name} takes {card.dtype} and {source.path} is {source.dtype}: its brightness would mean "
            f"something else; use a model for such images or convert the image"
        )
