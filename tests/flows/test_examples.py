"""Sources of examples: folders in any format, large rasters read by crops, polygons, generated images."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from discs import CARD, discs
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from typer.testing import CliRunner

from flows.cli import app
from flows.config.recipe import DataConfig, GeneratedConfig, RasterConfig
from flows.training.examples import read_examples
from tiling.errors import AnnotationError, SourceError
from unet_core.bundles.card import ClassInfo, Decision, ModelCard, Normalization
from unet_core.errors import TrainingError
from unet_core.models import build
from unet_core.training.augmentation import CropSampler
from unet_core.training.data import Example
from unet_core.training.evaluation import evaluate
from unet_core.training.output_grid import OutputGrid
from unet_core.training.recipe import TrainingConfig, Variation
from unet_core.training.synthetic import tissue
from unet_core.training.trainer import Trainer

RECIPE = Path(__file__).parents[2] / "unet_core" / "recipes" / "ellipses.toml"
TISSUE_CARD = ModelCard(
    name="tissue",
    description="nuclei in generated tissue",
    architecture="unet",
    parameters={"bands": 3, "classes": 1, "first_channels": 4, "depth": 2},
    bands=("red", "green", "blue"),
    dtype="uint8",
    classes=(ClassInfo("background", "#000000"), ClassInfo("nucleus", "#56b4e9")),
    decision=Decision("threshold", (0.5,)),
    normalization=Normalization((180.0,) * 3, (60.0,) * 3),
    license="Apache-2.0",
)


pytestmark = pytest.mark.usefixtures("on_one_thread")


def write_folder(folder: Path, suffix: str, count: int = 4) -> list[Example]:
    examples = discs(count, seed=4)
    for example in examples:
        image_HW = example.image_HWN[..., 0]
        if suffix == ".tif":
            tifffile.imwrite(folder / f"{example.name}.tif", image_HW, compression="zlib")
            tifffile.imwrite(folder / f"{example.name}_mask.tif", example.labels_HW.astype(np.uint16))
        else:
            Image.fromarray(image_HW).save(folder / f"{example.name}{suffix}")
            Image.fromarray(example.labels_HW).save(folder / f"{example.name}_mask.png")
    return examples


def folder_data(folder: Path, suffix: str, **changes: Any) -> DataConfig:
    fields: dict[str, Any] = {
        "images": folder,
        "labels": folder,
        "image_names": f"?{suffix}",
        "label_name": "{stem}_mask" + (".tif" if suffix == ".tif" else ".png"),
        "validation": ("2", "[3-9]*"),
    }
    return DataConfig(**(fields | changes))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jp2"])
def test_folder_in_any_format_is_split_by_the_recipes_patterns(tmp_path: Path, suffix: str) -> None:
    truth = write_folder(tmp_path, suffix)
    training, validation = read_examples(folder_data(tmp_path, suffix), CARD)
    assert [[example.name for example in part] for part in (training, validation)] == [["0", "1"], ["2", "3"]]
    for example, true in zip([*training, *validation], truth, strict=True):
        np.testing.assert_array_equal(example.whole().labels_HW, true.labels_HW)
        if suffix != ".jp2":
            np.testing.assert_array_equal(example.whole().image_HWN, true.image_HWN)


def test_palette_labels_are_indices_and_masks_are_class_1(tmp_path: Path) -> None:
    write_folder(tmp_path, ".png")
    for index in range(4):
        labels = Image.fromarray(np.full((48, 40), index % 2, np.uint8), "P")
        labels.putpalette([0, 0, 0, 250, 120, 10])
        labels.save(tmp_path / f"{index}_mask.png")
    training, _ = read_examples(folder_data(tmp_path, ".png"), CARD)
    assert [int(example.whole().labels_HW.max()) for example in training] == [0, 1]
    for index in range(4):
        Image.fromarray(np.full((48, 40), index % 2, bool)).save(tmp_path / f"{index}_mask.png")
    training, _ = read_examples(folder_data(tmp_path, ".png", label_kind="mask"), CARD)
    assert [int(example.whole().labels_HW.max()) for example in training] == [0, 1]


def test_instances_stay_with_their_example(tmp_path: Path) -> None:
    write_folder(tmp_path, ".tif")
    tifffile.imwrite(tmp_path / "0_mask.tif", np.arange(48 * 40, dtype=np.uint16).reshape(48, 40))
    training, _ = read_examples(folder_data(tmp_path, ".tif", label_kind="instances"), CARD)
    whole = training[0].whole()
    assert whole.instances_HW is not None
    assert int(whole.instances_HW.max()) == 48 * 40 - 1
    assert int(whole.labels_HW.sum()) == 48 * 40 - 1


@pytest.mark.parametrize(
    ("broken", "changes", "message"),
    [
        ("", {"image_names": "*.webp"}, "holds no image called '\\*.webp' in a known format"),
        ("", {"label_name": "{stem}_other.tif"}, "0_other.tif' are missing: every image needs its own"),
        ("", {"validation": ("x*",)}, "none of the 4 images is for validation"),
        ("", {"validation": ("*",)}, "none of the 4 images is left to train on"),
        ("0.tif", {}, r"0.tif: .*replace or remove it"),
        ("0_mask.tif", {}, r"0_mask.tif: .*replace or remove it"),
    ],
)
def test_bad_folder_is_refused(tmp_path: Path, broken: str, changes: dict[str, Any], message: str) -> None:
    write_folder(tmp_path, ".tif")
    if broken:
        (tmp_path / broken).write_bytes((tmp_path / broken).read_bytes()[:150])
    with pytest.raises(TrainingError, match=message):
        read_examples(folder_data(tmp_path, ".tif", **changes), CARD)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((48, 40, 3), np.uint8), r"are uint8 \(48, 40, 3\): labels are one band of whole numbers"),
        (np.zeros((48, 40), np.float32), "are float32"),
        (np.full((48, 40), -2, np.int16), "go down to -2"),
        (np.full((48, 40), 300, np.uint16), "go up to 300: classes end at 254"),
        (np.full((48, 40), 2, np.uint8), "labels of 1 hold class 2, the card ends at 1"),
        (np.zeros((48, 41), np.uint8), r"labels of 1 are \(48, 41\), its image \(48, 40\)"),
    ],
)
def test_bad_labels_are_refused(tmp_path: Path, labels: NDArray[Any], message: str) -> None:
    write_folder(tmp_path, ".tif")
    tifffile.imwrite(tmp_path / "1_mask.tif", labels)
    with pytest.raises(TrainingError, match=message):
        Trainer(a_config(), CARD, *read_examples(folder_data(tmp_path, ".tif"), CARD), tmp_path / "out")


def test_one_image_in_two_formats_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, ".tif")
    write_folder(tmp_path, ".png")
    with pytest.raises(TrainingError, match=r"'0.png' and '0.tif' .* differ in their suffix alone"):
        read_examples(folder_data(tmp_path, ".*"), CARD)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "nothing to learn from"),
        ({"images": "a"}, "images and labels belong together"),
        ({"images": "a", "labels": "a", "label_name": "mask.png"}, "gives every image the same labels"),
    ],
)
def test_data_section_that_names_no_data_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataConfig(**data)


def a_config(**changes: Any) -> TrainingConfig:
    return TrainingConfig(steps=4, batch=4, tile_px=64, groups={"all": Variation(elastic_px=4)}, **changes)


def write_slide(folder: Path, repeats: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """A tiled slide and its label raster, `repeats` x 256 px on each side."""
    image_HWN, instances_HW = tissue(256, 256, np.random.default_rng(3))
    slide, labels = np.tile(image_HWN, (repeats, repeats, 1)), np.tile(instances_HW > 0, (repeats, repeats))
    labels = labels.astype(np.uint8)
    tifffile.imwrite(folder / "slide.tif", slide, tile=(256, 256), photometric="rgb")
    tifffile.imwrite(folder / "labels.tif", labels, tile=(256, 256))
    return slide, labels


def slide_data(folder: Path, labels: str = "labels.tif", **changes: Any) -> DataConfig:
    fields: dict[str, Any] = {"image": folder / "slide.tif", "labels": folder / labels} | changes
    side = fields.pop("side", 512)
    whole, part = RasterConfig(**fields, box=(0, 0, 256, side)), RasterConfig(
        **fields, role="validation", box=(256, 100, side, 400), validation_px=128
    )  # fmt: skip
    return DataConfig(rasters=(whole, part))


def test_raster_is_drawn_from_by_boxes(tmp_path: Path) -> None:
    slide, labels = write_slide(tmp_path, 2)
    training, validation = read_examples(slide_data(tmp_path), TISSUE_CARD)
    assert [example.shape for example in training] == [(256, 512, 3)]
    assert [example.shape[:2] for example in validation] == [(128, 128), (128, 128), (128, 44)] * 2
    last = validation[-1].whole()
    np.testing.assert_array_equal(last.image_HWN, slide[384:512, 356:400])
    np.testing.assert_array_equal(last.labels_HW, labels[384:512, 356:400])
    part, top, left = training[0].around(-9, 500, 40, 600)
    np.testing.assert_array_equal(part.image_HWN, slide[0:40, 500:512])
    assert (top, left) == (0, 500)


def test_training_on_a_slide_holds_crops_never_the_slide(tmp_path: Path) -> None:
    slide, _ = write_slide(tmp_path, 16)  # 4096 x 4096 px, 50 MB
    network = build("unet", TISSUE_CARD.parameters)
    grid = OutputGrid.of(network, 3)  # tracing a network loads modules that count as memory
    tracemalloc.start()
    try:
        training, validation = read_examples(slide_data(tmp_path, side=4096), TISSUE_CARD)
        sampler = CropSampler(a_config(), training, 255.0)
        batches = [sampler.batch(step) for step in range(6)]
        evaluate(network, TISSUE_CARD, validation[:4], grid)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert all(batch.labels_HW.any() for batch in batches)
    assert peak < slide.nbytes / 5


def test_slide_of_polygons_and_slide_of_labels_train_the_same_network(tmp_path: Path) -> None:
    write_slide(tmp_path, 2)
    squares = [(y, x) for y in range(0, 512, 64) for x in range(0, 512, 48)]
    labels_HW, features = np.zeros((512, 512), np.uint8), list[Any]()
    for y, x in squares:
        labels_HW[y + 10 : y + 40, x + 5 : x + 25] = 1
        corners = [[x + 5, y + 10], [x + 25, y + 10], [x + 25, y + 40], [x + 5, y + 40], [x + 5, y + 10]]
        geometry = {"type": "Polygon", "coordinates": [corners]}
        named = {"classification": {"name": "nucleus"}}
        features.append({"type": "Feature", "geometry": geometry, "properties": named})
    (tmp_path / "nuclei.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    tifffile.imwrite(tmp_path / "labels.tif", labels_HW, tile=(128, 128))
    networks: list[dict[str, torch.Tensor]] = []
    for labels in ("nuclei.geojson", "labels.tif"):
        data = slide_data(tmp_path, labels)
        trainer = Trainer(a_config(), TISSUE_CARD, *read_examples(data, TISSUE_CARD), tmp_path / labels[:3])
        assert trainer.run().step == 4
        networks.append(trainer.learner.network.state_dict())
    for name, tensor in networks[0].items():
        assert torch.equal(tensor, networks[1][name]), name


def test_coarser_level_of_a_slide_takes_polygons_of_the_finest(tmp_path: Path) -> None:
    slide, _ = write_slide(tmp_path, 2)
    with tifffile.TiffWriter(tmp_path / "slide.tif") as writer:
        writer.write(slide, tile=(256, 256), photometric="rgb", subifds=1)
        writer.write(slide[::2, ::2].copy(), tile=(256, 256), photometric="rgb", subfiletype=1)
    ring = [[100, 300], [140, 300], [140, 360], [100, 360], [100, 300]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
    (tmp_path / "a.geojson").write_text(json.dumps([feature]))
    raster = RasterConfig(image=tmp_path / "slide.tif", labels=tmp_path / "a.geojson", level=1, label_kind="mask")
    data = DataConfig(rasters=(raster, raster.model_copy(update={"role": "validation"})))
    whole = read_examples(data, TISSUE_CARD)[0][0].whole()
    assert whole.image_HWN.shape == (256, 256, 3)
    assert int(whole.labels_HW.sum()) == 20 * 30
    assert whole.labels_HW[150:180, 50:70].all()


def test_real_scene_is_learnt_from_by_its_map_of_buildings(data_dir: Path, tmp_path: Path) -> None:
    folder = data_dir / "geo" / "solaris"
    raster = RasterConfig(
        image=folder / "sample_geotiff.tif",
        labels=folder / "geotiff_labels.geojson",
        box=(0, 0, 600, 900),
        label_kind="mask",
        coordinates="crs",
    )
    held_out = raster.model_copy(update={"box": (600, 0, 900, 900), "role": "validation", "validation_px": 450})
    card = CARD.model_copy(update={"dtype": "uint16", "normalization": Normalization((400.0,), (200.0,))})
    training, validation = read_examples(DataConfig(rasters=(raster, held_out)), card)
    assert [example.shape for example in (*training, *validation)] == [(600, 900, 1), (300, 450, 1), (300, 450, 1)]
    trainer = Trainer(a_config(), card, training, validation, tmp_path)
    assert trainer.run().history[-1]["all"]["images"] == 2
    assert training[0].whole().labels_HW.mean() == pytest.approx(0.0515, abs=1e-4)


def test_bad_rasters_are_refused(tmp_path: Path) -> None:
    write_slide(tmp_path, 2)

    def refused(error: type[Exception], message: str, **changes: Any) -> None:
        with pytest.raises(error, match=message):
            read_examples(slide_data(tmp_path, **changes), TISSUE_CARD)

    tifffile.imwrite(tmp_path / "small.tif", np.zeros((512, 500), np.uint8))
    refused(TrainingError, r"are 512 x 500 px, .* at level 0 is 512 x 512", labels="small.tif")
    tifffile.imwrite(tmp_path / "seven.tif", np.full((512, 512), 7, np.uint8))
    refused(TrainingError, r"hold class 7 in \[0:256, 0:512\], the card's go from 0 to 1", labels="seven.tif")
    refused(TrainingError, "are 3 bands of uint8: labels are one band", labels="slide.tif")
    refused(TrainingError, "has levels 0 to 0, not 2", level=2)
    refused(TrainingError, r"box \[0, 0, 256, 600\] is not inside .* of 512 x 512", side=600)
    refused(SourceError, "none.tif", labels="none.tif")
    (tmp_path / "broken.tif").write_bytes((tmp_path / "labels.tif").read_bytes()[:900])
    refused(SourceError, "broken.tif", labels="broken.tif")
    ring = [[9000, 9000], [9010, 9000], [9010, 9010], [9000, 9000]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
    (tmp_path / "far.geojson").write_text(json.dumps([feature]))
    refused(AnnotationError, "feature 0 has no class", labels="far.geojson")
    refused(TrainingError, "none of the 1 polygons in .* lies on", labels="far.geojson", label_kind="mask")


def test_bad_data_is_told_in_one_line_by_the_command(tmp_path: Path) -> None:
    write_slide(tmp_path, 2)
    ring = [[10, 10], [60, 10], [60, 60], [10, 10]]
    named = {"classification": {"name": "Tumour"}}
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": named}
    (tmp_path / "tumour.geojson").write_text(json.dumps([feature]))
    recipe = RECIPE.read_text(encoding="utf-8")
    raster = f'[[data.rasters]]\nimage = "{tmp_path / "slide.tif"}"\nlabels = "{tmp_path / "tumour.geojson"}"\n'
    (tmp_path / "recipe.toml").write_text(raster + recipe[recipe.index("[card]") :])
    result = CliRunner().invoke(app, ["train", str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "feature 0 is of class 'Tumour', the card's are background, ellipse" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("task", "card"), [("ellipses", CARD), ("tissue", TISSUE_CARD)])
def test_generated_examples_follow_from_the_seed_and_fit_their_card(tmp_path: Path, task: Any, card: ModelCard) -> None:
    def generated(training: int, seed: int) -> list[Example]:
        config = GeneratedConfig(task=task, training=training, validation=2, side_px=96, seed=seed)
        data = DataConfig(generated=config)
        parts = read_examples(data, card)
        Trainer(a_config(), card, *parts, tmp_path / f"{training} {seed}")
        return [example.whole() for part in parts for example in part]

    few, more, other = generated(2, 0), generated(3, 0), generated(2, 1)
    for one, same in zip(few, [*more[:2], *more[3:]], strict=True):
        assert one.name == same.name
        np.testing.assert_array_equal(one.image_HWN, same.image_HWN)
        np.testing.assert_array_equal(one.labels_HW, same.labels_HW)
    images = [example.image_HWN.tobytes() for example in [*more, *other]]
    assert len(set(images)) == len(images)
