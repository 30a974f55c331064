"""The run folder: one image, one model, one geometry. Its layout is in docs/runs.md."""

from __future__ import annotations

import errno
import re
import tempfile
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tiling.errors import RunError
from tiling.escaping import plain
from tiling.geometry import PixelSize
from tiling.runs.array_image import ARRAY_NAME
from tiling.runs.card import ClassCard, RunCard, read_card
from tiling.runs.ledger import Ledger
from tiling.runs.mask import Mask
from tiling.runs.no_data import extra_bands
from tiling.runs.ome_metadata import LabelClass
from tiling.runs.probabilities import Probabilities
from tiling.runs.pyramid_metadata import PyramidMetadata
from tiling.runs.staging import STAGED_NAME, StagedTiles, remove_staged
from tiling.runs.unchanged_source import VerifiedSource, is_unchanged
from tiling.source import ImageSource, open_source
from tiling.sources.present import Fill
from tiling.storage.file_version import FileVersion
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import PARTIAL, Place, sweep_partials, write_atomic

if TYPE_CHECKING:
    from tiling.selection.outline import Outline
    from tiling.selection.squares import Squares


OUTLINE_NAME = "outline.json"
BEFORE_THE_CARD = ("driver.lock", "model", "model.new", ARRAY_NAME, OUTLINE_NAME)
"""What a run folder may hold before its card is written: the driver's lock, a model and an image of the user's own, and
the polygons of a region."""


_LITTER = re.compile(r"\.DS_Store|\._.*|Thumbs\.db|desktop\.ini|\.nfs[0-9a-fA-F]+|\.directory|lost\+found")
"""What desktops and file systems put into any folder."""


def named(classes: Iterable[ClassCard]) -> list[LabelClass]:
    """The classes as every output names them: by text that each format can hold, XML and SQLite included."""
    return [LabelClass(plain(item.name), item.color) for item in classes]


def _expect_folder_above(path: Path) -> None:
    """Refuse a folder that can't be made, before anything is started that takes longer than to look."""
    above = next(each for each in path.absolute().parents if each.exists())
    if not above.is_dir():
        raise RunError(f"{path} would lie in the file {above}, and a run needs a folder; choose another --out")
    try:  # of /proc, and of a disk that can only be read, permissions say nothing
        Path(tempfile.mkdtemp(prefix=".overtile.", dir=above)).rmdir()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # room may be made until a tile needs some
            return
        raise RunError(
            f"no folder can be made in {above} ({error.strerror}), for {path}; choose another --out"
        ) from error


def _comes_before_the_card(name: str) -> bool:
    if _LITTER.fullmatch(name):
        return True
    if name.startswith("driver.lock."):
        return True  # of a driver that asked for an object store's clock
    partial = name.startswith((".run.json.", f".{OUTLINE_NAME}.")) and name.endswith(PARTIAL)
    return name in BEFORE_THE_CARD or partial


