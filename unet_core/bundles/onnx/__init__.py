"""ONNX graphs: networks as data, translated operation by operation into a program that bounds inference walks."""

from __future__ import annotations

from unet_core.bundles.onnx.file import read_model
from unet_core.bundles.onnx.spatial import OPEN_ONNX
from unet_core.bundles.onnx.translate import OnnxNetwork, read_onnx

__all__ = ["OPEN_ONNX", "OnnxNetwork", "read_model", "read_onnx"]
