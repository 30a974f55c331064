"""Pictures of a run that a person looks at first: the mask over the image, close-ups, and which tiles were skipped."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from flows.reporting.report import encoded_pictures
from flows.run.changed_image import drawn_of_one_image
from tiling.export.close_ups import write_close_ups
from tiling.export.overlay import write_overlay
from tiling.export.verification import FOREGROUND, OVERLAY, announce_drawn, is_as_drawn, seals_of
from tiling.runs.ledger import LedgerState, TileState
from tiling.runs.mask_digest import mask_digest
from tiling.runs.run import Run
from tiling.selection.foreground import draw_skipped
from tiling.source import ImageSource
from tiling.sources.downsample import ScreenView
from tiling.storage.picture import small_url
from tiling.storage.place import place_of
from tiling.storage.task_map import TaskMap

SMALL_PX = 720

SeenLater = Callable[[], ScreenView | None]
"""Waits for an image at screen size; gives None where that could not be seen."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Pictures that are drawn.

    Attributes:
        seals: facts of the checksum of each, by its file.
        encoded: each as the report shows it, by its place.
        small: the first one inside an address of its own, for pages that can't reach where it lies; None where no such
            page shows it.
    """

    seals: Mapping[str, Any]
    encoded: Mapping[str, str | None]
    small: str | None


def seen(path: str) -> ScreenView:
    """A run's image at screen size, with which pictures of its mask begin: it can be had before there is a mask.

    Raises:
        ImageChangedError: the image isn't the run's any more.
    """
    run = Run.open(place_of(path))
    with run.open_verified() as steady:
        view = ScreenView.of(steady.source, run.card.image.level, run.plan.extent)
        steady.expect_same()
    return view


def draw(
    run: Run, source: ImageSource, state: LedgerState, view: ScreenView | None = None, *, small: bool = False
) -> Drawn:
    """Draw a finished mask over its image, which is open as it was segmented; `view` is what was seen of it before."""
    failed = [run.plan.tile(index) for index in state.failed]
    view = view or ScreenView.of(source, run.card.image.level, run.plan.extent)
    overlay = write_overlay(run, source, failed, view)
    close_ups = write_close_ups(run, source, state, view)
    if not is_as_drawn(run, state, FOREGROUND):
        skipped = [run.plan.tile(int(index)).core for index in state.indices(TileState.SKIPPED)]
        if run.squares is not None:
            skipped = [*run.squares.left_out(), *(each for each in skipped if run.squares.meet(each))]
        draw_skipped(view, run.plan, skipped, run.skipped_path)
    shown = {str(run.overlay_path): overlay, **{str(run.path / name): picture for name, picture in close_ups.items()}}
    return Drawn(
        seals=seals_of(run, OVERLAY, FOREGROUND, *close_ups),
        encoded=encoded_pictures(run, shown),
        small=small_url(overlay, SMALL_PX) if small else None,
    )


@dataclass(frozen=True, slots=True)
class Drawing:
    """Draws the pictures of a run in whatever process, given the run's folded ledger.

    Attributes:
        run: its place.
        view: of its image at screen size, where that was seen before.
        small: whether a small one is drawn too.
    """

    run: str
    view: ScreenView | None = None
    small: bool = False

    def __call__(self, state: LedgerState) -> Drawn:
        """Open run and image, and draw.

        Raises:
            ImageChangedError: the image isn't the run's any more.
        """
        run = Run.open(place_of(self.run))
        with run.open_verified() as steady:
            drawn = draw(run, steady.source, state, self.view, small=self.small)
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
def drawing(
    run: Run,
    state: LedgerState,
    tasks: TaskMap | None = None,
    view: SeenLater | None = None,
    *,
    small: bool = False,
) -> Generator[Pictures | None]:
    """Draw what a person looks at first, the mask over the image and which tiles were skipped, beside all else.

    Nothing is drawn of a mask with damaged tiles, whose bytes nobody vouches for. It is done in a task of another
    process, or in a thread of this one, and is recorded at the end, whatever fails meanwhile. `view` gives the image at
    screen size, where that was begun before; `small` asks for a small picture for Prefect's pages.
    """
    if state.damaged:
        yield None
        return
    digest = mask_digest(run, state)
    as_it_is = replace(state, events=[*state.events])  # what is done meanwhile goes on adding to it
    with drawn_of_one_image(run) as source, ThreadPoolExecutor(1, "overtile-pictures") as beside:
        drawn = beside.submit(_drawn, run, source, as_it_is, tasks, view, small=small)
        try:
            yield Pictures(source, drawn)
        finally:
            announce_drawn(run, digest, drawn.result().seals)


def _drawn(
    run: Run,
    source: ImageSource,
    state: LedgerState,
    tasks: TaskMap | None,
    view: SeenLater | None,
    *,
    small: bool,
) -> Drawn:
    before = None if view is None else view()
    if tasks is None:
        return draw(run, source, state, before, small=small)
    return next(iter(tasks(Drawing(str(run.path), before, small), [state])))
