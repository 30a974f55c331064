"""The one model of an archive: a bundle that is there already, or one made of the user's own network, once."""

from __future__ import annotations

from pathlib import Path

from flows.config.archive import ArchiveConfig
from flows.run.custom_model import absolute, imported_with_facts, move_bundle, workplace
from flows.run.model import Model, load_model
from flows.worker.model import local_bundle
from unet_core.bundles.card import CARD_NAME, bundle_digest
from unet_core.errors import BundleError


def archive_model(config: ArchiveConfig) -> tuple[Model, str]:
    """The model that every slide is segmented with, and how their runs refer to it.

    Raises:
        BundleError: the model can't be read, trusted or described, or isn't the one that the archive began with.
        FootprintError: a network without finite bounds, and no leave to run it approximately.
    """
    origin = config.origin()
    origin.expect_trust()
    reference = absolute(config.model) if origin.kind == "bundle" else _own_bundle(config)
    return load_model(config.of_slide(Path("image"), Path("run"), reference, {})), reference


def _own_bundle(config: ArchiveConfig) -> str:
    """Make the network a bundle beside the archive's runs, so that they need the user's file and code no more."""
    imported, facts = imported_with_facts(config)
    folder = config.out.resolve() / "model"
    with workplace(config.out) as new:
        imported.save(new, facts)
        if not (folder / CARD_NAME).is_file():
            move_bundle(new, folder)
            return str(folder)
        found = bundle_digest(new)
    with local_bundle(str(folder)) as kept:
        if bundle_digest(kept) != found:
            raise BundleError(
                f"model {config.model!r} is not the one that {config.out} began with (digest {found[:12]}): two models "
                f"would share one archive; restore it, or choose another --out"
            )
    return str(folder)
