"""Exported programs: networks as data. A list of ATen calls and named tensors, with no code of anybody's in it."""

from __future__ import annotations

from unet_core.bundles.exported.archive import read_archive
from unet_core.bundles.exported.graph import Program, ProgramStep, TensorKind, module_of, read_program, write_program

__all__ = ["Program", "ProgramStep", "TensorKind", "module_of", "read_archive", "read_program", "write_program"]
