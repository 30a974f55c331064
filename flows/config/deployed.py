"""Limits of Prefect's forms: they run no code, and reach no place outside of the archive that is served."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from flows.config.archive import ArchiveConfig
from flows.config.run import RerunConfig, SegmentConfig
from flows.errors import ConfigError
from tiling.storage.place import Place, place_of

TRUSTED_MODEL, SERVED_ARCHIVE = "OVERTILE_TRUSTED_MODEL", "OVERTILE_SERVED_ARCHIVE"
TRUSTED_OBJECTS = "OVERTILE_TRUSTED_OBJECTS"
NOTIFY = "OVERTILE_NOTIFY"
"""Where nights' lines go: the environment's to say, for it may be a command, and may be a secret."""

Deployed = TypeVar("Deployed", SegmentConfig, RerunConfig, ArchiveConfig)


def serve_only(config: ArchiveConfig) -> None:
    """Let what this process starts for Prefect write into that archive alone, and run its own model's code alone."""
    place = config.out
    os.environ[SERVED_ARCHIVE] = str(place.resolve() if isinstance(place, Path) else place)
    os.environ.pop(TRUSTED_MODEL, None)
    os.environ.pop(TRUSTED_OBJECTS, None)
    if config.trust_code:
        os.environ[TRUSTED_MODEL] = config.model
        os.environ[TRUSTED_OBJECTS] = config.objects
    if config.notify is not None:
        os.environ[NOTIFY] = config.notify


def allowed(config: Deployed) -> Deployed:
    """The same, with leave to run a factory's code where the environment of Prefect's process gives it.

    Raises:
        ConfigError: a flow run of Prefect's asks for more than the environment allows.
    """
    if "PREFECT__FLOW_RUN_ID" not in os.environ:
        return config
    root, out = os.environ.get(SERVED_ARCHIVE), config.run if isinstance(config, RerunConfig) else config.out
    if root and not _is_inside(out, place_of(root)):
        raise ConfigError(
            f"{out} is outside of {root}: whoever can fill in the form would write anywhere; give a place inside of "
            f"the archive that is served, or run the command itself"
        )
    into = config.labels_into if isinstance(config, SegmentConfig) else None
    if root and into is not None and not _is_inside(into, place_of(root)):
        raise ConfigError(
            f"labels_into {into} is outside of {root}: whoever can fill in the form would write anywhere; leave it "
            f"out, or run the command itself"
        )
    if isinstance(config, RerunConfig):
        return config
    if isinstance(config, ArchiveConfig) and config.notify is not None:
        raise ConfigError(
            f"notify is not for a form to give: whoever can fill it in would run a command of his own; set {NOTIFY} in "
            f"the environment of the process that Prefect starts flows in"
        )
    is_trusted = config.model == os.environ.get(TRUSTED_MODEL)
    if config.trust_code and not is_trusted:
        raise ConfigError(
            f"trust_code is not for a form to give: whoever can fill it in would run {config.model}'s code; set "
            f"{TRUSTED_MODEL}={config.model} in the environment of the process that Prefect starts flows in"
        )
    if config.objects_are_code and config.objects != os.environ.get(TRUSTED_OBJECTS):
        raise ConfigError(
            f"objects is not for a form to give as code: whoever can fill it in would run {config.objects}; set "
            f"{TRUSTED_OBJECTS}={config.objects} in the environment of the process that Prefect starts flows in"
        )
    # Leave is for both: with a rule that is trusted, a model that isn't must be no code.
    is_trusted |= config.objects_are_code and ":" not in config.model
    return config.model_copy(update={"trust_code": is_trusted})


def _is_inside(place: Place, root: Place) -> bool:
    if isinstance(place, Path) and isinstance(root, Path):
        return place.resolve().is_relative_to(root.resolve())
    parts = str(place).split("/")
    return ".." not in parts and f"{place}/".startswith(f"{str(root).rstrip('/')}/")
