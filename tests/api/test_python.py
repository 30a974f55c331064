"""In Python: the documented example as it stands, arrays of every kind, lazy results with coordinates, a notebook."""

from __future__ import annotations

import asyncio
import inspect
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray
from cli import clean_environment, hear_signals, on_disk, write_tissue
from drawn import draw_run
from finished import finished_run, labels_of
from numpy.typing import NDArray
from rasterio.crs import CRS

from flows import open_run, segment_image
from flows.api import child_process
from flows.api.child_process import run_in_child_process
from flows.config.export import ExportConfig
from flows.config.run import RerunConfig
from flows.errors import ConfigError, FlowError
from flows.run.exports import export_here
from tiling.errors import DiskError, ExportError, PlanError, RunError, SourceError
from tiling.runs.array_image import ARRAY_NAME, write_array
from tiling.runs.ledger import TileState
from tiling.runs.run import Run
from tiling.storage.place import lock_run

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
HOSTILE = '"><script>alert(1)</script>\x1b[2J'


@pytest.fixture(scope="module")
def example(prefect_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the page's example has left in its names, run where a notebook runs it: inside a running event loop."""
    folder, home = tmp_path_factory.mktemp("example"), tmp_path_factory.mktemp("prefect-client")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}

    async def cell() -> None:
        assert asyncio.get_running_loop().is_running()
        for statement in re.split(r"\n(?=\S)", code.strip()):
            run_statement(statement, names)

    with pytest.MonkeyPatch.context() as patch:
        for name, value in clean_environment(home, PREFECT_API_URL=prefect_url).items():
            patch.setenv(name, value)
        patch.chdir(folder)
        asyncio.run(cell())
        yield names


def run_statement(statement: str, names: dict[str, Any]) -> None:
    """Run it; where the page says what it gives, hold it against that."""
    code, _, said = statement.partition("  # → ")
    if not said:
        exec(code, names)
        return
    assert repr(eval(code, names)) == said.strip()


@pytest.mark.soak
def test_the_documented_example_runs_inside_an_event_loop(example: dict[str, Any]) -> None:
    result, pixels = example["result"], example["pixels"]
    np.testing.assert_array_equal(result.image.compute(), pixels)
    assert isinstance(result.labels, da.Array)
    assert (result.labels == 1).mean().compute() == pytest.approx(result.statistics()[1]["share_of_computed"])
    assert "ray" not in vars(sys.modules["flows.api.segment_image"])
    assert Run.open(Path("runs/colon")).card.model.name == "nuclei"


def test_another_array_than_the_runs_own_is_refused(tmp_path: Path) -> None:
    pixels = waves((300, 200, 3), "uint8")
    write_array(pixels, tmp_path / "run" / ARRAY_NAME, lambda done, total: None)
    finished_run(tmp_path / "run" / ARRAY_NAME, tmp_path / "run")
    other = pixels.copy()
    other[250, 120, 1] ^= 1
    with pytest.raises(RunError, match=r"holds another array \(pixels differ in"):
        segment_image(other, out=tmp_path / "run", progress=False)
    with pytest.raises(RunError, match=r"there, .* given"):
        segment_image(pixels[:299], out=tmp_path / "run", progress=False)


