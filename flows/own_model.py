"""A network of the user's own, for one run: made into a bundle inside the run folder, and found there again."""

from __future__ import annotations

import shutil
from pathlib import Path

from flows.config import SegmentConfig
from tiling.run import Run
from unet_core.card import bundle_digest
from unet_core.errors import BundleError
from unet_core.facts import CardFacts, read_facts
from unet_core.importing import import_model

INSIDE = "./"
"""How the reference of a model inside the run folder begins, so that the folder can be moved."""


def with_bundle(config: SegmentConfig) -> SegmentConfig:
    """The same, with a bundle as its model: anything else becomes one in the run folder, once.

    Workers and reruns need neither the user's file nor their code any more.

    Raises:
        BundleError: the model can't be read, trusted or described, or isn't the one that the run began with.
        RunError: the folder holds something else than a run.
    """
    origin = config.origin()
    origin.expect_trust()
    if origin.kind == "bundle":
        return config
    Run.expect_room(config.out)
    facts = read_facts(config.card) if config.card else CardFacts()
    imported = import_model(origin, len(facts.bands) if facts.bands else None)
    new, folder = config.out / "model.new", config.out / "model"
    shutil.rmtree(new, ignore_errors=True)
    imported.save(new, facts)
    if (config.out / "run.json").is_file():
        _expect_same(config, folder, new)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    return config.model_copy(update={"model": str(folder)})


def _expect_same(config: SegmentConfig, folder: Path, new: Path) -> None:
    """Hold the model as it is now against the run's own."""
    known, found = Run.open(config.out).card.model.digest, bundle_digest(new)
    shutil.rmtree(new)
    if known != found:
        raise BundleError(
            f"model {config.model!r} is not the one that {config.out} began with (digest {found[:12]}, not "
            f"{known[:12]}): two models would share one mask; restore it, or choose another --out"
        )
    if bundle_digest(folder) != known:
        raise BundleError(f"model {str(folder)!r} was changed since the run began; restore it from a backup")


def reference_of(config: SegmentConfig) -> str:
    """What the run's card says: a shipped name, a folder's absolute path, or where it lies inside the run folder."""
    model = Path(config.model)
    if model.is_dir() and model.resolve().parent == config.out.resolve():
        return f"{INSIDE}{model.name}"
    return str(model.resolve()) if model.is_dir() else config.model


def model_of(run: Run) -> str:
    """Where the model of a run is now."""
    reference = run.card.model.reference
    return str(run.path / reference) if reference.startswith(INSIDE) else reference
