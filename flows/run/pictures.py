"""Pictures of a run that a person looks at first: the mask over the image, close-ups, and which tiles were skipped."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from flows.reporting.report import encoded_pictures
from flows.run.changed_image import drawn_of_one_image
from tiling.export.close_ups import write_close_ups
from tiling.export.export_task import TaskMap
from tiling.export.overlay import write_overlay
from tiling.export.verification import FOREGROUND, OVERLAY, announce_drawn, is_as_drawn, seals_of
from tiling.runs.ledger import LedgerState, TileState
from tiling.runs.mask_digest import mask_digest
from tiling.runs.run import Run
from tiling.selection.foreground import draw_skipped
from tiling.source import ImageSource
from tiling.sources.downsample import ScreenView
from tiling.storage.place import place_of


@dataclass(frozen=True, slots=True)
class Drawn:
    """Pictures that are drawn.

    Attributes:
        seals: facts of the checksum of each, by its file.
        encoded: each as the report shows it, by its place.
    """

    seals: Mapping[str, Any]
    encoded: Mapping[str, str | None]


def draw(run: Run, source: ImageSource, state: LedgerState) -> Drawn:
    """Draw a finished mask over its image, which is open as it was segmented."""
    failed = [run.plan.tile(index) for index in state.failed]
    view = ScreenView.of(source, run.card.image.level, run.plan.extent)
    write_overlay(run, source, failed, view)
    close_ups = write_close_ups(run, source, state, view)
    if not is_as_drawn(run, state, FOREGROUND):
        skipped = [run.plan.tile(int(index)) for index in state.indices(TileState.SKIPPED)]
        draw_skipped(view, run.plan, skipped, run.skipped_path)
    return Drawn(seals_of(run, OVERLAY, FOREGROUND, *close_ups), encoded_pictures(run))


@dataclass(frozen=True, slots=True)
class Drawing:
    """Draws the pictures of a run in whatever process, given the run's folded ledger."""

    run: str

    def __call__(self, state: LedgerState) -> Drawn:
        """Open run and image, and draw.

        Raises:
            ImageChangedError: the image isn't the run's any more.
        """
        run = Run.open(place_of(self.run))
        with run.open_verified() as steady:
            drawn = draw(run, steady.source, state)
            steady.expect_same()
        return drawn


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures that are being drawn.

    Attributes:
        source: the image as it was segmented, open.
        drawn: comes when they are drawn.
    """

    source: ImageSource
    drawn: Future[Drawn]


@contextmanager
def drawing(run: Run, state: LedgerState, tasks: TaskMap | None = None) -> Generator[Pictures | None]:
    """Draw what a person looks at first, the mask over the image and which tiles were skipped, beside all else.

    Nothing is drawn of a mask with damaged tiles, whose bytes nobody vouches for. It is done in a task of another
    process, or in a thread of this one, and is recorded at the end, whatever fails meanwhile.
    """
    if state.damaged:
        yield None
        return
    digest = mask_digest(run, state)
    seen = replace(state, events=[*state.events])  # what is done meanwhile goes on adding to it
    with drawn_of_one_image(run) as source, ThreadPoolExecutor(1, "overtile-pictures") as beside:
        drawn = beside.submit(_drawn, run, source, seen, tasks)
        try:
            yield Pictures(source, drawn)
        finally:
            announce_drawn(run, digest, drawn.result().seals)


def _drawn(run: Run, source: ImageSource, state: LedgerState, tasks: TaskMap | None) -> Drawn:
    if tasks is None:
        return draw(run, source, state)
    return next(iter(tasks(Drawing(str(run.path)), [state])))
