"""A model that is at hand in Python: a network of torch, and facts in place of a card's file."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeGuard

from flows.config.run import SegmentConfig
from flows.errors import ConfigError
from tiling.runs.run import Run
from tiling.storage.place import lock_run
from unet_core.bundles.facts import CardFacts, facts_from, read_facts

if TYPE_CHECKING:
    from unet_core.bundles.importing import Network


def is_network(model: object) -> TypeGuard[Network]:
    """True if it is a `torch.nn.Module`; torch is not imported for that."""
    torch: Any = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def expect_model(model: object) -> None:
    """Refuse what is neither a model's name nor a network.

    Raises:
        ConfigError: what it is.
    """
    if not isinstance(model, str | Path) and not is_network(model):
        raise ConfigError(
            f"model: a name, a path or a torch.nn.Module is needed, not {type(model).__name__}; a class or a function "
            f"is called first, and a state_dict loaded into its network"
        )


def facts_given(card: object) -> CardFacts:
    """Facts from a mapping, or from a file.

    Raises:
        BundleError: other keys, or values that can't be.
        ConfigError: something else.
    """
    if card is None:
        return CardFacts()
    if isinstance(card, Mapping):
        return facts_from(card)
    if isinstance(card, str | Path):
        return read_facts(Path(card))
    raise ConfigError(f"card: a mapping or the path of a TOML or JSON file is needed, not {type(card).__name__}")


@contextmanager
def card_file(card: object) -> Generator[object]:
    """A card as a configuration takes it: a mapping becomes a file, which goes again."""
    if not isinstance(card, Mapping):
        yield card
        return
    facts = facts_given(card)
    with TemporaryDirectory(prefix="overtile-card-") as folder:
        path = Path(folder) / "card.json"
        path.write_text(json.dumps(facts.model_dump(exclude_none=True)), encoding="utf-8")
        yield path


def bundle_network(network: Network, card: object, config: SegmentConfig, dtype: str | None) -> None:
    """Write the network into the run's folder as the bundle that the configuration names, or compare it with that.

    Args:
        network: which stays as it is: a copy in evaluation mode is exported.
        card: facts about it. Bands have the names `band 1` and so on where it names none.
        config: with the run's folder.
        dtype: of the pixels, where an array was given: the facts' own goes first.

    Raises:
        BundleError: it can't be exported or described, or isn't the one that the run began with.
        FootprintError: its graph can't be followed.
        RunError: the folder holds something else than a run.
    """
    from flows.run.custom_model import place_bundle
    from unet_core.bundles.importing import import_network

    facts = facts_given(card)
    imported = import_network(network, len(facts.bands) if facts.bands else None)
    named = {"bands": tuple(f"band {number + 1}" for number in range(imported.bands)), "dtype": dtype}
    facts = facts.merged_with(CardFacts.model_validate({k: v for k, v in named.items() if v is not None}))
    Run.expect_room(config.out)
    with lock_run(config.out):
        place_bundle(config, imported, facts)
