"""`overtile train`: from a recipe to a bundle and two pictures, with exit codes like the other commands."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from cli import Cli, Ended, clean_environment
from discs import a_config, discs
from pasting import paste
from PIL import Image

from flows.training.contact_sheet import Compared, chosen, write_contact_sheet
from flows.training.curves import write_curves
from flows.training.drawing import Line, draw_panel
from flows.training.progress_bar import TrainingBar
from unet_core.bundles.bundle import load_bundle
from unet_core.training.trainer import TrainingProgress

ROOT = Path(__file__).resolve().parents[2]
RECIPE = """
[data]
images = "{folder}/images"
labels = "{folder}/labels"
label_kind = "instances"
[card]
name = "discs"
description = "bright discs"
architecture = "unet_dice"
parameters = {{ bands = 1, classes = 1, first_channels = 4, depth = 2 }}
bands = ["gray"]
dtype = "uint8"
classes = [{{ name = "background", color = "#000000" }}, {{ name = "disc", color = "#56b4e9" }}]
decision = {{ rule = "threshold", thresholds = [0.5] }}
normalization = {{ mean = [64], std = [64] }}
license = "Apache-2.0"
[training]
steps = 20
batch = 4
tile_px = 32
learning_rate = {rate}
warmup_steps = 2
average_decay = 0.5
threads = 1
device = "cpu"
border = {{ w0 = 2, sigma = 3 }}
groups = {{ all = {{}} }}
"""


def overtile(tmp_path: Path, *arguments: object) -> Ended:
    environment = clean_environment(tmp_path, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", NO_COLOR="1")
    return Cli(environment).run(*arguments, timeout=200)


def write_recipe(folder: Path, rate: str = "1e-2") -> Path:
    for kind in ("images", "labels"):
        (folder / kind).mkdir(exist_ok=True)
    for example in discs(24, seed=4):
        assert example.instances_HW is not None
        Image.fromarray(example.image_HWN[..., 0]).save(folder / "images" / f"{example.name}.png")
        Image.fromarray(example.instances_HW.astype(np.uint8)).save(folder / "labels" / f"{example.name}.png")
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(folder=folder, rate=rate))
    return path


def test_recipe_becomes_a_bundle_with_its_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    ended = overtile(tmp_path, "train", write_recipe(tmp_path), "--out", folder)
    assert ended.code == 0, ended.err
    assert "step 20: mean IoU" in ended.out
    assert "all: mean IoU" in ended.out
    (command,) = re.findall("^use it:  (.*)$", ended.out, re.MULTILINE)
    planned = paste(command, tmp_path, "--as-is --dry-run", IMAGE=tmp_path / "images/3.png", RUN=tmp_path / "run")
    assert planned.returncode == 0, planned.stderr
    facts = load_bundle(folder / "bundle").card.training
    assert facts["ended"] == "after all steps"
    assert facts["hardware"].startswith("1 process")
    assert 0 <= facts["validation"]["all"]["average_precision"] <= facts["validation"]["all"]["ap50"] <= 1
    assert facts["config"]["border"] == {"w0": 2, "sigma": 3, "balance": False}
    for name in ("curves.png", "validation.png"):
        with Image.open(folder / name) as picture:
            assert len(picture.getcolors(1 << 24) or []) > 20, name


def test_mistake_is_told_in_one_line_with_an_exit_code(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    (tmp_path / "labels" / "3.png").unlink()
    ended = overtile(tmp_path, "train", recipe, "--out", tmp_path / "out")
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert "3.png" in ended.err
    assert len(ended.err.strip().splitlines()) == 1


def test_training_that_diverges_is_told_in_one_line(tmp_path: Path) -> None:
    ended = overtile(tmp_path, "train", write_recipe(tmp_path, rate="1e30"), "--out", tmp_path / "out")
    assert ended.code == 2
    (line,) = ended.err.strip().splitlines()
    assert "lower learning_rate and resume" in line


def test_worst_median_and_best_images_are_chosen_once_each() -> None:
    ious = [0.5, 0.9, math.nan, 0.1, 0.7, 0.3, 0.8, 0.2, 0.6, 0.4]
    assert chosen(ious, 2) == [("worst", [3, 7]), ("median", [9, 0]), ("best", [6, 1])]
    assert chosen([0.4, 0.2]) == [("worst", [1]), ("best", [0])]
    assert chosen([0.5]) == [("worst", [0])]
    assert chosen([math.nan]) == []


def test_sheet_shows_found_invented_and_missed_pixels_in_their_colours(tmp_path: Path) -> None:
    truth, predicted = np.zeros((2, 10, 10), np.uint8)
    truth[:5], predicted[:, :5] = 1, 1
    image_HWN = np.full((10, 10, 1), 255, np.uint8)
    write_contact_sheet(tmp_path / "sheet.png", [("best", [Compared("a", 0.5, image_HWN, truth, predicted)])])
    with Image.open(tmp_path / "sheet.png") as page:
        colors = {color: count for count, color in page.convert("RGB").getcolors(1 << 24) or []}
    # A quarter of the picture each, besides the legend's small squares.
    found, invented, missed = ((0, 158, 115), (213, 94, 0), (86, 180, 233))
    for solid in (found, invented, missed):
        mixed = tuple(round(0.45 * 255 + 0.55 * channel) for channel in solid)
        assert colors[mixed] == 130 * 130, solid  # pyright: ignore[reportArgumentType]


def test_curves_show_every_score(tmp_path: Path) -> None:
    history = [{"step": step, "all": {"mean_iou": step / 40, "mean_dice": 0.9, "average_precision": math.nan}}
               for step in (10, 20, 30)]  # fmt: skip
    progress = TrainingProgress(30, 0.75, 30, history, [1 / (1 + step) for step in range(30)])
    write_curves(tmp_path / "curves.png", progress, a_config())
    with Image.open(tmp_path / "curves.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    for color in ((0, 114, 178), (0, 158, 115)):
        assert (abs(pixels - color) < 40).all(axis=2).sum() > 300  # lines have soft edges


@pytest.mark.parametrize("ys", [[0.5], [0.5, 0.5], [1e-7, 1.0, 1e4], [math.nan], []])
def test_panel_takes_any_values(ys: list[float]) -> None:
    for log in (False, True):
        panel = draw_panel("t", [Line("a", "#0072b2", list(range(1, len(ys) + 1)), ys)], 5, (300, 200), log=log)
        assert panel.size == (300, 200)


def test_bar_tells_rate_and_time_left() -> None:
    progress = TrainingProgress(step=20, losses=[0.5] * 20)
    bar = TrainingBar(a_config(steps=60), first_step=10)
    assert bar.text(progress, seconds=5.0) == "20/60 steps · 2.00 steps/s · 0:20 left · loss 0.5000"
    assert os.linesep not in bar.text(progress, seconds=0.0)
