"""`probabilities.ome.tif` and `probabilities.tif`: what the labels were decided from, in 8 bits, where it was kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tiling.export.finished import Finished
from tiling.export.subject import Subject


def expect_probabilities(subject: Subject) -> None:
    """Raise ExportError for a run that was segmented without them."""
    subject.expect_probabilities()


def expect_probabilities_on_map(subject: Subject) -> None:
    """The same, and for an image that says nothing of where it lies."""
    from tiling.export.cog import expect_cog

    subject.expect_probabilities()
    expect_cog(subject)


def write_ome_tiff(finished: Finished, paths: Sequence[Path]) -> None:
    """One channel per class."""
    from tiling.export.ome_tiff import write_probabilities_ome_tiff

    write_probabilities_ome_tiff(finished, paths)


def write_cog(finished: Finished, paths: Sequence[Path]) -> None:
    """One band per class."""
    from tiling.export.cog import write_probabilities_cog

    write_probabilities_cog(finished, paths)
