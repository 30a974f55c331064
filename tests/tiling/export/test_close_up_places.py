"""Places of close-ups: each shows something that a person can judge, and no two show the same."""

from __future__ import annotations

from io import BytesIO
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import tifffile
from cli import tissue
from drawn import draw_run
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from tiling.export.close_up_places import SIDE_PX, Surroundings, ranked_places
from tiling.export.close_ups import COLORS, close_up_paths, write_close_ups
from tiling.runs.ledger import TileState
from tiling.runs.run import Run
from tiling.source import open_source
from tiling.sources.downsample import ScreenView

SIDE = 1024
GLASS = 240
Pixels = NDArray[np.uint8]


def glass(height: int = SIDE, width: int = SIDE) -> Pixels:
    """Glass as a camera shows it: nearly even."""
    return np.random.default_rng(7).integers(GLASS, GLASS + 3, (height, width, 3), np.uint8)


def slide() -> Pixels:
    """Tissue on the left half, glass on the right."""
    picture = glass()
    picture[:, : SIDE // 2] = tissue(SIDE, SIDE // 2)
    return picture


def nuclei() -> Pixels:
    """Many above, few below, none in the middle of the tissue, and specks of dust on the glass."""
    labels = np.zeros((SIDE, SIDE), np.uint8)
    for y in range(20, 340, 40):
        for x in range(20, SIDE // 2, 40):
            labels[y : y + 16, x : x + 16] = 1
    for y in range(SIDE - 300, SIDE - 20, 110):
        for x in range(20, SIDE // 2, 110):
            labels[y : y + 16, x : x + 16] = 1
    labels[100:SIDE:200, SIDE // 2 + 120 : SIDE : 200] = 1
    return labels


def drawn(run: Run, view: ScreenView | None = None) -> dict[str, Pixels]:
    with run.open_source() as source:
        write_close_ups(run, source, run.ledger.fold(), view)
    return {
        path.stem: np.asarray(Image.open(BytesIO(path.read_bytes())))
        for _, path in close_up_paths(run)
        if path.is_file()
    }


def shares_of_tissue(pictures: dict[str, Pixels]) -> dict[str, float]:
    return {name: float((picture.min(axis=-1) < GLASS - 10).mean()) for name, picture in pictures.items()}


def outlined(pictures: dict[str, Pixels]) -> dict[str, int]:
    """Pixels of each close-up in a colour of outlines, which images hardly have."""
    colors = np.array([[int(color[at : at + 2], 16) for at in (1, 3, 5)] for color in COLORS], np.uint8)
    return {
        name: int(sum((picture == color).all(axis=-1).sum() for color in colors)) for name, picture in pictures.items()
    }


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return draw_run(tmp_path / "run", height=SIDE, width=SIDE, picture=slide(), labels=nuclei(), core=256)


def test_each_shows_tissue_with_something_found_and_the_sparsest_no_speck_on_glass(run: Run) -> None:
    pictures = drawn(run)
    assert pictures.keys() == {"densest", "median", "sparsest", "seam", "edge"}
    shares = shares_of_tissue(pictures)
    assert all(share > 0.8 for name, share in shares.items() if name != "edge"), shares
    assert 0.3 < shares["edge"] < 0.7, "one side of it is glass"
    found = outlined(pictures)
    assert found["densest"] > found["sparsest"] >= 60, "the outline of a nucleus, at least"
    assert found["densest"] >= found["median"] >= found["sparsest"]


def test_no_two_show_the_same_place(run: Run) -> None:
    pictures = drawn(run)
    for one, other in combinations(pictures.values(), 2):
        assert (one == other).all(axis=-1).mean() < 0.5


def test_of_a_mask_without_objects_those_show_where_something_may_have_been_missed(tmp_path: Path) -> None:
    nothing = np.zeros((SIDE, SIDE), np.uint8)
    run = draw_run(tmp_path / "run", height=SIDE, width=SIDE, picture=slide(), labels=nothing, core=256)
    pictures = drawn(run)
    assert pictures.keys() == {"nothing", "seam", "edge"}
    shares = shares_of_tissue(pictures)
    assert shares["nothing"] > 0.9
    assert shares["seam"] > 0.9
    assert 0.3 < shares["edge"] < 0.7


def test_glass_without_objects_has_none(tmp_path: Path) -> None:
    nothing = np.zeros((SIDE, SIDE), np.uint8)
    assert drawn(draw_run(tmp_path / "run", height=SIDE, width=SIDE, picture=glass(), labels=nothing, core=256)) == {}


def test_those_of_a_lake_show_its_shore(tmp_path: Path) -> None:
    """Water has no detail and covers most of the picture: its middle would show one colour and no outline."""
    rows, cols = np.indices((SIDE, SIDE))
    water = (rows - 480) ** 2 + (cols - 480) ** 2 < 440**2
    picture = tissue(SIDE, SIDE)
    picture[water] = (20, 40, 60)
    run = draw_run(tmp_path / "run", height=SIDE, width=SIDE, picture=picture, labels=water.astype(np.uint8), core=256)
    pictures = drawn(run)
    assert {"densest", "median", "sparsest", "seam"} <= pictures.keys()
    shares = {name: float((picture == (20, 40, 60)).all(axis=-1).mean()) for name, picture in pictures.items()}
    assert all(share < 0.99 for share in shares.values()), shares
    assert all(count > 30 for count in outlined(pictures).values())
    assert shares["densest"] > shares["sparsest"]


@pytest.mark.parametrize(("height", "width"), [(100, 90), (256, 256), (300, 1400)])
def test_of_an_image_smaller_than_one_its_whole_is_shown_once(tmp_path: Path, height: int, width: int) -> None:
    run = draw_run(tmp_path / "run", height=height, width=width)
    pictures = drawn(run)
    assert "densest" in pictures
    assert all(picture.shape == (min(height, 256), min(width, 256), 3) for picture in pictures.values())
    if max(height, width) <= 256:
        assert len(pictures) == 1


def test_of_a_place_that_does_not_decode_the_next_one_is_shown(run: Run, tmp_path: Path) -> None:
    sound = drawn(run)
    path = tmp_path / "broken.tif"
    tifffile.imwrite(path, slide(), photometric="rgb", tile=(256, 256), compression="zlib")
    with run.open_source() as source:
        view = ScreenView.of(source, 0, run.plan.extent)
        (best, *_) = ranked_places(run, run.ledger.fold(), view, nuclei()[:: view.factor, :: view.factor])["densest"]
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        segment = best[0] // 256 * (SIDE // 256) + best[1] // 256
        offset, size = page.dataoffsets[segment], page.databytecounts[segment]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(size))
    with open_source(path) as source:
        write_close_ups(run, source, run.ledger.fold(), view)
    shown = np.asarray(Image.open(BytesIO((run.close_ups / "densest.png").read_bytes())))
    assert (shown == sound["densest"]).all(axis=-1).mean() < 0.5
    assert shares_of_tissue({"densest": shown})["densest"] > 0.8


def test_the_least_certain_place_is_that_of_probabilities_nearest_to_one_half(run: Run) -> None:
    labels = nuclei()
    doubts = np.zeros(labels.shape, np.uint8)
    doubts[640:700, 300:360] = 230
    doubts[100:130, 60:90] = 254
    doubts[:, SIDE // 2 + 200 :] = 254
    view = ScreenView(slide(), 1)
    state = run.ledger.fold()
    (y, x), *_ = ranked_places(run, state, view, labels, doubts)["uncertain"]
    assert y <= 640, "all of the uncertain square is inside"
    assert y + SIDE_PX >= 700
    assert x <= 300
    assert x + SIDE_PX >= 360
    assert "uncertain" not in ranked_places(run, state, view, labels), "of a run that keeps no probabilities"
    assert not ranked_places(run, state, view, labels, np.zeros_like(doubts))["uncertain"]


@pytest.mark.parametrize(("shape", "side"), [((40, 61), 1), ((40, 61), 8), ((61, 40), 21), ((7, 90), 33), ((1, 1), 4)])
def test_what_surrounds_a_place_is_the_mean_over_a_square_around_it(shape: tuple[int, int], side: int) -> None:
    random = np.random.default_rng(3)
    picture, labels = random.integers(0, 256, (*shape, 3), np.uint8), random.integers(0, 3, shape, np.uint8)
    states = np.full(shape, TileState.DONE, np.uint8)
    around = Surroundings.of(picture, labels, 3, states, side)
    bright = picture.mean(axis=-1)
    down, right = (np.abs(np.diff(bright, axis=axis, append=bright.take([-1], axis))) for axis in (0, 1))
    for found, expected in {"found": labels > 0, "detail": (down + right) / 2}.items():
        mean = ndimage.uniform_filter(expected.astype(np.float64), side, mode="constant")
        np.testing.assert_allclose(getattr(around, found), mean, rtol=1e-5, atol=1e-9)


def test_none_shows_a_tile_that_failed_where_it_would_look_as_if_something_had_been_missed(tmp_path: Path) -> None:
    failed = {(1, 0): "it broke", (2, 1): "it broke"}
    run = draw_run(tmp_path / "run", height=SIDE, width=SIDE, picture=slide(), labels=nuclei(), core=128, failed=failed)
    with run.open_source() as source:
        view = ScreenView.of(source, 0, run.plan.extent)
    labels = run.open_mask(read_only=True).read(run.plan.mask)
    places = ranked_places(run, run.ledger.fold(), view, labels)
    assert {"densest", "sparsest", "seam", "edge"} <= {name for name, corners in places.items() if corners}
    for y, x in (corner for corners in places.values() for corner in corners):
        assert (labels[y : y + SIDE_PX, x : x + SIDE_PX] <= 1).all()
