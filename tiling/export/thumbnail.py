"""`thumbnail.png`: the image at screen size as it was segmented, without the mask, for a look beside `overlay.png`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tiling.export.finished import Finished
from tiling.sources.downsample import block_mean, screen_factor, to_display
from tiling.storage.picture import write_png


def write_thumbnail(finished: Finished, paths: Sequence[Path]) -> None:
    """As many pixels as the overlay has, each the mean of those under it."""
    source, level = finished.source, finished.run.card.image.level
    factor = screen_factor(source, level, finished.run.plan.extent)
    picture = to_display(block_mean(source, level, factor, threads=finished.threads))
    write_png(paths[0], Image.fromarray(picture))
