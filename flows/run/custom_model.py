"""A network of the user's own, for one run: made into a bundle inside the run folder, and found there again."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from flows.config.run import ModelOptions, SegmentConfig
from flows.worker.model import INSIDE, local_bundle
from tiling.runs.run import Run
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place, delete_tree, write_atomic
from unet_core.bundles.card import CARD_NAME, bundle_digest, is_shipped
from unet_core.bundles.facts import CardFacts, read_facts
from unet_core.bundles.importing import Imported, import_model
from unet_core.bundles.origin import Origin
from unet_core.errors import BundleError


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
    bundle = place_bundle(config, *imported_with_facts(config))
    return config.model_copy(update={"model": str(bundle), "card": None, "weights": None})


def imported_with_facts(config: ModelOptions) -> tuple[Imported, CardFacts]:
    """The network that was named, and the facts that were given of it.

    Raises:
        BundleError: the model can't be read or trusted, or has a card of its own beside the one that was given.
    """
    facts = read_facts(config.card) if config.card else CardFacts()
    imported = import_model(config.origin(), len(facts.bands) if facts.bands else None)
    if imported.its_card is not None:
        imported.origin.expect_no_card()
    return imported, facts


def place_bundle(config: SegmentConfig, imported: Imported, facts: CardFacts) -> Place:
    """Write a network into the run folder as a bundle, or hold it against the one that is there; returns its place.

    Raises:
        BundleError: facts are missing or don't fit, or it isn't the network that the run began with.
    """
    folder = config.out / "model"
    with workplace(config.out) as new:
        imported.save(new, facts)
        if (config.out / "run.json").is_file():
            _expect_same(config, folder, new)
        else:
            move_bundle(new, folder)
    return folder


@contextmanager
def as_bundle(model: str) -> Generator[str]:
    """Any model as a bundle on this machine, to look at: itself where it is one, else what a run would make of it.

    Raises:
        BundleError: it can't be read or trusted, or doesn't say what its pixels and labels mean.
    """
    if "://" in model or (origin := Origin(model)).kind == "bundle":
        with local_bundle(model) as folder:
            yield folder
        return
    imported = import_model(origin)
    with TemporaryDirectory(prefix="overtile-model-") as folder:
        imported.save(Path(folder), CardFacts())
        yield folder


@contextmanager
def workplace(out: Place) -> Generator[Path]:
    """Folder in which the bundle is made: beside its place, or on this machine for a run in an object store."""
    if isinstance(out, ObjectPath):
        with TemporaryDirectory(prefix="overtile-model-") as folder:
            yield Path(folder) / "model.new"
        return
    new = out / "model.new"
    delete_tree(new)  # also a link, through which a model would be written elsewhere
    try:
        yield new
    finally:
        delete_tree(new)


def move_bundle(new: Path, folder: Place) -> None:
    delete_tree(folder)
    if isinstance(folder, Path):
        new.rename(folder)
        return
    # The card comes last: a folder with it holds the whole bundle.
    for file in sorted(new.iterdir(), key=lambda each: each.name == CARD_NAME):
        write_atomic(folder / file.name, file.read_bytes())


def _expect_same(config: SegmentConfig, folder: Place, new: Path) -> None:
    """Hold the model as it is now against the run's own."""
    known, found = Run.open(config.out).card.model.digest, bundle_digest(new)
    if known != found:
        raise BundleError(
            f"model {config.model!r} is not the one that {config.out} began with (digest {found[:12]}, not "
            f"{known[:12]}): two models would share one mask; restore it, or choose another --out"
        )
    with local_bundle(str(folder)) as kept:
        if bundle_digest(kept) != known:
            raise BundleError(f"model {str(folder)!r} was changed since the run began; restore it from a backup")


def reference_of(config: SegmentConfig) -> str:
    """The model's reference in the run's card: a shipped name, an absolute path, or its place inside the run folder."""
    if isinstance(config.out, ObjectPath):
        return f"{INSIDE}model" if config.model == str(config.out / "model") else absolute(config.model)
    model = Path(config.model)
    if model.is_dir() and model.resolve().parent == config.out.resolve():
        return f"{INSIDE}{model.name}"
    return absolute(config.model)


def absolute(model: str) -> str:
    """Absolute path of a folder or a file, so that the model is found from anywhere; any other name as it is."""
    return str(Path(model).resolve()) if not is_shipped(model) and Path(model).exists() else model
