"""A network of the user's own as a person uses it: imported, run, resumed, rerun; and refused with a reason."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from canary import Canary
from cli import OVERTILE, Cli, tissue, write_tissue
from oracle import whole_image_logits
from safetensors.torch import save_file
from third_party import Net
from tiled import unlike_fresh
from torch import nn
from torch.export import Dim
from typer.testing import CliRunner

from flows.cli import app
from flows.config.run import SegmentConfig
from flows.run.custom_model import reference_of, with_bundle
from flows.run.prepare import prepare
from flows.worker.model import model_of
from flows.worker.tile_worker import TileWorker
from flows.worker.tuning import Tuning
from tiling.errors import RunError
from tiling.geometry import Box
from tiling.runs.run import Run
from tiling.source import open_source
from unet_core.bundles.bundle import Bundle, load_bundle
from unet_core.errors import BundleError

FACTS = """
bands = ["red", "green", "blue"]
classes = ["background", "cell", "wall"]
mean = [150.0, 120.0, 160.0]
std = [60.0, 50.0, 50.0]
"""

TIE = 1e-5  # of logits whose deviation is 1: what rounding moves when batch norm is folded


class Own:
    """The user's files: a network, its program, its weights, what it means, and an image."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.image = write_tissue(folder / "tissue.tif", 300, 260)
        self.network = unlike_fresh(Net())
        self._spread_classes()
        self.card = folder / "card.toml"
        self.card.write_text(FACTS)
        self.program, self.weights = folder / "net.pt2", folder / "w.safetensors"
        example, extents = torch.zeros(2, 3, 64, 96), {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}
        torch.export.save(torch.export.export(self.network, (example,), dynamic_shapes=(extents,)), self.program)
        save_file(self.network.state_dict(), self.weights)

    def _spread_classes(self) -> None:
        """A mask of one class would pass every comparison."""
        pixels = torch.from_numpy(tissue(128, 128)).permute(2, 0, 1)[None].float()
        with torch.no_grad():
            mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((150.0, 120.0, 160.0), (60.0, 50.0, 50.0)))
            logits = self.network((pixels - mean) / std)
            spread = logits.std((0, 2, 3))
            self.network.get_parameter("head.bias").sub_(logits.mean((0, 2, 3))).div_(spread)
            self.network.get_parameter("head.weight").div_(spread.view(-1, 1, 1, 1))

    def config(self, out: Path, **changes: Any) -> SegmentConfig:
        given = {"image": self.image, "out": out, "model": str(self.program), "card": self.card}
        return SegmentConfig.model_validate(given | changes)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Own:
    return Own(tmp_path_factory.mktemp("own"))


@pytest.mark.slow
def test_program_is_segmented_with_exactly_its_networks_labels_and_its_tiles_can_be_rerun_alone(
    cli: Cli, own: Own
) -> None:
    out = own.folder / "run"
    command = ("--model", own.program, "--card", own.card, "--core", 128, "--foreground", "none")
    ended = cli.run("segment", own.image, "--out", out, *command)
    assert ended.code == 0, ended.err
    assert_whole_labels(out, own.network)
    # Elsewhere, and without the user's file: the run has its model.
    moved = out.rename(own.folder / "moved")
    kept = own.program.rename(own.folder / "kept")
    result = TileWorker().process(moved, 0, staged=False)
    kept.rename(own.program)
    assert result.reason is None, result.reason
    assert_whole_labels(moved, own.network)


def assert_whole_labels(out: Path, network: nn.Module) -> None:
    """Against one pass of the user's own module over the whole image, mirrored up to its stride."""
    run = Run.open(out)
    with open_source(run.card.image.path) as source:
        pixels = source.read(0, source.levels[0].box)
    card = load_bundle(model_of(run)).card
    logits = whole_image_logits(Bundle(card, network, "the user's own"), pixels, stride=4)
    expected, best = logits.argmax(0).numpy(), logits.topk(2, dim=0).values
    is_tie = (best[0] - best[1] < TIE).numpy()
    assert len(np.unique(expected)) == 3
    assert is_tie.mean() < 1e-4
    labels = run.open_mask().read(Box(0, 0, *run.card.image.extent))
    np.testing.assert_array_equal(labels[~is_tie], expected[~is_tie])


def test_import_makes_a_bundle_and_shows_its_footprint(cli: Cli, own: Own) -> None:
    facts = ("--bands", "red,green,blue", "--classes", "background,cell,wall", "--mean", "150,120,160")
    ended = cli.run("models", "import", own.program, "--out", own.folder / "bundle", "--std", "60,50,50", *facts)
    assert ended.code == 0, ended.err
    assert "4 x 4 px" in ended.out
    assert "halo top      22 px" in ended.out
    assert load_bundle(own.folder / "bundle").card.normalization.mean == (150.0, 120.0, 160.0)


