"""Flags of slides: each is raised by what it names and by nothing else; measures of real images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cli import tissue
from finished import finished_run, numbered
from numpy.typing import NDArray
from scipy import ndimage

from tiling.archives.flags import Peers, Usual, flags_by_slide, flags_of
from tiling.archives.measures import measured, sharpness, speck_counts
from tiling.archives.slide_record import SlideRecord, SlideState
from tiling.export.export_run import export_run
from tiling.objects.spec import ObjectSpec

GOOD: dict[str, Any] = {
    "brightness": 0.7,
    "contrast": 0.15,
    "sharpness": 0.2,
    "missing": 0.0,
    "no_data": 0.0,
    "skipped": 0.5,
    "objects": 1000,
    "tissue_area": 10.0,
    "unit": "mm2",
    "specks": 0.1,
    "scale": 1.0,
    "wanted_um": 0.5,
}


def slide(name: str, **measures: object) -> SlideRecord:
    return SlideRecord(name, SlideState.DONE, f"slides/{name}", measures={**GOOD, **measures})


@pytest.mark.parametrize(
    ("measures", "flags"),
    [
        ({}, ()),
        ({"objects": 0}, ("no object",)),
        ({"brightness": 0.01, "contrast": 0.0, "sharpness": None, "objects": 0}, ("black",)),
        ({"brightness": 0.97, "contrast": 0.01, "sharpness": None, "objects": 0}, ("blank",)),
        ({"brightness": 0.5, "contrast": 0.0, "sharpness": None}, ("blank",)),
        ({"brightness": 0.02, "contrast": 0.1}, ()),
        ({"sharpness": 0.001}, ("out of focus",)),
        ({"scale": 2.0}, ("pixel size 2 times the model's",)),
        ({"scale": 0.5}, ("pixel size 0.5 times the model's",)),
        ({"scale": 1.1}, ()),
        ({"scale": None}, ("pixel size unknown",)),
        ({"scale": None, "wanted_um": None}, ()),
        ({"missing": 0.2}, ("20% of its tiles failed",)),
        ({"missing": 0.05}, ()),
        ({"missing": 0.999}, ("99.9% of its tiles failed",)),
        ({"no_data": 0.3}, ()),
        ({"no_data": 0.3, "damaged": 4}, ("30% holds no data, and parts of the file don't decode",)),
        ({"no_data": 0.05, "damaged": 4}, ()),
        ({"skipped": 0.97}, ()),
        ({"specks": 0.8}, ("most objects are specks",)),
        ({"specks": None}, ()),
        ({"objects": 0, "scale": None, "missing": 0.5}, ("no object", "pixel size unknown", "50% of its tiles failed")),
    ],
)
def test_each_flag_is_raised_by_what_it_names(measures: dict[str, object], flags: tuple[str, ...]) -> None:
    assert flags_of(slide("a.svs", **measures), Peers()) == flags


def test_counts_far_from_the_archives_others_are_flagged_however_large_the_slides_are() -> None:
    others = [slide(f"{n}.svs", objects=900 + 30 * n, tissue_area=9.0 + 0.3 * n) for n in range(9)]
    few, many = slide("few.svs", objects=3), slide("many.svs", objects=90_000)
    small = slide("small.svs", objects=10, tissue_area=0.1)
    assert flags_by_slide([*others, few, many, small]) == {
        "few.svs": ("far fewer objects than the others",),
        "many.svs": ("far more objects than the others",),
    }
    assert flags_by_slide([*others[:5], few]) == {}, "six slides don't say what is usual"


def test_slides_that_are_all_alike_make_no_small_difference_a_far_one() -> None:
    alike = Peers.of([slide("a", objects=1000).measures] * 20)
    assert abs(alike.density_score(slide("b", objects=1050).measures)) < 3.5
    assert Usual.of([1.0] * 7, 0.1) is None, "seven slides don't say what is usual"


def test_slides_without_a_pixel_size_are_held_against_their_like_alone() -> None:
    """Objects of the same tissue: 4,000 per mm² of half-micrometre pixels are 1,000 per million pixels."""
    sized = [slide(f"{n}.svs", objects=3900 + 30 * n, tissue_area=1.0) for n in range(9)]
    unsized = [slide(f"{n}.png", objects=975 + 7 * n, tissue_area=1e6, unit="px") for n in range(9)]
    assert flags_by_slide([*sized, unsized[0]]) == {}, "one slide of its unit has no peers"
    few = slide("few.png", objects=3, tissue_area=1e6, unit="px")
    assert flags_by_slide([*sized, *unsized, few]) == {"few.png": ("far fewer objects than the others",)}


BIOPSIES = [0.55, 0.6, 0.62, 0.7, 0.75, 0.8, 0.85, 0.9, 0.94]


@pytest.mark.parametrize(
    ("usual", "share", "flags"),
    [
        (BIOPSIES, 0.999, ("99.9% of its tiles skipped, far more than of the others",)),
        (BIOPSIES, 1.0, ("100% of its tiles skipped, far more than of the others",)),
        (BIOPSIES, 0.97, ()),
        (BIOPSIES, 0.0, ()),
        ([0.0] * 9, 0.05, ()),
        ([0.0] * 9, 0.5, ()),
        ([0.0] * 9, 0.8, ("80% of its tiles skipped, far more than of the others",)),
        ([0.0] * 5, 0.8, ()),
    ],
)
def test_background_is_flagged_only_where_far_more_is_skipped_than_of_the_others(
    usual: list[float], share: float, flags: tuple[str, ...]
) -> None:
    others = [slide(f"{n}.svs", skipped=each) for n, each in enumerate(usual)]
    expected = {"it.svs": flags} if flags else {}
    assert flags_by_slide([*others, slide("it.svs", skipped=share)]) == expected


def test_collars_without_data_are_flagged_only_where_they_are_far_larger_than_the_others() -> None:
    scenes = [slide(f"{n}.tif", no_data=0.3 + 0.02 * n) for n in range(9)]
    assert flags_by_slide(scenes) == {}
    assert flags_by_slide([*scenes, slide("it.tif", no_data=0.9)]) == {
        "it.tif": ("90% holds no data, far more than of the others",)
    }
    whole = [slide(f"{n}.tif") for n in range(9)]
    assert flags_by_slide([*whole, slide("it.tif", no_data=0.08)]) == {}
    assert list(flags_by_slide([*whole, slide("it.tif", no_data=0.2)])) == ["it.tif"]


def test_slides_of_other_states_and_of_earlier_versions_have_no_flags() -> None:
    assert flags_of(replace(slide("a", objects=0), state=SlideState.BEGUN), Peers()) == ()
    assert flags_of(SlideRecord("a", SlideState.DONE, "slides/a"), Peers()) == ()


def _blurred(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return ndimage.gaussian_filter(pixels, (4, 4, 0)).astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        (lambda pixels: pixels, None),
        (np.zeros_like, "black"),
        (lambda pixels: np.full_like(pixels, 244), "blank"),
        (_blurred, "out of focus"),
    ],
)
def test_a_real_photograph_and_what_can_be_wrong_with_it(
    tmp_path: Path, change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], flag: str | None
) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", change(tissue(512, 512)), resolution=(20_000, 20_000), resolutionunit="CENTIMETER"
    )
    run = finished_run(tmp_path / "a.tif", tmp_path / "run")
    with run.open_source() as source:
        export_run(run, source, "statistics")
        found = measured(run, source, run.ledger.fold(), 0.5)
    assert found["scale"] == 1.0
    assert found["objects"] > 0
    assert set(found["classes"]) == {"nucleus", "gland & <duct>"}
    flags = flags_of(SlideRecord("a", SlideState.DONE, "slides/a", measures=found), Peers())
    assert ([flag] if flag else []) == [each for each in flags if each in {"black", "blank", "out of focus"}]


def test_brightness_and_contrast_change_no_sharpness() -> None:
    gray = tissue(256, 256).mean(axis=2).astype(np.float32)
    assert sharpness([gray * 0.5 + 20]) == pytest.approx(sharpness([gray]), rel=1e-3)
    assert sharpness([np.full((64, 64), 7, np.float32)]) is None
    assert sharpness([]) is None


def test_specks_are_counted_among_the_objects_that_a_window_holds_whole() -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[0:3, 0:3] = 1  # cut by the border: its size isn't known
    labels[10:12, 10:12] = 1
    labels[20:30, 20:30] = 2
    labels[35, 5] = 255
    assert speck_counts(labels) == (2, 1)


def test_specks_of_numbered_objects_are_those_left_out_and_all_below_an_area(tmp_path: Path) -> None:
    labels = np.zeros((256, 256), np.uint8)
    labels[100:110, 100:110] = 1  # 25 µm²
    labels[50:55, 20:24] = 1  # 5 µm²
    labels[20:23, 20:25] = 2  # 3.75 µm²
    labels[200, 200:203] = 1
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, tissue(256, 256), resolution=(20_000, 20_000), resolutionunit="CENTIMETER")
    run = finished_run(path, tmp_path / "run", labels)

    def specks() -> float:
        with run.open_source() as source:
            return measured(run, source, run.ledger.fold(), 0.5)["specks"]

    numbered(run, ObjectSpec(least_px={1: 4}))
    assert specks() == 0.5  # the one of 3 px that was left out, and that of 15 px
    numbered(run, ObjectSpec(least_px={1: 40}))
    assert specks() == 0.75