def waves(shape: tuple[int, ...], dtype: str = "uint16") -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize(
    ("image", "options", "error", "said"),
    [
        (waves((4, 50, 50, 3)), {}, SourceError, r"shape \(4, 50, 50, 3\) is no image: .* take one plane"),
        (np.ones((50, 50), bool), {}, SourceError, r"type bool is no image: .*astype"),
        (np.ones((50, 0, 3), "u1"), {}, SourceError, r"is no image, since it holds no pixels"),
        (None, {}, SourceError, r"None is no image: give a path"),
        (7, {}, SourceError, r"type int is no image: give a path"),
        (waves((64, 64, 3), "float64"), {}, FlowError, r"is float64: .*percentiles:1,99, or use a model for such"),
        (
            np.ma.masked_equal(waves((64, 64, 3), "uint8"), 7),
            {},
            SourceError,
            r"has masked pixels, .*np\.nan",
        ),
        (waves((64, 64, 3)), {}, FlowError, r"takes uint8 and .* is uint16: .*--normalise"),
        (waves((64, 64), "uint8"), {}, FlowError, r"takes 3 band"),
        (waves((64, 64, 3), "uint8"), {"cores": 256}, ConfigError, "cores: there is no such key; known are .*core"),
        (waves((64, 64, 3), "uint8"), {"core": "big"}, ConfigError, "core: .* not 'big'"),
        ("nowhere.svs", {}, SourceError, r"nowhere\.svs"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(
    image: Any, options: dict[str, Any], error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/process/is/started")
    with pytest.raises(error, match=said):
        segment_image(image, progress=False, **options)


def test_a_folder_of_something_else_or_of_another_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_bytes(b"years of work")
    with pytest.raises(RunError, match="nothing in it is overwritten"):
        segment_image(waves((64, 64, 3), "uint8"), out=tmp_path, progress=False)
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.docx"]
    (tmp_path / "runs").mkdir()
    draw_run(tmp_path / "runs" / "slide")
    with pytest.raises(RunError, match=r"holds a run of .*tissue\.png"):
        segment_image(waves((64, 64, 3), "uint8"), out=tmp_path / "runs" / "slide", progress=False)
    assert not (tmp_path / "runs" / "slide" / ARRAY_NAME).exists()


def test_a_process_that_dies_without_a_word_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    config = RerunConfig(run=tmp_path, failed=True)
    with pytest.raises(FlowError, match="ended with code 1 and said nothing; the same call resumes"):
        run_in_child_process("rerun", config, lambda progress: None)


def test_errors_cross_by_name(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="disk is full"):
        child_process._raise_if_failed({"kinds": ["NewerError", "DiskError", "TilingError"], "message": "disk is full"})  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(FlowError, match="a bug, please report it: Traceback"):
        child_process._raise_if_failed({"kinds": ["KeyError"], "message": "Traceback …"})  # pyright: ignore[reportPrivateUsage]


def test_a_slide_becomes_a_dataset_in_micrometres(data_dir: Path, tmp_path: Path) -> None:
    run = finished_run(data_dir / "slides" / "CMU-1-Small-Region.svs", tmp_path / "run", core=512, probabilities=True)
    dataset = open_run(run.path).to_xarray()
    assert run.pixel_size is not None
    assert dataset.labels.dims == ("y", "x")
    assert dataset.probabilities.dims == ("class", "y", "x")
    assert dataset["class"].values.tolist() == ["nucleus", "gland & <duct>"]
    assert dataset.x.attrs["units"] == "µm"
    np.testing.assert_allclose(dataset.x[:2], [0.5 * run.pixel_size.x, 1.5 * run.pixel_size.x])
    np.testing.assert_array_equal(dataset.labels, labels_of(run))
    assert dataset.labels.attrs["flag_values"].tolist() == [0, 1, 2, 255]
    assert dataset.labels.attrs["flag_meanings"].split()[-1] == "not_predicted"
    assert dask.is_dask_collection(dataset.labels.data)
    dataset.to_zarr(tmp_path / "dataset.zarr", consolidated=False)
    again = xarray.open_zarr(tmp_path / "dataset.zarr", consolidated=False)
    xarray.testing.assert_equal(again, dataset)


@pytest.mark.parametrize("level", [0, 1])
def test_a_map_becomes_a_dataset_on_the_map(data_dir: Path, tmp_path: Path, level: int) -> None:
    image = data_dir / "geo" / "rio-tiler" / "cog.tif"
    dataset = open_run(finished_run(image, tmp_path / "run", level=level).path).to_xarray()
    with rasterio.open(image) as source:
        bounds, crs = source.bounds, source.crs
    half = abs(dataset.attrs["transform"][0]) / 2, abs(dataset.attrs["transform"][4]) / 2
    np.testing.assert_allclose(dataset.x[[0, -1]], [bounds.left + half[0], bounds.right - half[0]])
    np.testing.assert_allclose(dataset.y[[0, -1]], [bounds.top - half[1], bounds.bottom + half[1]])
    assert CRS.from_user_input(dataset.attrs["crs"]) == crs
    assert dataset.x.attrs["units"] == "m"


def test_a_rotated_map_keeps_its_transform_and_counts_pixels(data_dir: Path, tmp_path: Path) -> None:
    image = data_dir / "geo" / "rasterio" / "rotated.tif"
    dataset = open_run(finished_run(image, tmp_path / "run").path).to_xarray()
    with rasterio.open(image) as source:
        np.testing.assert_allclose(dataset.attrs["transform"], source.transform[:6])
    assert dataset.x.attrs["units"] == "pixel"
    assert float(dataset.x[0]) == 0.5


def test_without_xarray_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = open_run(draw_run(tmp_path / "run").path)
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ExportError, match="pip install xarray"):
        result.to_xarray()


def test_a_notebook_shows_a_run_without_its_mask(tmp_path: Path) -> None:
    classes = (("background", "#000000"), (HOSTILE, "#56b4e9"))
    run = draw_run(tmp_path / HOSTILE.replace("/", ""), failed={(1, 1): HOSTILE}, skipped=((2, 3),), classes=classes)
    result = open_run(run.path)
    plain_page = result._repr_html_()  # pyright: ignore[reportPrivateUsage]
    export_here(ExportConfig(run=run.path, formats="statistics"))
    rows = result.statistics()
    counted = np.bincount(labels_of(run).ravel(), minlength=256)
    skipped = missing = 128 * 128
    assert [row["pixels"] for row in rows] == [counted[0] - skipped, counted[1], skipped, missing]
    shutil.rmtree(on_disk(run.mask_path) / "0")
    page = result._repr_html_()  # pyright: ignore[reportPrivateUsage]
    for html in (plain_page, page):
        assert "<script" not in html
        assert "\x1b" not in html
        assert len(html) < 100_000
        assert "10 of 12 tiles computed, 1 skipped as empty" in html
        assert "1 failed tile;" in html
        assert "data:image/jpeg;base64," in html
    assert f"{rows[1]['objects']:,} objects" in page
    assert "objects" not in plain_page
    assert repr(result) == f"<Segmentation {run.path}: 10 of 12 tiles computed, 1 skipped, 1 failed>"


def test_a_run_without_a_picture_has_a_page_all_the_same(tmp_path: Path) -> None:
    run = draw_run(tmp_path / "run", pending=((0, 0),))
    on_disk(run.overlay_path).unlink()
    html = open_run(run.path)._repr_html_()  # pyright: ignore[reportPrivateUsage]
    assert "<img" not in html
    assert "1 to do" in html


def test_help_names_every_option() -> None:
    assert "image_mpp: What a pixel of level 0 measures" in (segment_image.__doc__ or "")
    assert inspect.signature(segment_image).parameters["core"].default is None


@pytest.mark.soak
def test_failed_tiles_are_computed_again(reporting: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = draw_run(tmp_path / "run", failed={(1, 1): "it broke", (2, 3): "so did this"})
    result = open_run(run.path)
    labels = result.labels
    assert (labels == 255).any().compute()
    assert result.rerun("1,1") is result
    assert [*result.failed] == ["2,3"]
    result.rerun()
    assert result.failed == {}
    assert not (labels == 255).any().compute(), "what dask computes is the mask as it is now"
    assert "12 of 12 tiles computed, 0 skipped, 0 failed" in capsys.readouterr().err
    with pytest.raises(PlanError, match="9,9"):
        result.rerun("9,9", progress=False)


@pytest.mark.soak
def test_an_interrupted_call_goes_on(reporting: None, tmp_path: Path) -> None:
    image = write_tissue(tmp_path / "slide.tif", 1024, 1024)
    script = tmp_path / "script.py"
    call = f"segment_image({str(image)!r}, out='run', core=64, foreground='none', export='none', workers=1)"
    script.write_text(f"from flows import segment_image\n{call}\n")
    caller = subprocess.Popen([sys.executable, script], cwd=tmp_path, stderr=subprocess.PIPE, preexec_fn=hear_signals)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run" / "ledger").glob("*.jsonl")) or done(tmp_path / "run") == 0:
        assert caller.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    caller.send_signal(signal.SIGINT)
    _, said = caller.communicate(timeout=60)
    assert caller.returncode == -signal.SIGINT
    assert said.rstrip().endswith(b"KeyboardInterrupt")
    with lock_run(tmp_path / "run"):
        before = done(tmp_path / "run")
    assert 0 < before < 256
    result = segment_image(image, out=tmp_path / "run", core=64, foreground="none", export="none", workers=2)
    assert result.summary == "256 of 256 tiles computed, 0 skipped, 0 failed"


def done(run: Path) -> int:
    return Run.open(run).ledger.fold().count(TileState.DONE)
