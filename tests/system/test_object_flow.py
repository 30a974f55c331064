"""Objects in the flow: as the model's card says, renewed after a rerun, repaired after damage, by code of one's own."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from cli import Cli, on_disk
from finished import blobs, write_labels
from numpy.typing import NDArray
from object_oracle import objects_of
from scipy import ndimage
from segmented import compute, segmented
from tiny import save_tiny, write_noise

from flows.config.base import checked
from flows.config.run import SegmentConfig
from flows.errors import ConfigError
from flows.run.objects import asked_rule
from flows.run.steps import export, find_objects, folded
from flows.run.verification import check_files
from tiling.errors import RuleError
from tiling.geometry import Box, PixelSize
from tiling.objects.growth import grown
from tiling.objects.image import open_objects
from tiling.objects.record import ask_for_objects, asked_objects, built_objects
from tiling.objects.rule import View
from tiling.objects.spec import ObjectSpec
from tiling.runs.ledger import TileRecord, TileState
from tiling.runs.run import Run
from unet_core.bundles.card import CARD_NAME, ModelCard, read_card
from unet_core.bundles.object_rule import ObjectRule
from unet_core.errors import BundleError

PAGE = Path(__file__).parents[2] / "docs" / "objects.md"
BORDERS = {"rule": "border", "border": "class 2", "radius_px": 3, "least_px": {"class 1": 2}, "fill_holes": ["class 1"]}


def save_with_borders(folder: Path) -> Path:
    """A bundle of three classes, the last of which is a border."""
    save_tiny(folder)
    card = json.loads((folder / CARD_NAME).read_text())
    (folder / CARD_NAME).write_text(json.dumps(card | {"objects": BORDERS}))
    return folder


def numbers(run: Run) -> NDArray[np.int32]:
    found = open_objects(run)
    assert found is not None
    return found.read(Box(0, 0, *found.shape))


def expected(run: Run) -> NDArray[np.int32]:
    spec = asked_objects(run.ledger.fold())
    assert spec is not None
    return objects_of(np.asarray(run.open_mask().levels[0][:]), spec)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    image = write_noise(tmp_path / "noise.tif", 200, 230)
    made = segmented(image, tmp_path / "run", save_with_borders(tmp_path / "model"), 64, foreground="none")
    find_objects(made, folded(made))
    return made


def test_the_cards_rule_makes_the_objects(run: Run) -> None:
    assert numbers(run).max() > 10
    np.testing.assert_array_equal(numbers(run), expected(run))
    state = folded(run)
    export(run, "statistics", state)
    assert check_files(run, folded(run)) == {}


def test_a_tile_that_is_computed_again_leaves_all_other_objects(run: Run) -> None:
    before, tile = numbers(run), run.plan.at(1, 1)
    mask = run.open_mask()
    changed = mask.read(tile.valid)
    changed[20:40, 20:40] = 1
    # The tile holds something else, as after a rerun on another device.
    run.ledger.append(TileRecord(tile.index, TileState.DONE, 1, mask.write(tile, changed)))
    run.ledger.flush()
    compute(run, [])
    state = folded(run)
    assert built_objects(run, state) is None
    assert check_files(run, state)["objects.ome.zarr"] == "they are not built"
    find_objects(run, state)
    after = numbers(run)
    np.testing.assert_array_equal(after, expected(run))
    touching = {*np.unique(before[tile.valid.slices]), 0}
    for number in set(np.unique(before)) - touching:
        where = before == number
        (now,) = np.unique(after[where])
        np.testing.assert_array_equal(after == now, where)
    # The tile as it was gives the objects as they were, by the same numbers.
    compute(run, [tile.index])
    find_objects(run, folded(run))
    np.testing.assert_array_equal(numbers(run), before)


def test_damage_is_found_and_repaired(run: Run) -> None:
    before = numbers(run)
    shard = next(path for path in sorted((on_disk(run.objects_path) / "0" / "c").rglob("*")) if path.is_file())
    shard.write_bytes(b"nothing")
    found = [check_files(run, state := folded(run)) for _ in range(3)]
    assert found[0]["objects.ome.zarr"] == "they aren't what was written"
    assert found[0] == found[1] == found[2], "the answer stays until it is mended"
    assert built_objects(run, state) is None
    find_objects(run, state)
    np.testing.assert_array_equal(numbers(run), before)
    assert "objects.ome.zarr" not in check_files(run, state)


def test_the_same_command_with_another_rule_makes_other_objects(run: Run, tmp_path: Path) -> None:
    model = tmp_path / "model"
    plain = segmented(Path(run.card.image.path), tmp_path / "run", model, 64, foreground="none", objects="components")
    find_objects(plain, folded(plain))
    np.testing.assert_array_equal(numbers(plain), expected(plain))
    found = open_objects(plain)
    assert found is not None
    assert set(found.classes[1:].tolist()) == {1, 2}
    without = segmented(Path(run.card.image.path), tmp_path / "run", model, 64, foreground="none", objects="none")
    assert asked_objects(folded(without)) is None


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module that the documentation shows, in the current folder."""
    shown = re.search(r"```python\n(import numpy.*?)```", PAGE.read_text(), re.DOTALL)
    assert shown is not None
    (tmp_path / "my_rules.py").write_text(shown[1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_rules", raising=False)


@pytest.mark.usefixtures("rules")
def test_a_rule_of_ones_own_needs_leave_and_meets_the_protocol(run: Run, tmp_path: Path) -> None:
    card = read_card(tmp_path / "model")
    asked = {"image": run.card.image.path, "out": str(run.path), "objects": "my_rules:Cells"}
    with pytest.raises(ConfigError, match="--trust-code"):
        asked_rule(checked(SegmentConfig, asked), card, [])
    config = checked(SegmentConfig, {**asked, "trust_code": True})
    spec = asked_rule(config, card, [])
    assert spec is not None
    assert spec.is_own
    with pytest.raises(ConfigError, match="protocol"):
        asked_rule(config.model_copy(update={"objects": "builtins:dict"}), card, [])
    for own_rule in ("nowhere:rule", "sys:exit"):
        with pytest.raises(ConfigError, match="gives no rule"):
            asked_rule(config.model_copy(update={"objects": own_rule}), card, [])
    own = segmented(
        Path(run.card.image.path),
        tmp_path / "run",
        tmp_path / "model",
        64,
        foreground="none",
        objects="my_rules:Cells",
        trust_code=True,
    )
    write_labels(own, blobs(own.plan.mask.shape))
    find_objects(own, folded(own))
    assert built_objects(own, folded(own)) is None, "a rerun has no leave"
    find_objects(own, folded(own), trust_code=True)
    found = open_objects(own)
    assert found is not None
    assert numbers(own).max() > 20
    np.testing.assert_array_equal(numbers(own), by_definition(np.asarray(own.open_mask().levels[0][:])))


def by_definition(labels_YX: NDArray[np.uint8]) -> NDArray[np.int32]:
    """The documented rule's objects, on the whole image."""
    worn = ndimage.minimum_filter(labels_YX == 1, size=5, mode="constant")
    seeds_YX = np.zeros(labels_YX.shape, np.int32)
    ndimage.label(worn, output=seeds_YX)
    return grown(seeds_YX, labels_YX == 1, 4)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"rule": "border", "radius_px": 2}, "objects.border"),
        ({"rule": "border", "border": "class 2"}, "objects.radius_px"),
        ({"rule": "border", "border": "rim", "radius_px": 2}, "'rim'"),
        ({"rule": "distance", "channel": "class 1", "radius_px": 65}, "less than or equal to 64, not 65"),
        ({"rule": "watershed"}, "'components', 'border' or 'distance', not 'watershed'"),
        ({"rule": "components", "minimum": 3}, "objects.minimum: there is no such key; correct it"),
        ({"radius_px": 3}, "means nothing"),
        ({"level": 0.9}, "objects.level means nothing under the rule 'components'"),
        ({"rule": "border", "border": "class 2", "radius_px": 2, "spacing_px": 5}, "objects.spacing_px means nothing"),
        (
            {"rule": "border", "border": "class 2", "radius_px": 2, "fill_holes": ["class 2"]},
            "fill_holes names 'class 2'",
        ),
        (
            {"rule": "border", "border": "class 2", "radius_px": 2, "least_px": {"class 2": 9}},
            "least_px names 'class 2'",
        ),
        ({"least_px": {"class 1": 10**30}}, "objects.least_px"),
        ({"least_um2": {"class 1": 1e300}}, "objects.least_um2"),
        ({"least_px": {"nucleus": 3}}, "'nucleus'"),
        ({"least_um2": {"nucleus": 3}}, "'nucleus'"),
        ({"least_um2": {"class 1": 0}}, "objects.least_um2"),
        ({"fill_holes": ["class 0"]}, "'class 0'"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(rule: dict[str, object], said: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    card = json.loads((folder / CARD_NAME).read_text())
    (folder / CARD_NAME).write_text(json.dumps(card | {"objects": rule}))
    with pytest.raises(BundleError, match=said):
        read_card(folder)


def test_a_card_without_a_rule_means_areas_of_a_class(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    card = json.loads((folder / CARD_NAME).read_text())
    del card["objects"]
    (folder / CARD_NAME).write_text(json.dumps(card))
    assert read_card(folder).objects == ObjectRule()
    config = checked(SegmentConfig, {"image": "a.tif", "out": "out"})
    assert asked_rule(config, ModelCard.model_validate(card), []) is None


@pytest.mark.parametrize(
    ("pixel_size", "least"),
    [
        (PixelSize(0.5, 0.5, "um"), 20),
        (PixelSize(0.1, 0.1, "um"), 500),
        (PixelSize(0.5, 1.0, "um"), 10),
        (PixelSize(3.0, 3.0, "um"), 1),
        (PixelSize(0.3, 0.3, "m"), 1),
        (PixelSize(1e-5, 1e-5, "degree"), 7),
        (None, 7),
    ],
)
@pytest.mark.parametrize("objects", ["auto", "components"])
def test_the_least_area_counts_where_a_pixels_size_is_known(
    objects: str, pixel_size: PixelSize | None, least: int, tmp_path: Path
) -> None:
    folder = save_tiny(tmp_path / "model")
    card = json.loads((folder / CARD_NAME).read_text())
    sizes = {"least_px": {"class 1": 7, "class 2": 3}, "least_um2": {"class 1": 5}}
    (folder / CARD_NAME).write_text(json.dumps(card | {"objects": sizes}))
    config = checked(SegmentConfig, {"image": "a.tif", "out": "out", "objects": objects})
    spec = asked_rule(config, read_card(folder), [], pixel_size)
    assert spec is not None
    assert spec.least_px == {1: least, 2: 3}


def test_a_run_takes_it_from_the_pixel_size_of_its_mask(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    card = json.loads((folder / CARD_NAME).read_text())
    (folder / CARD_NAME).write_text(json.dumps(card | {"objects": {"least_um2": {"class 1": 5}}}))
    image = write_noise(tmp_path / "noise.tif", 100, 130)
    made = segmented(image, tmp_path / "run", folder, 64, foreground="none", image_mpp=0.5, as_is=True)
    spec = asked_objects(folded(made))
    assert spec is not None
    assert spec.least_px == {1: 20}


@pytest.mark.slow
def test_a_command_a_rerun_and_a_verification_keep_them_right(cli: Cli, tmp_path: Path) -> None:
    image, model = write_noise(tmp_path / "noise.tif", 200, 230), save_with_borders(tmp_path / "model")
    out = tmp_path / "run"
    ended = cli.run("segment", image, "--model", model, "--out", out, "--core", 64, "--foreground", "none")
    assert ended.code == 0, ended.err
    run = Run.open(out)
    before = numbers(run)
    np.testing.assert_array_equal(before, expected(run))
    assert cli.run("verify", out, "--tiles", 0, "--seams", 0).code == 0
    next(path for path in sorted((out / "objects.ome.zarr" / "0" / "c").rglob("*")) if path.is_file()).unlink()
    damaged = cli.run("verify", out, "--tiles", 0, "--seams", 0)
    assert damaged.code == 3
    assert "objects.ome.zarr" in damaged.out + damaged.err
    assert cli.run("rerun", out, "--tile", "1,1", "--damaged").code == 0
    np.testing.assert_array_equal(numbers(run), before)
    assert cli.run("verify", out, "--tiles", 0, "--seams", 0).code == 0


class Broken:
    """A rule that fails, at once or when it is asked."""

    seed_reach_px: object = 0
    reach_px: object = 1
    takes_probabilities = False

    def __init__(self, reach_px: object = 1) -> None:
        self.reach_px = reach_px

    def seeds(self, view: View) -> NDArray[np.uint8]:
        return (view.labels == 1).astype(np.uint8)

    def grow(self, seeds_YX: NDArray[np.int32], view: View) -> object:
        raise AssertionError("no cells here")


@pytest.mark.parametrize(
    ("reach_px", "said"),
    [(-1, "reach_px is -1.*from 0 to 2048"), (1, r"grow\(\) fails with AssertionError: no cells here; correct it")],
)
def test_a_rule_that_does_not_keep_to_the_protocol_is_refused_on_one_line(
    reach_px: object, said: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = blobs(run.plan.mask.shape)
    labels[100:120, 100:120] = 255
    write_labels(run, labels)
    asked = SegmentConfig.model_validate(
        {"image": run.card.image.path, "out": str(run.path), "objects": "own_rules:make", "trust_code": True}
    )
    module = ModuleType("own_rules")
    monkeypatch.setitem(sys.modules, "own_rules", module)
    module.make = lambda: Broken(reach_px)  # type: ignore[attr-defined]
    state = folded(run)

    def number() -> None:
        ask_for_objects(run, state, asked_rule(asked, read_card(on_disk(run.path.parent) / "model"), []))
        find_objects(run, state, trust_code=True)

    with pytest.raises((ConfigError, RuleError), match=said) as raised:
        number()
    assert "\n" not in str(raised.value)
    assert not (run.path / "objects.scratch").exists()
    monkeypatch.setattr(Broken, "grow", lambda self, seeds_YX, view: seeds_YX)
    module.make = Broken  # type: ignore[attr-defined]
    number()
    only_first = np.where(labels == 2, 0, labels)
    np.testing.assert_array_equal(numbers(run), objects_of(only_first, ObjectSpec(least_px={1: 2}, filled=(1,))))
