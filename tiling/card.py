"""The card of a run: what was asked, of which image, with which model. Written once, compared at resume."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

FORMAT_VERSION = 1


class _Card(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageCard(_Card):
    """The image and the level of it that is segmented."""

    path: str
    fingerprint: str
    format: str
    level: int
    extent: tuple[int, int]
    bands: tuple[str, ...]
    dtype: str
    pixel_size: tuple[float, float, str] | None  # y, x, unit


class ClassCard(_Card):
    """A label's name and colour."""

    name: str
    color: str


class ModelRef(_Card):
    """The model: `digest` covers its weights and all of its card that changes labels."""

    reference: str
    name: str
    digest: str
    classes: tuple[ClassCard, ...]


class GeometryCard(_Card):
    """Boxes of the plan, in level pixels."""

    core_px: int
    stride: tuple[int, int]
    halo: tuple[int, int, int, int]  # top, bottom, left, right
    read: tuple[int, int]
    grid: tuple[int, int]


class MemoryCard(_Card):
    """What the plan said that a worker takes."""

    worker_bytes: int
    workers: int


class RunCard(_Card):
    """`run.json`."""

    format_version: int = FORMAT_VERSION
    created: str
    image: ImageCard
    model: ModelRef
    geometry: GeometryCard
    precision: str
    tta: str
    compiled: bool | None = None  # as asked; None leaves it to the device
    approximate: bool  # a network without finite bounds, whose seams are not exact
    maths_version: int
    foreground: str
    memory: MemoryCard
    versions: dict[str, str]
    notes: dict[str, Any]  # measured facts: how the precision was chosen, the seam error of an approximate halo

    def identity(self) -> dict[str, object]:
        """What makes two runs the same run: everything that can change a label, and nothing else.

        Where the image lies, when the run was made and on how many workers is left out.
        """
        return {
            "image fingerprint": self.image.fingerprint,
            "image level": self.image.level,
            "image extent": self.image.extent,
            "bands": self.image.bands,
            "model": self.model.name,
            "model digest": self.model.digest,
            "core": self.geometry.core_px,
            "stride": self.geometry.stride,
            "halo": self.geometry.halo,
            "precision": self.precision,
            "test-time augmentation": self.tta,
            "compiled": self.compiled,
            "approximate halo": self.approximate,
            "version of the maths": self.maths_version,
            "foreground": self.foreground,
        }

    def differences(self, other: RunCard) -> list[str]:
        """One line per point in which the other card describes a different run."""
        mine, others = self.identity(), other.identity()
        return [f"{key}: {mine[key]} here, {others[key]} asked for" for key in mine if mine[key] != others[key]]
