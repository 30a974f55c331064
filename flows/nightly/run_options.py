"""Options of a slide's run, as its card has them, against those that are asked for now."""

from __future__ import annotations

from flows.config.run import SegmentConfig
from tiling.runs.card import RunCard


def matches_options(card: RunCard, config: SegmentConfig) -> bool:
    """True if a run matches the options that a manifest gives now; options left open match any run."""
    view = card.image.view
    return (
        config.level in {None, card.image.level if view is None else view.level}
        and card.image.asked == config.view_request().as_given()
        and config.core in {None, card.geometry.core_px}
        and config.precision in {"auto", card.precision}
        and card.foreground == config.foreground
    )
