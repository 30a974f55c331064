"""Close-ups of a result: which places they show, in which colours, and what goes with a mask that changes."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from drawn import draw_run, labels_of
from PIL import Image

from tiling.export.close_ups import COLORS, PLACES, close_up_paths, contrasting, write_close_ups
from tiling.objects.record import ask_for_objects
from tiling.objects.spec import ObjectSpec
from tiling.runs.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return draw_run(tmp_path / "run", height=1024, width=1280, skipped=((0, 0), (0, 1), (1, 0)))


def drawn(run: Run) -> dict[str, Image.Image]:
    with run.open_source() as source:
        write_close_ups(run, source, run.ledger.fold())
    return {path.stem: Image.open(BytesIO(path.read_bytes())) for _, path in close_up_paths(run) if path.is_file()}


def test_they_are_at_full_resolution_with_outlines_and_the_same_for_the_same_run(run: Run) -> None:
    pictures = drawn(run)
    assert {"densest", "sparsest", "seam", "edge"} <= pictures.keys() <= PLACES.keys()
    with run.open_source() as source:
        image = np.asarray(source.read(0, source.levels[0].box))
    for picture in pictures.values():
        assert picture.size == (256, 256)
        shown = np.asarray(picture)
        windows = np.lib.stride_tricks.sliding_window_view(image, (256, 256, 3))[:, :, 0]
        same = max(
            float((windows[y, x] == shown).all(axis=-1).mean())
            for y in range(0, windows.shape[0], 64)
            for x in range(0, windows.shape[1], 64)
        )
        assert 0.8 < same < 1, "most pixels are the image's own, and the others are outlines"
    again = drawn(run)
    assert all(np.array_equal(np.asarray(pictures[name]), np.asarray(again[name])) for name in pictures)


def test_a_run_with_probabilities_shows_its_least_certain_place(tmp_path: Path) -> None:
    run = draw_run(tmp_path / "drawn", height=1024, width=1280)
    card = run.card.model_copy(update={"probabilities": run.card.model.classes})
    with_them = Run.create_or_resume(tmp_path / "run", card)
    mask = with_them.create_mask()
    with_them.create_probabilities()
    probabilities = with_them.open_probabilities()
    assert probabilities is not None
    for tile in with_them.plan.tiles():
        labels = labels_of(tile.valid.shape, 2)
        mask.write(tile, labels)
        foreground = np.where(labels == 1, 250, 5).astype(np.uint8)
        if (tile.row, tile.col) in {(4, 5), (4, 6), (5, 5), (5, 6)}:
            foreground[:] = 140
        probabilities.write(tile, np.stack([255 - foreground, foreground]))
    mask.build_pyramid()
    probabilities.build_pyramid()
    with with_them.open_source() as source:
        write_close_ups(with_them, source, with_them.ledger.fold())
        image = np.asarray(source.read(0, source.levels[0].box))
    shown = np.asarray(Image.open(BytesIO((with_them.path / "close-ups/uncertain.png").read_bytes())))
    assert (shown == image[512:768, 640:896]).all(axis=-1).mean() > 0.8


def test_outlines_are_those_of_the_objects_that_are_counted(tmp_path: Path) -> None:
    """Two nuclei that touch, each with its border, have an outline each; a border has none, and a speck neither."""
    labels = np.zeros((512, 512), np.uint8)
    labels[200:240, 200:281] = 2
    labels[204:236, 204:238] = labels[204:236, 243:277] = 1
    labels[300:303, 230:233] = 1
    classes = (("background", "#000000"), ("nucleus", "#56b4e9"), ("border", "#e69f00"))
    grey = np.full((512, 512, 3), 128, np.uint8)
    run = draw_run(tmp_path / "run", height=512, width=512, classes=classes, picture=grey, labels=labels)
    ask_for_objects(run, run.ledger.fold(), ObjectSpec(rule="border", border=2, radius_px=8, least_px={1: 20}))
    shown = np.asarray(next(iter(drawn(run).values())))
    outlined = (shown != 128).any(axis=-1)
    assert len(np.unique(shown[outlined], axis=0)) == 1, "one colour, that of nuclei"
    top, left = np.argwhere(outlined).min(axis=0)
    wanted = np.zeros(outlined.shape, np.bool_)
    for x0, x1 in ((0, 41), (41, 81)):
        wanted[top : top + 40, left + x0 : left + x1] = True
        wanted[top + 1 : top + 39, left + x0 + 1 : left + x1 - 1] = False
    assert np.array_equal(outlined, wanted)


def test_of_a_mask_without_anything_nothing_is_shown_and_former_pictures_go(tmp_path: Path) -> None:
    run = draw_run(tmp_path / "run", skipped=tuple((row, col) for row in range(3) for col in range(4)))
    (tmp_path / "run/close-ups").mkdir()
    (tmp_path / "run/close-ups/densest.png").write_bytes(b"of an earlier mask")
    assert drawn(run) == {}


@pytest.mark.parametrize("stain", [(150, 90, 40), (230, 180, 210), (20, 20, 20), (250, 250, 250), (0, 220, 240)])
def test_outlines_stand_out_from_the_picture_and_from_one_another(stain: tuple[int, int, int]) -> None:
    picture = np.full((64, 64, 3), stain, np.uint8)
    first, second = contrasting(picture, 2)
    assert first != second
    assert {first, second} < set(COLORS)
    rgb = np.array([int(first[i : i + 2], 16) for i in (1, 3, 5)])
    assert np.linalg.norm(rgb - np.array(stain)) > 150
