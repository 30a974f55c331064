"""Networks whose output grid is not the image's own: finer, coarser, or without padding; the whole main job."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from cli import Cli, mask_files, on_disk
from hypothesis import given
from hypothesis import strategies as st
from oracle import Image, Labels, Whole, segment_here, whole_image_labels, whole_image_logits
from PIL import Image as Picture
from tiled import unlike_fresh
from torch import Tensor, nn

from tiling.export.overlay import write_overlay
from tiling.runs.mask import majority
from tiling.runs.run import Run
from tiling.runs.staging import mirrored
from tiling.source import open_source
from unet_core.bounds import footprint
from unet_core.bundles.bundle import Bundle, ModelCard, load_bundle, save_bundle
from unet_core.errors import FootprintError
from unet_core.inference.tta import tta_footprint
from unet_core.models import MODELS, build

MICROSCOPE = (20000.0, 20000.0)  # pixels per centimetre: 0.5 micrometres


class Scores(nn.Module):
    """The scores of a fully convolutional network before they are upsampled: a quarter of the image's grid."""

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(bands, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 8, 3, padding=1)
        self.head = nn.Conv2d(8, classes, 3, padding=1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        for conv in (self.first, self.second):
            x_NCHW = nn.functional.max_pool2d(torch.relu(conv(x_NCHW)), 2)
        return self.head(x_NCHW)


@dataclass(frozen=True, slots=True)
class Case:
    """A network in a small size, and how its paper runs it over a whole image."""

    name: str
    whole: Whole
    options: dict[str, Any] = field(default_factory=dict[str, Any])


FINER = Case("unet_x3", Whole(stride=4, scale=Fraction(3)), {"first_channels": 4, "depth": 2})
# 572 px in, 388 px out: 92 px lost on each side; 96 mirrored px are the next that keep the stride grid.
ORIGINAL = Case("unet_original", Whole(stride=16, rest=12, lost=92, before=96), {"first_channels": 2})
VALID = Case(
    "unet_configurable",
    Whole(stride=4, lost=20, before=20),
    {"first_channels": 4, "depth": 3, "padding": "valid", "up": "bilinear"},
)
# 95 px squares around the pixel that they classify.
DENSE = Case("patch_classifier", Whole(stride=1, lost=47, before=47), {"channels": 4, "hidden": 8})
COARSER = Case("scores", Whole(stride=4, scale=Fraction(1, 4)))
CASES = (FINER, ORIGINAL, VALID, DENSE, COARSER)


@pytest.fixture(autouse=True)
def scores_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "scores", Scores)


@pytest.fixture(scope="module")
def slide_pixels(data_dir: Path) -> Image:
    """Stained tissue of the real slide; its sides are no multiple of anything."""
    with open_source(data_dir / "slides/CMU-1-Small-Region.svs") as source:
        return source.read(0, source.levels[0].box)[1003:1300, 411:648]


def write_slide(path: Path, pixels: Image) -> Path:
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(64, 64), resolution=MICROSCOPE, resolutionunit="CENTIMETER")
    return path


def save_case(folder: Path, case: Case, pixels: Image) -> Bundle:
    """A bundle whose labels on these pixels are of both classes."""
    parameters = {"bands": 3, "classes": 1, **case.options}
    fields = load_bundle("nuclei-small").card.model_dump()
    card = ModelCard.model_validate({**fields, "name": "small", "architecture": case.name, "parameters": parameters})
    module = unlike_fresh(build(case.name, parameters))
    logits = whole_image_logits(Bundle(card, module, ""), pixels, whole=case.whole)
    bias = next(value for name, value in reversed([*module.named_parameters()]) if name.startswith("head"))
    with torch.no_grad():
        bias.sub_(logits.mean())
    save_bundle(folder, card, module)
    return load_bundle(folder)


def whole_mask(run: Run) -> Labels:
    return run.open_mask(read_only=True).read(run.plan.mask)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
