"""A bundle for other programs: a `.pt2` of torch.export with its card's facts as TOML, or a copy of its files."""

from __future__ import annotations

import io
import json
import shutil
import warnings
from pathlib import Path

import torch
from torch.export import Dim

from unet_core.bundles.bundle import load_bundle
from unet_core.bundles.card import locate
from unet_core.bundles.facts import facts_of
from unet_core.errors import BundleError
from unet_core.files import write_whole

_EXAMPLE = (2, 256, 320)


def write_program_file(reference: str, path: Path) -> Path:
    """Write a model's network as a program with open height and width, and its facts beside it; returns their file.

    `overtile segment --model net.pt2 --card net.toml` gives the labels of the model itself.

    Raises:
        BundleError: no such model, or a network that torch can't export.
    """
    bundle = load_bundle(reference)
    batch, height, width = _EXAMPLE
    example = torch.zeros(batch, len(bundle.card.bands), height, width)
    archive = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            open_extents = {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}
            torch.export.save(torch.export.export(bundle.module, (example,), dynamic_shapes=(open_extents,)), archive)
    except (RuntimeError, TypeError, ValueError) as error:
        raise BundleError(
            f"model {reference!r} can't be exported by torch ({' '.join(str(error).split())[:200]}); copy its bundle"
        ) from error
    card = path.with_suffix(".toml")
    if card.exists():
        raise BundleError(f"{card} exists: nothing is overwritten; choose another --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: file.write(archive.getbuffer()))
    facts = facts_of(bundle.card).model_dump(mode="json", exclude_none=True)
    lines = "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in facts.items())
    write_whole(card, lambda file: file.write(lines.encode()))
    return card


def copy_bundle(reference: str, folder: Path) -> list[Path]:
    """Copy a model's bundle into a new folder; returns its files.

    Raises:
        BundleError: no such model, or it is damaged.
    """
    load_bundle(reference)  # what is copied is whole
    source = locate(reference)
    folder.mkdir(parents=True)
    written: list[Path] = []
    for file in sorted(source.iterdir()):
        if file.is_file():
            shutil.copyfile(file, folder / file.name)
            written.append(folder / file.name)
    return written
