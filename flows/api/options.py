"""Static types of the options of `overtile.segment_image`, for editors and type checkers.

The options themselves, their defaults and what they mean are declared in `flows.config.run`; a test holds the two
against each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from unet_core.bundles.importing import Network

Executor = Literal["auto", "local", "ray"]


class ModelFacts(TypedDict, total=False):
    """Facts that no network has of itself; `classes`, `mean` and `std` are needed. Numbers are in the image's units."""

    name: str
    description: str
    bands: Sequence[str]
    dtype: Literal["uint8", "uint16", "float32"]
    classes: Sequence[str]
    colors: Sequence[str]
    decision: Literal["argmax", "threshold"]
    thresholds: Sequence[float]
    pixel_size_um: float
    mean: Sequence[float]
    std: Sequence[float]
    license: str


class SegmentOptions(TypedDict, total=False):
    """Options of a segmentation, as `overtile segment` takes them."""

    model: str | Path | Network
    card: str | Path | Mapping[str, object] | ModelFacts | None
    weights: str | Path | None
    trust_code: bool
    level: int | None
    mpp: float | None
    gsd: float | None
    image_mpp: float | None
    as_is: bool
    bands: str | Sequence[int | str] | None
    scaled: bool
    crs: str | None
    resampling: str
    z: int
    t: int
    series: str | int | None
    damaged: Literal["fail", "mask"]
    region: str | Path | Sequence[float] | None
    normalise: str | Sequence[float] | None
    core: int | None
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    tta: Literal["none", "flips", "d4"]
    compiled: bool | None
    halo: str
    foreground: str | Path
    workers: int | None
    device: Literal["auto", "cpu", "cuda"]
    ray_address: str | None
    probabilities: bool
    objects: str
    labels_into: str | Path | None
    staging: bool
    keep_staged: bool
    export: str | Sequence[str]
