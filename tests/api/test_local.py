"""In the caller's own process: the labels of the flow, without Ray and Prefect; networks and arrays of other kinds."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli import tissue, write_tissue
from numpy.typing import NDArray
from oracle import whole_image_labels
from PIL import Image
from tiny import save_tiny, write_noise
from torch import nn

from flows.api.executor import LOCAL_BYTES, choose_executor
from flows.api.segment_image import open_run, segment_image
from flows.config.run import SegmentConfig
from flows.errors import ConfigError
from flows.run.forecast import foresee
from flows.run.local import segment_here
from flows.worker.tile_worker import TileWorker
from tiling.errors import ExportError, SourceError
from tiling.objects.record import built_objects
from tiling.runs.run import Run
from unet_core.bundles.bundle import load_bundle
from unet_core.errors import BundleError

PIXELS = tissue(300, 340)

FACTS = {"classes": ["background", "cell"], "mean": [120.0, 120.0, 120.0], "std": [60.0, 60.0, 60.0]}


def test_an_array_gives_the_labels_of_one_pass_and_loads_neither_ray_nor_prefect(tmp_path: Path) -> None:
    np.save(tmp_path / "pixels.npy", PIXELS)
    script = (
        "import sys, numpy as np, overtile; pixels = np.load('pixels.npy'); "
        "result = overtile.segment_image(pixels, out='run', image_mpp=0.5, core=128, foreground='none'); "
        "np.save('labels.npy', result.labels.compute()); "
        "print(sorted({'ray', 'prefect'} & set(sys.modules)), len(overtile.open_run('run').run.ledger.fold().failed))"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ended.stdout == "[] 0\n"
    assert "9 of 9 tiles computed" in ended.stderr
    expected = whole_image_labels(load_bundle("nuclei"), PIXELS)
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), expected)
    run = Run.open(tmp_path / "run")
    assert {record.worker for record in run.ledger.records() if record.worker} != {None}


def test_facts_beside_a_bundle_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    """They would be ignored: the bundle has its own."""
    (tmp_path / "card.toml").write_text('name = "other"\n')
    said = r"--card has no use: model 'nuclei' is a bundle and brings its own card; leave it out, or .*"
    for card in (FACTS, tmp_path / "card.toml"):
        with pytest.raises(BundleError, match=said) as refused:
            segment_image(PIXELS, tmp_path / "run", card=card)
        assert "\n" not in str(refused.value)
    Image.fromarray(PIXELS).save(tmp_path / "pixels.png")
    asked = {"image": tmp_path / "pixels.png", "out": tmp_path / "run", "card": tmp_path / "card.toml"}
    for begin in (foresee, segment_here):
        with pytest.raises(BundleError, match=said):
            begin(SegmentConfig.model_validate(asked))
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"export": "statistics,geopackage"}, "has no geotransform"),
        ({"export": "probabilities-ome-tiff"}, "keeps no probabilities"),
        ({"export": "table", "objects": "none"}, "numbers none"),
    ],
)
def test_a_format_that_cannot_hold_a_run_is_refused_before_a_tile_is_computed(
    more: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """Also where no notes are shown before: `--quiet`, `--progress none`, a deployment's run; and by `--dry-run`."""
    asked = {
        "image": write_noise(tmp_path / "n.tif", 64, 64),
        "out": tmp_path / "run",
        "model": str(save_tiny(tmp_path / "m")),
    }
    config = SegmentConfig.model_validate({**asked, **more})
    for begin in (foresee, segment_here):
        with pytest.raises(ExportError, match=said):
            begin(config)
    assert not (tmp_path / "run" / "run.json").exists()


def test_objects_are_numbered_as_the_flow_numbers_them(tmp_path: Path) -> None:
    asked: Any = {"image_mpp": 0.5, "core": 128, "foreground": "none", "export": "none", "progress": False}
    segment_image(PIXELS[:128, :128], tmp_path / "run", executor="local", objects="components", **asked)
    run = Run.open(tmp_path / "run")
    assert built_objects(run, run.ledger.fold()) is not None


