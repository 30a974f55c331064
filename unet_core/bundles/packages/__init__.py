"""Packages of other projects: a description beside weights, read as data; what it asks for is honoured or refused."""

from __future__ import annotations

from unet_core.bundles.packages.bioimageio import read_bioimageio
from unet_core.bundles.packages.monai import read_monai
from unet_core.bundles.packages.package import Package

__all__ = ["Package", "read_bioimageio", "read_monai"]
