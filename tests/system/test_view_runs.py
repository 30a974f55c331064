"""Runs over views: the labels are those of one pass over the viewed pixels, and the card holds the view."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cli import tissue
from oracle import segment_here, whole_image_labels

from flows.config.run import SegmentConfig
from flows.errors import FlowError
from flows.run.preflight import check
from flows.run.prepare import prepare
from flows.worker.tuning import tune
from tiling.errors import PlanError, RunError
from tiling.runs.card import RunCard
from tiling.runs.ledger import TileState
from tiling.runs.placement import placement_of
from tiling.runs.run import Run
from tiling.view import View
from unet_core.bundles.bundle import Bundle, load_bundle, save_bundle


@pytest.fixture(scope="module")
def sized(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Bundle]:
    """The nuclei model with a pixel size of 0.5 µm in its card."""
    folder = tmp_path_factory.mktemp("models") / "sized"
    bundle = load_bundle("nuclei-small")
    save_bundle(folder, bundle.card.model_copy(update={"name": "sized", "pixel_size_um": 0.5}), bundle.module)
    return str(folder), bundle


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tissue of 0.35 µm/px."""
    path = tmp_path_factory.mktemp("slide") / "slide.tif"
    per_cm = (10_000 / 0.35, 10_000 / 0.35)
    tifffile.imwrite(
        path, tissue(500, 640), photometric="rgb", tile=(128, 128), resolution=per_cm, resolutionunit=3, metadata=None
    )
    return path


def labels_of(run: Run) -> np.ndarray[Any, Any]:
    return run.open_mask(read_only=True).read(run.plan.mask)


def viewed(run: Run) -> np.ndarray[Any, Any]:
    with run.open_source() as source:
        level = source.levels[run.card.image.level]
        return source.read(level.index, level.box)


def test_a_slide_is_resampled_to_the_models_pixels(slide: Path, sized: tuple[str, Bundle], tmp_path: Path) -> None:
    model, bundle = sized
    run = segment_here(slide, tmp_path / "run", 128, model=model)
    image = run.card.image
    assert image.view is not None
    assert image.view.step == pytest.approx((0.5 / 0.35, 0.5 / 0.35), rel=1e-4)
    assert image.extent == (350, 448)
    assert image.pixel_size == (pytest.approx(0.5), pytest.approx(0.5), "um")
    assert "resampled from level 0" in run.card.notes["pixels"]
    expected = whole_image_labels(bundle, viewed(run))
    assert expected.any()
    with run.open_source() as source:
        assert placement_of(run, source).to_image == image.view.affine
    np.testing.assert_array_equal(labels_of(run), expected)


def test_a_region_and_its_polygons_are_all_that_is_computed(slide: Path, tmp_path: Path) -> None:
    ring = [[100, 60], [600, 60], [100, 400], [100, 60]]
    polygons = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    (tmp_path / "roi.geojson").write_text(json.dumps(polygons))
    config = SegmentConfig(
        image=slide, out=tmp_path / "run", core=64, foreground="none", region=str(tmp_path / "roi.geojson")
    )
    run = prepare(config, 1, partial(tune, device="cpu"))
    assert run.card.image.view is not None
    assert run.card.image.view.region == (60, 100, 400, 600)
    assert run.plan.extent == (340, 500)
    skipped = {run.plan.tile(int(index)).name for index in run.ledger.fold().indices(TileState.SKIPPED)}
    assert "0,0" not in skipped
    assert "2,2" not in skipped  # inside, where no edge runs
    assert "5,7" in skipped
    assert len(skipped) == sum(beyond(row, col) for row in range(6) for col in range(8))
    assert prepare(config, 1, partial(tune, device="cpu")).card == run.card


def beyond(row: int, col: int) -> bool:
    """Whether a tile's nearest corner is beyond the long side from (500, 0) to (0, 340) of the region."""
    return 64 * col / 500 + 64 * row / 340 > 1


