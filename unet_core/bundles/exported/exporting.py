"""A network that is at hand as Python code, turned into a program."""

from __future__ import annotations

import io
import logging
import warnings

import torch
from torch import Tensor, nn
from torch.export import Dim

from unet_core.bundles.exported.archive import read_archive
from unet_core.bundles.exported.graph import Program
from unet_core.bundles.exported.inner import fold_parametrizations
from unet_core.errors import BundleError

_EXAMPLE_BATCH = 2
# Divisible by the strides that occur, and unlike each other, so that neither is taken for the other.
_EXAMPLE_PX = (256, 320)
_FAILURES = (
    RuntimeError,
    TypeError,
    ValueError,
    AttributeError,
    KeyError,
    IndexError,
    AssertionError,
    NotImplementedError,
)


def export(module: nn.Module, bands: int) -> tuple[Program, dict[str, Tensor]]:
    """The program of `module` in evaluation mode on (batch, bands, y, x) float32 tiles, and its tensors.

    Raises BundleError for a network that torch can't export with open height and width.
    """
    module = module.cpu().float().eval()
    fold_parametrizations(module)
    example = torch.zeros(_EXAMPLE_BATCH, bands, *_EXAMPLE_PX)
    open_extents = {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}
    archive = io.BytesIO()
    exporter = logging.getLogger("torch.export")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(module, (example,), dynamic_shapes=(open_extents,))
            torch.export.save(program, archive)
    except _FAILURES as error:
        message = " ".join(str(error).split())[:300]
        raise BundleError(
            f"the network {type(module).__name__} can't be exported by torch ({type(error).__name__}: {message}): "
            f"without its graph its footprint is unknown; let its forward branch on no pixel, and take "
            f"(batch, {bands}, y, x) tiles"
        ) from error
    finally:
        exporter.setLevel(level)
    archive.seek(0)
    return read_archive(archive)