class Net(nn.Module):
    """As anybody writes one; in training mode, as it comes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.pool, self.inner = nn.MaxPool2d(2), nn.Conv2d(6, 6, 3, padding=1)
        self.last = nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        inner = nn.functional.interpolate(torch.relu(self.inner(self.pool(x))), scale_factor=2, mode="nearest")
        return self.last(x + inner)


@pytest.fixture(scope="module")
def network() -> Net:
    torch.manual_seed(3)
    return Net()


def test_a_network_at_hand_is_taken_with_its_facts_and_stays_as_it_is(network: Net, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    result = segment_image(
        PIXELS, tmp_path / "run", model=network, card=FACTS, as_is=True, core=64, export="none", progress=False
    )
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    network.eval()
    normalised = torch.from_numpy((PIXELS.astype(np.float32) - 120) / 60).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = network(normalised)[0].argmax(0).numpy()
    network.train()
    differing = int(np.count_nonzero(result.labels.compute() != expected))
    assert differing == 0
    assert result.classes == {0: "background", 1: "cell"}
    assert result.run.card.model.reference == "./model"
    again = segment_image(
        PIXELS, tmp_path / "run", model=network, card=FACTS, as_is=True, core=64, export="none", progress=False
    )
    assert again.complete
    torch.manual_seed(4)
    with pytest.raises(BundleError, match="is not the one that"):
        segment_image(PIXELS, tmp_path / "run", model=Net(), card=FACTS, as_is=True, core=64, progress=False)


@pytest.mark.parametrize(
    ("card", "said"),
    [
        (None, "does not say what its pixels and labels mean"),
        ({**FACTS, "classes": ["background"]}, r"gives 2 channels, and 1 classes"),
        ({**FACTS, "means": [1.0]}, "means: there is no such key; .* known are name"),
    ],
)
def test_a_network_without_its_facts_is_refused(network: Net, card: Any, said: str) -> None:
    with pytest.raises(BundleError, match=said):
        segment_image(PIXELS, model=network, card=card, progress=False)


WRAPPED: dict[str, Any] = {
    "DataParallel": nn.DataParallel,
    "compiled": torch.compile,
    "half": lambda net: net.half(),
    "channels last": lambda net: net.to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_what_torch_wraps_around_a_network_is_that_network(wrapped: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = WRAPPED[wrapped](Net())
    asked: dict[str, Any] = {"card": FACTS, "as_is": True, "core": 64, "export": "none", "progress": False}
    found = segment_image(PIXELS[:128, :128], tmp_path / "run", model=network, **asked).labels.compute()
    inner = getattr(network, "module", getattr(network, "_orig_mod", network)).eval().float()
    normalised = torch.from_numpy((PIXELS[:128, :128].astype(np.float32) - 120) / 60).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = inner(normalised)[0].argmax(0).numpy()
    assert len(np.unique(expected)) == 2
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_parametrized_weights_are_those_that_are_computed_with(norm: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    first = getattr(nn.utils.parametrizations, norm)(nn.Conv2d(3, 6, 3, padding=1))
    network = nn.Sequential(first, nn.ReLU(), nn.Conv2d(6, 2, 1)).eval()
    asked: dict[str, Any] = {"card": FACTS, "as_is": True, "core": 64, "export": "none", "progress": False}
    found = segment_image(PIXELS[:128, :128], tmp_path / "run", model=network, **asked).labels.compute()
    normalised = torch.from_numpy((PIXELS[:128, :128].astype(np.float32) - 120) / 60).permute(2, 0, 1)[None]
    with torch.inference_mode():
        np.testing.assert_array_equal(found, network(normalised)[0].argmax(0).numpy())
    assert hasattr(network[0], "parametrizations"), "the caller's stays as it is"


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: torch.jit.script(nn.Conv2d(3, 2, 1)), "is TorchScript, .*give the network that it was made of"),
        (lambda: nn.Sequential(nn.LazyConv2d(2, 1)), "has parameters without values"),
        (lambda: nn.Conv2d(3, 2, 1).to("meta"), "has parameters without values"),
        (lambda: nn.Conv2d, "a name, a path or a torch.nn.Module is needed, not type"),
        (lambda: nn.Conv2d(3, 2, 1).state_dict(), "needed, not OrderedDict; .*a state_dict loaded into"),
        (lambda: None, "needed, not NoneType"),
    ],
)
def test_what_is_no_network_to_compute_with_is_refused(model: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises((BundleError, ConfigError), match=said) as refused:
        segment_image(PIXELS[:64, :64], tmp_path / "run", model=model(), card=FACTS, as_is=True, progress=False)
    assert "\n" not in str(refused.value)


def test_bands_and_regions_are_lists_too(tmp_path: Path) -> None:
    asked = {"image": "a.tif", "out": tmp_path, "bands": [3, 2, 1], "region": (0, 0, 64, np.int64(64))}
    config = SegmentConfig.model_validate({**asked, "normalise": [0, 1.5], "export": ["cog", "statistics"]})
    assert (config.bands, config.region, config.normalise) == ("3,2,1", "0,0,64,64", "0,1.5")
    assert config.export == "cog,statistics"
    for wrong in ([], [None], ["a,b"], {"a": 1}, [[1]], [True]):
        with pytest.raises(ValueError, match="bands"):
            SegmentConfig.model_validate({**asked, "bands": wrong})


class Named:
    """As xarray names axes; no pixel of it is looked at."""

    def __init__(self, shape: tuple[int, ...], *dims: str) -> None:
        self.shape, self.dims, self.dtype = shape, dims, np.dtype("uint8")


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((3, 512, 512), "u1"), r"bands first, .*move its axes with np\.moveaxis\(array, 0, -1\)"),
        (np.zeros((4, 512, 300), "u2"), "move its axes"),
        (np.zeros((1, 64, 64), "u1"), "move its axes"),
        (torch.zeros((3, 128, 128), dtype=torch.uint8), "move its axes"),
        (Named((3, 9, 9), "band", "y", "x"), r"array\.transpose\('y', 'x', 'band'\)"),
        (Named((13, 64, 64), "c", "row", "col"), r"array\.transpose\('row', 'col', 'c'\)"),
        (np.zeros((1, 3, 512, 512), "u1"), "move its axes"),
        (Named((9, 8), "x", "y"), r"axes \(x, y\), .*array\.transpose\('y', 'x'\)"),
        (Named((3, 9, 8), "band", "x", "y"), r"array\.transpose\('y', 'x', 'band'\)"),
        (Named((90, 80, 3), "lon", "lat", "band"), r"array\.transpose\('lat', 'lon', 'band'\)"),
        (Named((5, 90, 80), "time", "y", "x"), r"take one of its time with array\.isel\(time=0\)"),
    ],
)
def test_axes_in_another_order_are_refused_with_the_way_to_move_them(array: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=said):
        segment_image(array, tmp_path / "run", image_mpp=0.5, progress=False)


def test_a_low_image_is_no_image_of_few_bands(tmp_path: Path) -> None:
    low: NDArray[np.uint8] = np.ascontiguousarray(PIXELS[:16, :200])
    result = segment_image(low, tmp_path / "run", image_mpp=0.5, core=64, export="none", progress=False)
    assert result.labels.shape == (16, 200)


def test_arrays_of_other_libraries_are_arrays(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"image_mpp": 0.5, "core": 64, "export": "none", "objects": "none", "progress": False}
    pixels = PIXELS[:64, :64]
    for name, array in (("torch", torch.from_numpy(pixels)), ("pillow", Image.fromarray(pixels))):
        result = segment_image(array, tmp_path / name, **asked)
        np.testing.assert_array_equal(result.image.compute(), pixels)
    for unlike in (torch.zeros(8, 8, 3, requires_grad=True), object(), 3.5):
        with pytest.raises(SourceError, match=r"^(an object of type|an array of (shape|type)) .*") as refused:
            segment_image(unlike, tmp_path / "run", **asked)
        assert "\n" not in str(refused.value)


def test_a_run_in_the_home_folder_lies_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    segment_image(PIXELS[:64, :64], "~/run", image_mpp=0.5, core=64, export="none", progress=False)
    assert open_run("~/run").complete
    assert [each.name for each in tmp_path.iterdir()] == ["run"]


def test_the_executor_follows_one_rule(tmp_path: Path) -> None:
    config = SegmentConfig.model_validate({"image": "a.tif", "out": tmp_path})
    assert choose_executor("auto", config, 10**6) == "local"
    assert choose_executor("auto", config, LOCAL_BYTES + 1) == "ray"
    assert choose_executor("local", config, 10**12) == "local"
    assert choose_executor("ray", config, 1) == "ray"
    for spread in ({"workers": 2}, {"ray_address": "head:6379"}):
        named = config.model_copy(update=spread)
        assert choose_executor("auto", named, 1) == "ray"
        with pytest.raises(ConfigError, match="executor local computes in this process"):
            choose_executor("local", named, 1)
    with pytest.raises(ConfigError, match="executor: give one of auto, local, ray, not 'dask'"):
        choose_executor("dask", config, 1)  # type: ignore[arg-type]


def test_an_interrupt_lets_tiles_end_and_the_same_call_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = write_tissue(tmp_path / "slide.tif", 256, 256)
    asked: dict[str, Any] = {"core": 32, "foreground": "none", "export": "none", "image_mpp": 0.5, "progress": False}

    def stop_after_three(process: Any) -> Any:
        def processed(worker: Any, *given: Any, **options: Any) -> Any:
            if next(begun) == 3:
                os.kill(os.getpid(), signal.SIGINT)
            return process(worker, *given, **options)

        return processed

    begun = itertools.count()
    monkeypatch.setattr(TileWorker, "process", stop_after_three(TileWorker.process))
    with pytest.raises(KeyboardInterrupt):
        segment_image(image, tmp_path / "run", **asked)
    before = [record.tile for record in Run.open(tmp_path / "run").ledger.records()]
    assert 3 <= len(before) <= 6, "those in flight have ended, and no other was begun"
    assert segment_image(image, tmp_path / "run", **asked).complete
    tiles = [record.tile for record in Run.open(tmp_path / "run").ledger.records()]
    assert sorted(tiles) == list(range(64)), "what was computed before is not computed again"


def test_a_result_is_exported_shown_and_rerun(tmp_path: Path) -> None:
    result = segment_image(PIXELS, tmp_path / "run", image_mpp=0.5, core=128, export="none", progress=False)
    files = result.export("qupath", "statistics")
    assert {file.name for file in files} >= {"statistics.parquet"}
    assert result.export("qupath") == []
    assert result.export("qupath", force=True) != []
    with pytest.raises(ConfigError, match="'png' is no format"):
        result.export("png")
    assert result.to_xarray().labels.dims == ("y", "x")
    assert result.rerun("0,0", progress=False) is result
    assert len([record for record in result.run.ledger.records() if record.tile == 0]) == 2
    shown: list[tuple[str, Any]] = []

    class Viewer:
        def __getattr__(self, name: str) -> Any:
            return lambda data, **looks: shown.append((name, looks["name"]))

    result.to_napari(Viewer())
    assert [kind for kind, _ in shown] == ["add_image", "add_labels", "add_labels"]
    assert shown[-1][1].startswith("objects of ")
    assert open_run(tmp_path / "run").summary.startswith("9 of 9 tiles")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["memory"]["workers"] == 1