def test_resuming_with_another_view_is_refused(slide: Path, tmp_path: Path) -> None:
    def planned(**options: Any) -> Run:
        config = SegmentConfig.model_validate(
            {"image": slide, "out": tmp_path / "run", "core": 64, "foreground": "none", **options}
        )
        return prepare(config, 1, partial(tune, device="cpu"))

    planned(region="0,0,200,200")
    assert planned(region="0,0,200,200").plan.extent == (200, 200)
    with pytest.raises(
        RunError, match=r"view: level 0; region \[0:200, 0:200\] here, level 0; region \[0:200, 0:201\]"
    ):
        planned(region="0,0,200,201")
    with pytest.raises(RunError, match=r"view: .* here, None asked for"):
        planned()


def test_deep_values_become_the_models_in_every_tile(sized: tuple[str, Bundle], tmp_path: Path) -> None:
    pixels = tissue(300, 260).astype(np.uint16) * 16 + 100
    tifffile.imwrite(tmp_path / "deep.tif", pixels, photometric="rgb", tile=(64, 64), metadata=None)
    refused = SegmentConfig(image=tmp_path / "deep.tif", out=tmp_path / "refused")
    with pytest.raises(FlowError, match="give --normalise LOW,HIGH or --normalise percentiles:1,99"):
        check(refused)
    run = segment_here(tmp_path / "deep.tif", tmp_path / "run", 128, normalise="100,4180")
    assert (run.card.image.dtype, viewed(run).dtype) == ("uint8", np.uint8)
    np.testing.assert_array_equal(viewed(run), tissue(300, 260))
    np.testing.assert_array_equal(labels_of(run), whole_image_labels(sized[1], tissue(300, 260)))
    measured = check(refused.model_copy(update={"normalise": "percentiles:0,100"})).notes
    assert "of a size that the image doesn't say" in measured.pop("pixels")
    assert measured == {}


def test_bands_must_be_chosen_where_they_are_not_the_models(tmp_path: Path) -> None:
    pixels = np.dstack([tissue(130, 140), tissue(130, 140)[..., :2]])
    tifffile.imwrite(tmp_path / "five.tif", pixels, photometric="minisblack", planarconfig="contig", metadata=None)
    config = SegmentConfig(image=tmp_path / "five.tif", out=tmp_path / "run", core=64, foreground="none")
    with pytest.raises(FlowError, match=r"choose with --bands, for example --bands 1,2,3"):
        check(config)
    run = prepare(config.model_copy(update={"bands": "3,2,1"}), 1, partial(tune, device="cpu"))
    assert run.card.image.bands == ("3", "2", "1")
    np.testing.assert_array_equal(viewed(run), pixels[..., [2, 1, 0]])


def test_an_implausible_slide_is_refused_before_anything_starts(sized: tuple[str, Bundle], tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "unknown.tif", tissue(130, 140), photometric="rgb", metadata=None)
    config = SegmentConfig(image=tmp_path / "unknown.tif", out=tmp_path / "run", model=sized[0])
    with pytest.raises(PlanError, match="doesn't say what its pixels measure"):
        check(config)
    assert not (tmp_path / "run").exists()
    notes = check(config.model_copy(update={"as_is": True})).notes
    assert "as they are, as asked" in notes["pixels"]
    with pytest.raises(PlanError, match="--mpp and --gsd are one pixel size"):
        check(config.model_copy(update={"mpp": 0.5, "gsd": 0.1}))


def test_cards_without_a_view_stay_readable(slide: Path, tmp_path: Path) -> None:
    config = SegmentConfig(image=slide, out=tmp_path / "run", core=64, foreground="none")
    run = prepare(config, 1, partial(tune, device="cpu"))
    assert run.card.image.view is None
    older = json.loads((tmp_path / "run" / "run.json").read_text())
    del older["image"]["view"]
    assert RunCard.model_validate(older) == run.card
    kept = run.card.model_copy(update={"image": run.card.image.model_copy(update={"view": View(z=3)})})
    assert RunCard.model_validate_json(kept.model_dump_json()) == kept