def here(*arguments: object) -> tuple[int, str]:
    """The command line in this process: its exit code, and what it says, on one line."""
    ended = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return ended.exit_code, " ".join(ended.output.split())


def test_import_names_all_that_is_missing_where_nobody_can_answer(own: Own) -> None:
    code, said = here("models", "import", own.program, "--out", own.folder / "none", "--classes", "background,a,b")
    assert code == 2
    assert all(option in said for option in ("--bands", "--mean", "--std"))
    assert "--classes" not in said
    assert not (own.folder / "none").exists()


def test_import_asks_on_a_terminal(own: Own) -> None:
    controller, terminal = pty.openpty()
    command = [str(OVERTILE), "models", "import", str(own.program), "--out", str(own.folder / "asked")]
    started = subprocess.Popen(command, stdin=terminal, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    answers = "red,green,blue\nbackground,cell,wall\n150,120,160\n60,50,50\n0.5\n"
    os.write(controller, answers.encode())
    assert started.wait(60) == 0
    os.close(controller)
    os.close(terminal)
    card = load_bundle(own.folder / "asked").card
    assert [item.name for item in card.classes] == ["background", "cell", "wall"]
    assert card.pixel_size_um == 0.5


def test_factory_without_leave_is_refused_before_anything_starts(own: Own) -> None:
    code, said = here("segment", own.image, "--out", own.folder / "untrusted", "--model", "third_party:make_net")
    assert code == 2
    assert "--trust-code" in said
    assert not (own.folder / "untrusted").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mean", "a,b,c"), "mean"),
        (("--decision", "majority"), "decision"),
        (("--parameter", "bands"), "NAME=VALUE"),
        (("--card", "gone.toml"), "can't be read"),
    ],
)
def test_wrong_options_are_named(own: Own, tmp_path: Path, options: tuple[str, str], message: str) -> None:
    code, said = here("models", "import", own.program, "--out", tmp_path / "b", *options)
    assert code == 2
    assert message in said


def test_folder_that_holds_no_bundle_is_not_written_into(own: Own, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    code, said = here("models", "import", own.program, "--out", tmp_path, "--card", own.card)
    assert code == 2
    assert "holds no bundle" in said
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_run_has_a_bundle_of_its_own_that_stays(own: Own, tmp_path: Path) -> None:
    config = own.config(tmp_path / "run", model="third_party:make_net", weights=own.weights, trust_code=True)
    settled = with_bundle(config)
    assert settled.model == str(tmp_path / "run" / "model")
    assert reference_of(settled) == "./model"
    first = load_bundle(settled.model).digest
    assert load_bundle(with_bundle(config).model).digest == first
    # The program and the factory are the same network: the same labels, from the same weights.
    image = torch.randn(1, 3, 32, 48)
    by_program = load_bundle(with_bundle(own.config(tmp_path / "other")).model)
    with torch.no_grad():
        assert torch.equal(load_bundle(settled.model).module(image), by_program.module(image))


def test_folder_that_holds_something_else_is_left_alone(own: Own, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match=r"holds no run.json"):
        with_bundle(own.config(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_model_that_changed_since_the_run_began_is_refused(own: Own, tmp_path: Path) -> None:
    run = prepare(own.config(tmp_path / "run", core=128), 1, lambda request: Tuning(request.precision, 128, {}))
    assert run.card.model.reference == "./model"
    prepare(own.config(tmp_path / "run", core=128), 1, lambda request: Tuning(request.precision, 128, {}))
    before = sorted(path.name for path in run.path.iterdir())
    save_file(unlike_fresh(Net(), seed=5).state_dict(), tmp_path / "other.safetensors")
    changed = own.config(
        tmp_path / "run", model="third_party:make_net", weights=tmp_path / "other.safetensors", trust_code=True
    )
    with pytest.raises(BundleError, match=r"not the one that .* began with"):
        with_bundle(changed)
    assert sorted(path.name for path in run.path.iterdir()) == before
    (run.path / "model" / "weights.safetensors").write_bytes((tmp_path / "other.safetensors").read_bytes())
    with pytest.raises(BundleError, match="was changed since the run began"):
        with_bundle(own.config(tmp_path / "run"))


def test_malicious_weights_never_run_on_the_way_to_a_run(own: Own, tmp_path: Path) -> None:
    torch.save({"head.bias": Canary(tmp_path / "canary")}, tmp_path / "evil.pt")
    config = own.config(tmp_path / "run", model="third_party:make_net", weights=tmp_path / "evil.pt", trust_code=True)
    with pytest.raises(BundleError, match=r"posix.system"):
        with_bundle(config)
    assert not (tmp_path / "canary").exists()
    assert not (tmp_path / "run").exists()
