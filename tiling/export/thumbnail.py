"""`thumbnail.png`: the image at screen size as it was segmented, without the mask, for a look beside `overlay.png`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tiling.export.finished import Finished
from tiling.sources.downsample import ScreenView
from tiling.storage.picture import write_png


def write_thumbnail(finished: Finished, paths: Sequence[Path]) -> None:
    """As many pixels as the overlay has, each the mean of those under it."""
    run = finished.run
    view = ScreenView.of(finished.source, run.card.image.level, run.plan.extent, threads=finished.threads)
    write_png(paths[0], Image.fromarray(view.picture))