@pytest.mark.parametrize(
    ("height", "width", "core"), [(297, 237, 64), (160, 237, 1024), (45, 31, 32)], ids=["tiles", "one", "small"]
)
def test_labels_equal_one_pass_over_the_mirrored_image(
    case: Case, height: int, width: int, core: int, slide_pixels: Image, tmp_path: Path
) -> None:
    pixels = slide_pixels[:height, :width]
    bundle = save_case(tmp_path / "model", case, pixels)
    image = write_slide(tmp_path / "slide.tif", pixels)
    run = segment_here(image, tmp_path / "run", core, model=str(tmp_path / "model"))
    expected = whole_image_labels(bundle, pixels, case.whole)
    assert 0.05 < expected.mean() < 0.95, "a mask of one class would pass every comparison"
    np.testing.assert_array_equal(whole_mask(run), expected)


@pytest.fixture(scope="module")
def finer_run(cli: Cli, slide_pixels: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the finer network, as a person runs it."""
    folder = tmp_path_factory.mktemp("finer")
    save_case(folder / "model", FINER, slide_pixels)
    image = write_slide(folder / "slide.tif", slide_pixels)
    command = ("segment", image, "--model", folder / "model", "--core", 64, "--foreground", "none")
    ended = cli.run(*command, "--out", folder / "run")
    assert ended.code == 0, ended.err
    assert "complete: 20 of 20 tiles" in ended.out
    return folder / "run"


@pytest.mark.slow
def test_a_finer_mask_is_labelled_from_command_to_disk(finer_run: Path, slide_pixels: Image) -> None:
    run = Run.open(finer_run)
    expected = whole_image_labels(load_bundle(finer_run.parent / "model"), slide_pixels, FINER.whole)
    assert expected.shape == (891, 711)
    np.testing.assert_array_equal(whole_mask(run), expected)
    levels = run.open_mask(read_only=True).levels
    assert [level.shape for level in levels] == [(891, 711), (446, 356)]
    np.testing.assert_array_equal(levels[1][:], majority(expected))
    assert run.card.geometry.scale == ("3", "3")
    assert sum(record.pixels for record in run.ledger.records()) == 297 * 237, "rates count the image's pixels"


@pytest.mark.slow
def test_a_finer_mask_lies_on_its_image(finer_run: Path) -> None:
    attributes = json.loads((finer_run / "mask.ome.zarr/zarr.json").read_text())["attributes"]
    scale, translation = attributes["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == pytest.approx([0.5 / 3, 0.5 / 3])
    # The centre of the first of three pixels lies a third of a pixel before the centre of all three.
    assert translation["translation"] == pytest.approx([-0.5 / 3, -0.5 / 3])
    coarser, further = attributes["ome"]["multiscales"][0]["datasets"][1]["coordinateTransformations"]
    assert coarser["scale"] == pytest.approx([1 / 3, 1 / 3])
    assert further["translation"] == pytest.approx([-0.25 / 3, -0.25 / 3])


@pytest.mark.slow
def test_rerun_of_one_tile_changes_its_own_finer_shards_alone(cli: Cli, finer_run: Path) -> None:
    before = mask_files(finer_run)
    times = {p: p.stat().st_mtime_ns for p in (finer_run / "mask.ome.zarr").rglob("*") if p.is_file()}
    (finer_run / "mask.ome.zarr/0/c/3/2").write_bytes(b"rotten" * 20)
    ended = cli.run("rerun", finer_run, "--tile", "3,2")
    assert ended.code == 0, ended.err
    assert mask_files(finer_run) == before
    rewritten = {str(p.relative_to(finer_run)) for p, t in times.items() if p.stat().st_mtime_ns != t}
    assert rewritten == {"mask.ome.zarr/0/c/3/2", "mask.ome.zarr/1/c/1/1"}


@pytest.mark.slow
def test_status_shows_the_grid_of_a_finer_mask(cli: Cli, finer_run: Path) -> None:
    ended = cli.run("status", finer_run)
    assert ended.code == 0, ended.err
    assert "mask: 891 x 711 px, 3 mask pixels per image pixel" in ended.out
    assert ended.out.count("████\n") == 5


@pytest.mark.slow
def test_the_overlay_of_a_finer_mask_shows_every_one_of_its_pixels(finer_run: Path) -> None:
    labels = whole_mask(Run.open(finer_run))
    with Picture.open(finer_run / "overlay.png") as overlay, Picture.open(finer_run.parent / "slide.tif") as image:
        seen, plain = np.asarray(overlay), np.asarray(image).repeat(3, axis=0).repeat(3, axis=1)
    assert seen.shape[:2] == labels.shape
    np.testing.assert_array_equal((seen != plain).any(axis=-1), labels > 0)


def test_the_overlay_of_a_coarser_mask_is_as_large_as_the_image(slide_pixels: Image, tmp_path: Path) -> None:
    run = overlaid(COARSER, slide_pixels, tmp_path)
    labels: Labels = whole_mask(run).repeat(4, axis=0).repeat(4, axis=1)[:297, :237]
    with Picture.open(on_disk(run.overlay_path)) as overlay:
        tinted = (np.asarray(overlay) != slide_pixels).any(axis=-1)
    np.testing.assert_array_equal(tinted, labels > 0)


def overlaid(case: Case, pixels: Image, folder: Path, failed: tuple[int, ...] = ()) -> Run:
    save_case(folder / "model", case, pixels)
    image = write_slide(folder / "slide.tif", pixels)
    run = segment_here(image, folder / "run", 64, model=str(folder / "model"))
    with run.open_source() as source:
        write_overlay(run, source, [run.plan.tile(index) for index in failed])
    return run


def test_failed_tiles_are_hatched_where_they_lie_on_a_finer_mask(slide_pixels: Image, tmp_path: Path) -> None:
    run = overlaid(FINER, slide_pixels, tmp_path)
    with Picture.open(on_disk(run.overlay_path)) as overlay:
        plain = np.asarray(overlay)
    tile = run.plan.at(1, 2)
    with run.open_source() as source:
        write_overlay(run, source, [tile])
    with Picture.open(on_disk(run.overlay_path)) as overlay:
        changed = (np.asarray(overlay) != plain).any(axis=-1)
    rows, cols = changed.nonzero()
    assert (rows.min(), rows.max() + 1) == (tile.valid.y0, tile.valid.y1)
    assert (cols.min(), cols.max() + 1) == (tile.valid.x0, tile.valid.x1)


@pytest.mark.slow
def test_a_network_without_padding_runs_from_command_to_disk_without_staging(
    cli: Cli, slide_pixels: Image, tmp_path: Path
) -> None:
    bundle = save_case(tmp_path / "model", ORIGINAL, slide_pixels)
    image = write_slide(tmp_path / "slide.tif", slide_pixels)
    command = ("segment", image, "--model", tmp_path / "model", "--core", 64, "--foreground", "none", "--no-staging")
    ended = cli.run(*command, "--out", tmp_path / "run")
    assert ended.code == 0, ended.err
    run = Run.open(tmp_path / "run")
    expected = whole_image_labels(bundle, slide_pixels, ORIGINAL.whole)
    np.testing.assert_array_equal(whole_mask(run), expected)
    assert run.card.geometry.context == (96, 92, 96, 92)


@pytest.mark.parametrize("case", [FINER, ORIGINAL, DENSE], ids=lambda case: case.name)
def test_augmented_labels_equal_one_augmented_pass_on_every_grid(
    case: Case, slide_pixels: Image, tmp_path: Path
) -> None:
    bundle = save_case(tmp_path / "model", case, slide_pixels)
    image = write_slide(tmp_path / "slide.tif", slide_pixels)
    run = segment_here(image, tmp_path / "run", 64, model=str(tmp_path / "model"), tta="d4")
    frame = run.plan.frame
    margins = ((-frame.y0, frame.y1 - 297), (-frame.x0, frame.x1 - 237), (0, 0))
    turns = [turned_logits(bundle, np.pad(slide_pixels, margins, mode="reflect"), n) for n in range(8)]
    (first_y, first_x), scale = (-frame.y0 - case.whole.lost, -frame.x0 - case.whole.lost), int(case.whole.scale)
    mean = torch.stack(turns).mean(0)[first_y * scale :, first_x * scale :][: 297 * scale, : 237 * scale]
    differing = np.count_nonzero(whole_mask(run) != (mean > 0).numpy())
    assert differing <= 1, "one tie in a million is what a sum in another order may flip"


def turned_logits(bundle: Bundle, pixels: Image, turn: int) -> Tensor:
    """Logits of one pass over all the pixels, as one of the square's eight symmetries shows them, turned back."""
    axes = tuple(axis for axis in (0, 1) if turn >> axis & 1)
    seen = np.flip(pixels.transpose(1, 0, 2) if turn >> 2 else pixels, axes)
    mean, std = bundle.card.normalization.mean, bundle.card.normalization.std
    inputs = (torch.from_numpy(seen.copy()).float() - torch.tensor(mean)) / torch.tensor(std)
    with torch.inference_mode():
        logits = bundle.module(inputs.permute(2, 0, 1)[None])[0, 0].flip(axes)
    return logits.T if turn >> 2 else logits


@pytest.mark.parametrize("case", [ORIGINAL, COARSER], ids=lambda case: case.name)
def test_core_and_precision_are_settled_on_every_grid(
    case: Case, slide_pixels: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("unet_core.inference.precision.lacks_bfloat16", lambda _device: None)
    bundle = save_case(tmp_path / "model", case, slide_pixels)
    image = write_slide(tmp_path / "slide.tif", slide_pixels)
    run = segment_here(image, tmp_path / "run", None, model=str(tmp_path / "model"), precision="auto")
    assert run.card.geometry.core_px % case.whole.stride == 0
    assert "labels of sample tiles agree with float32" in str(run.card.notes["precision"])
    same = float((whole_mask(run) == whole_image_labels(bundle, slide_pixels, case.whole)).mean())
    assert same >= (1.0 if run.card.precision == "float32" else 0.99)


@given(st.integers(1, 30), st.integers(-70, 30), st.integers(0, 90))
def test_mirroring_equals_reflecting_the_whole_extent(extent: int, start: int, length: int) -> None:
    pixels = np.arange(extent)
    expected = np.pad(pixels, (70, 130), mode="reflect")[start + 70 : start + 70 + length]
    np.testing.assert_array_equal(pixels[mirrored(start, start + length, extent)], expected)


def test_a_card_from_before_other_grids_is_read_as_the_image_s_own(slide_pixels: Image, tmp_path: Path) -> None:
    image = write_slide(tmp_path / "slide.tif", slide_pixels[:64, :64])
    run = segment_here(image, tmp_path / "run", 64)
    card = json.loads((tmp_path / "run/run.json").read_text())
    for key in ("scale", "offset", "context"):
        del card["geometry"][key]
    (tmp_path / "run/run.json").write_text(json.dumps(card))
    assert Run.open(tmp_path / "run").plan == run.plan
    assert not Run.open(tmp_path / "run").card.differences(run.card)


def test_mirrored_outputs_that_would_fall_between_pixels_are_refused() -> None:
    found = footprint(Gaps().eval(), 1)
    assert found.scale[0] == Fraction(1, 2)
    with pytest.raises(FootprintError, match="would fall between pixels; use no augmentation"):
        tta_footprint(found, "flips")


class Gaps(nn.Module):
    """No padding, half the image's grid, and made for odd extents."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3, stride=2)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.first(x_NCHW)