class Run:
    """An opened run folder. Opening reads one small file; arrays open when they are asked for."""

    def __init__(self, path: Place, card: RunCard) -> None:
        self.path = path.resolve()  # workers may stand in another folder
        self.card = card
        self.plan = card.geometry.plan(card.image.extent)
        self.ledger = Ledger(self.path / "ledger", self.plan.count)

    @classmethod
    def create_or_resume(cls, path: Place, card: RunCard, outline: Outline | None = None) -> Run:
        """Make the folder, or resume it when it holds the same run. `outline` is that of the card's view.

        Raises:
            RunError: the folder holds a different run (the differences are named), or something else.
        """
        if (path / "run.json").is_file():
            run = cls.open(path)
            differences = run.card.differences(card)
            if differences:
                raise RunError(
                    f"{path} holds a different run ({'; '.join(differences)}): mixing two runs would mix their labels; "
                    f"choose another --out, or repeat the command that made it"
                )
            run.sweep()
            if outline is not None:
                outline.keep(path / OUTLINE_NAME)
            return run
        cls.expect_room(path)
        sweep_partials(path)
        if outline is not None:
            outline.keep(path / OUTLINE_NAME)
        write_atomic(path / "run.json", (card.model_dump_json(indent=2) + "\n").encode())
        return cls(path, card)

    @staticmethod
    def expect_room(path: Place) -> None:
        """Refuse a folder that holds something else than a run or what comes before it, or that would lie in a file.

        Raises:
            RunError: nothing in it is overwritten.
        """
        if not path.exists():
            if isinstance(path, Path):
                _expect_folder_above(path)
            return
        if (path / "run.json").is_file():
            return
        if not path.is_dir() or any(not _comes_before_the_card(entry.name) for entry in path.iterdir()):
            raise RunError(f"{path} exists and holds no run.json: nothing in it is overwritten; choose another --out")

    @classmethod
    def open(cls, path: Place) -> Run:
        """Open a run that exists.

        Raises:
            RunError: no run there, or its card is damaged.
        """
        return cls(path, read_card(path, "run.json", RunCard, "run"))

    @staticmethod
    def stamp(path: Place) -> FileVersion:
        """Identity of the run in a folder: another value once the folder holds another run.

        Raises:
            RunError: no run is there.
        """
        card = path / "run.json"
        try:
            return (
                FileVersion.of_object(card.facts())
                if isinstance(card, ObjectPath)
                else FileVersion.of_file(card.stat())
            )
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RunError(f"{path} holds no run (no run.json); give the folder that --out named") from error

    def sweep(self) -> None:
        """Remove what a killed driver has left beside the card and the ledger; only for the run's one driver."""
        for folder in (self.path, self.path / "ledger", self.exports, self.close_ups):
            sweep_partials(folder)

    @property
    def pixel_size(self) -> PixelSize | None:
        """Pixel size of the level that is segmented; the mask's own is `pixel_size.on(plan.grid)`."""
        recorded = self.card.image.pixel_size
        if recorded is None:
            return None
        y, x, unit = recorded
        return PixelSize(y, x, unit)  # type: ignore[arg-type]

    @property
    def fill(self) -> Fill | None:
        """Values that the network sees in place of no data; None if all is data, as also for earlier runs."""
        return None if self.card.image.no_data is None else self.card.image.no_data.fill

    @property
    def corner_px(self) -> tuple[float, float]:
        """Corner of what is segmented in the image's own coordinates, in its pixels, y before x: where its region
        does, from where the image lies itself.
        """
        view, (y, x) = self.card.image.view, self.card.image.origin_px or (0, 0)
        top, left = view.region[:2] if view is not None and view.region is not None else (0, 0)
        return top + y, left + x

    @cached_property
    def outline(self) -> Outline | None:
        """The polygons outside of which nothing is labelled, in the mask's pixels; None where the card names none.

        Raises:
            RunError: the run folder has lost them.
        """
        view, scale = self.card.image.view, self.plan.grid.scale
        if view is None or view.outline is None:
            return None
        from tiling.selection.outline import Outline  # geometry's libraries, which few runs need

        pixel_y, pixel_x = view.pixel_px
        kept = Outline.load(self.path / OUTLINE_NAME, view.outline)
        return kept.on(view.corner_px, (pixel_y / float(scale[0]), pixel_x / float(scale[1])))

    @cached_property
    def squares(self) -> Squares | None:
        """The squares outside of which nothing is looked for; None where the card names none."""
        return None if self.card.squares is None else self.card.squares.squares()

    def apart_from_tissue(self, tiles: NDArray[np.int64]) -> int:
        """Number of the pixels of tiles that lie in squares without tissue, and inside of the polygons."""
        squares = self.squares
        if squares is None:
            return 0
        cut: list[int] = tiles[squares.cut_by(self.plan)[tiles]].tolist()
        if self.outline is None:
            return squares.bare_pixels(cut, self.plan)
        found = 0
        for tile in map(self.plan.tile, cut):
            found += int(np.count_nonzero(~squares.inside(tile, self.plan) & self.outline.inside(tile.valid)))
        return found

    def expect_outline(self) -> None:
        """Read the region's polygons, where the card names some.

        Raises:
            RunError: the run folder has lost them.
        """
        self.outline  # noqa: B018 (a cached property: read once, refused where it is lost)

    @cached_property
    def outside(self) -> NDArray[np.int64]:
        """Number of each tile's pixels that lie outside those polygons."""
        if self.outline is None:
            return np.zeros(self.plan.count, np.int64)
        return np.fromiter((self.outline.outside(tile.valid) for tile in self.plan.tiles()), np.int64, self.plan.count)

    @cached_property
    def exports(self) -> Place:
        return self.path / "exports"

    @cached_property
    def close_ups(self) -> Place:
        return self.path / "close-ups"

    @cached_property
    def skipped_path(self) -> Place:
        return self.exports / "foreground.png"

    @cached_property
    def overlay_path(self) -> Place:
        return self.path / "overlay.png"

    @cached_property
    def mask_path(self) -> Place:
        return self.path / "mask.ome.zarr"

    @cached_property
    def objects_path(self) -> Place:
        return self.path / "objects.ome.zarr"

    @cached_property
    def staged_path(self) -> Place:
        return self.path / STAGED_NAME

    @property
    def classes(self) -> list[LabelClass]:
        return named(self.card.model.classes)

    def create_mask(self, on_missing: Callable[[Mask], None] | None = None) -> Mask:
        return Mask.create(self.mask_path, self.plan, self.classes, self.pixel_size, on_missing, self.corner_px)

    @property
    def probabilities_path(self) -> Place:
        return self.path / "probabilities.ome.zarr"

    def create_probabilities(self, on_missing: Callable[[Probabilities], None] | None = None) -> None:
        """Make the probability image where the card asks for one."""
        if self.card.probabilities:
            classes = self._probability_classes
            Probabilities.create(
                self.probabilities_path, self.plan, classes, self.pixel_size, on_missing, self.corner_px
            )

    @property
    def _probability_classes(self) -> list[LabelClass]:
        return named(self.card.probabilities)

    def lost_metadata(self) -> list[str]:
        """Metadata files of the mask and the probabilities that are gone, or place pixels otherwise than planned."""
        return [f"{path.name}/{name}" for path, each in self._metadata.items() for name in each.missing(path)]

    def altered_metadata(self) -> list[str]:
        """Metadata files that differ from the plan in anything but the place of pixels."""
        return [f"{path.name}/{name}" for path, each in self._metadata.items() for name in each.altered(path)]

    @property
    def _metadata(self) -> dict[Place, PyramidMetadata]:
        common = self.plan, self.pixel_size, self.corner_px
        prints = {self.mask_path: Mask.metadata(common[0], self.classes, *common[1:])}
        if self.card.probabilities:
            prints[self.probabilities_path] = Probabilities.metadata(common[0], self._probability_classes, *common[1:])
        return prints

    def open_probabilities(self, *, read_only: bool = False) -> Probabilities | None:
        """The probability image; None where the card asks for none."""
        if not self.card.probabilities:
            return None
        return Probabilities.open(self.probabilities_path, read_only=read_only)

    def open_mask(self, *, read_only: bool = False) -> Mask:
        return Mask.open(self.mask_path, read_only=read_only)

    def create_staged(self, *, keep: bool = False) -> StagedTiles:
        """The staged array; `keep` leaves tiles in it that are done."""
        return StagedTiles.create(self.staged_path, self.plan, self.staged_bands, self.card.image.dtype, keep=keep)

    @property
    def staged_bands(self) -> int:
        """Bands of a staged tile: the image's, and one that says where there is data where only that can."""
        image = self.card.image
        return len(image.bands) + (extra_bands(image.dtype) if self.fill is not None else 0)

    def open_staged(self) -> StagedTiles:
        return StagedTiles.open(self.staged_path)

    def remove_staged(self) -> None:
        remove_staged(self.staged_path)

    def open_source(self) -> ImageSource:
        """The image as it is segmented: the card's view of it, whose level is the card's."""
        return open_source(self.card.image.path, self.card.image.view, self.fill)

    def expect_same_image(self) -> None:
        """Refuse an image that has another content by now; it isn't opened where its files alone tell.

        Raises:
            ImageChangedError, SourceError, OSError, StorageError: as `open_verified` does.
        """
        image = self.card.image
        if not is_unchanged(image.path, image.format, image.fingerprint, image.version):
            self.open_verified().close()

    def open_verified(self) -> VerifiedSource:
        """The image as `open_source` gives it, refused once it is no longer the one that the run began with."""
        image = self.card.image
        return VerifiedSource(image.path, image.view, image.fingerprint, image.version, self.fill)
