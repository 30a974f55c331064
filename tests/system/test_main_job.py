"""The main job as a person runs it: segment, status, rerun, resume, and every clear error."""

from __future__ import annotations

import json
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import tifffile
from cli import Cli, clean_environment, free_port, mask_files, tissue, tissue_photograph, write_tissue
from numpy.typing import NDArray
from oracle import Whole, whole_image_labels
from PIL import Image
from waiting import wait_for_tiles

from flows.commands.demo import demo_image
from flows.reporting.prefect_names import artifact_key
from tiling.geometry import Box
from tiling.runs.ledger import TileRecord, TileState
from tiling.runs.run import Run
from tiling.source import open_source
from unet_core.bundles.bundle import load_bundle


def read_all(image: Path) -> NDArray[np.generic]:
    with open_source(image) as source:
        return source.read(0, source.levels[0].box)


def records(run: Path) -> list[TileRecord]:
    return list(Run.open(run).ledger.records())


@pytest.fixture(scope="module")
def segmented(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run over tissue whose sides are no multiple of anything."""
    folder = tmp_path_factory.mktemp("segmented")
    image = write_tissue(folder / "tissue.tif", 650, 519)
    ended = cli.run("segment", image, "--out", folder / "run", "--core", 128, "--foreground", "none")
    assert ended.code == 0, ended.err
    assert "complete: 30 of 30 tiles" in ended.out
    return folder / "run"


def test_the_whole_path_gives_the_labels_of_one_pass(segmented: Path) -> None:
    run = Run.open(segmented)
    expected = whole_image_labels(load_bundle("nuclei"), read_all(Path(run.card.image.path)))
    assert expected.any()
    np.testing.assert_array_equal(run.open_mask().read(Box(0, 0, 650, 519)), expected)


def test_a_finished_run_holds_what_the_design_says(segmented: Path) -> None:
    card = json.loads((segmented / "run.json").read_text())
    assert card["image"]["extent"] == [650, 519]
    assert card["geometry"]["halo"] == [94, 94, 94, 94]
    assert not (segmented / "staged.zarr").exists()
    done = records(segmented)
    assert sorted(r.tile for r in done) == list(range(30))
    assert {r.state for r in done} == {TileState.DONE}
    assert all(set(r.seconds) >= {"read", "compute", "write"} for r in done)
    with Image.open(segmented / "overlay.png") as overlay:
        assert overlay.size == (519, 650)


def test_segmenting_again_computes_nothing_and_changes_nothing(cli: Cli, segmented: Path) -> None:
    before, known = mask_files(segmented), len(records(segmented))
    image = Run.open(segmented).card.image.path
    ended = cli.run("segment", image, "--out", segmented, "--core", 128, "--foreground", "none")
    assert ended.code == 0, ended.err
    assert mask_files(segmented) == before
    assert len(records(segmented)) == known


def test_rerun_mends_one_tile_and_leaves_other_shards_untouched(cli: Cli, segmented: Path) -> None:
    before = mask_files(segmented)
    times = {p: p.stat().st_mtime_ns for p in (segmented / "mask.ome.zarr").rglob("*") if p.is_file()}
    shard = segmented / "mask.ome.zarr/0/c/2/1"
    shard.write_bytes(b"rotten" * 20)
    ended = cli.run("rerun", segmented, "--tile", "2,1")
    assert ended.code == 0, ended.err
    assert mask_files(segmented) == before
    rewritten = {str(p.relative_to(segmented)) for p, t in times.items() if p.stat().st_mtime_ns != t}
    assert rewritten == {"mask.ome.zarr/0/c/2/1", "mask.ome.zarr/1/c/1/0"}
    assert [r.tile for r in records(segmented)][-1] == Run.open(segmented).plan.at(2, 1).index


def test_status_draws_the_grid_from_the_ledger(cli: Cli, segmented: Path) -> None:
    ended = cli.run("status", segmented)
    assert ended.code == 0
    assert "30 done, 0 skipped, 0 failed, 0 to do of 30 tiles" in ended.out
    assert ended.out.count("█████\n") == 6


@pytest.fixture(scope="module")
def undisturbed(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[object, ...], dict[str, bytes]]:
    """A command of 144 tiles that lacks its folder, and the mask that it makes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    image = write_tissue(folder / "tissue.tif", 1500, 1500)
    options = ("--model", "nuclei-small", "--core", 128, "--foreground", "none", "--workers", 2)
    command = ("segment", image, *options, "--out")
    ended = cli.run(*command, folder / "run")
    assert ended.code == 0, ended.err
    return command, mask_files(folder / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ([signal.SIGKILL], -9),
        ([signal.SIGTERM], 143),
        pytest.param([signal.SIGTERM, signal.SIGTERM], 143, marks=pytest.mark.soak),
    ],
)
def test_a_stopped_driver_resumes_with_the_missing_tiles_only(
    cli: Cli,
    undisturbed: tuple[tuple[object, ...], dict[str, bytes]],
    tmp_path: Path,
    sent: list[signal.Signals],
    code: int,
) -> None:
    command, expected = undisturbed
    driver = cli.start(*command, tmp_path / "killed")
    known = wait_for_tiles(tmp_path / "killed", 20)
    for each in sent:
        driver.send_signal(each)
        time.sleep(0.2)  # an impatient person
    assert driver.wait(60) == code
    done_before = {r.tile for r in records(tmp_path / "killed")}
    assert 20 <= known <= len(done_before) < 144
    resumed = cli.run(*command, tmp_path / "killed")
    assert resumed.code == 0, resumed.err
    tiles = [r.tile for r in records(tmp_path / "killed")]
    assert sorted(tiles) == list(range(144)), "every tile is in the ledger once: none lost, none computed twice"
    assert mask_files(tmp_path / "killed") == expected


@pytest.mark.slow
def test_without_staging_the_mask_is_the_same(cli: Cli, segmented: Path, tmp_path: Path) -> None:
    image = Run.open(segmented).card.image.path
    ended = cli.run("segment", image, "--out", tmp_path / "r", "--core", 128, "--foreground", "none", "--no-staging")
    assert ended.code == 0, ended.err
    assert mask_files(tmp_path / "r") == mask_files(segmented)


@pytest.mark.slow
def test_a_tile_that_does_not_decode_fails_alone(cli: Cli, tmp_path: Path) -> None:
    image = write_tissue(tmp_path / "tissue.tif", 640, 640)
    asked = ("--core", 128, "--foreground", "none", "--keep-staged")
    whole = cli.run("segment", image, "--out", tmp_path / "whole", *asked)
    assert whole.code == 0, whole.err
    assert len([*(tmp_path / "whole").glob("staged.zarr/c.*")]) == 25
    damaged = tmp_path / "damaged.tif"
    damaged.write_bytes(damage_one_segment(image, row=4, col=4))
    ended = cli.run("segment", damaged, "--out", tmp_path / "run", "--core", 128, "--foreground", "none")
    assert ended.code == 3, ended.err
    run = Run.open(tmp_path / "run")
    failed = set(run.ledger.fold().failed)
    # Reads reach 96 px beyond a core of 128, and at the far edges they are shifted inwards by as much.
    needing = {t.index for t in run.plan.tiles() if not t.read.intersect(Box(512, 512, 640, 640)).is_empty}
    assert failed == needing
    assert len(failed) < run.plan.count
    labels, expected = run.open_mask(), Run.open(tmp_path / "whole").open_mask()
    for tile in run.plan.tiles():
        wanted = np.full(tile.valid.shape, 255) if tile.index in failed else expected.read(tile.valid)
        np.testing.assert_array_equal(labels.read(tile.valid), wanted)
    assert "tile 4,4: SourceError" in ended.out
    assert f"overtile rerun {tmp_path / 'run'} --failed" in ended.out


def damage_one_segment(image: Path, row: int, col: int) -> bytes:
    content = bytearray(image.read_bytes())
    with tifffile.TiffFile(image) as tiff:
        page = tiff.pages.first
        index = row * (page.imagewidth // page.tilewidth) + col
        offset, length = page.dataoffsets[index], page.databytecounts[index]
    content[offset : offset + length] = b"\x00" * length
    return bytes(content)


@pytest.mark.slow
def test_embedded_prefect_and_ray_run_the_demo(tmp_path: Path) -> None:
    ended = Cli(clean_environment(tmp_path / "home")).run("demo", "--out", tmp_path / "demo")
    assert ended.code == 0, ended.err
    assert "complete: 36 of 36 tiles" in ended.out
    labels = Run.open(tmp_path / "demo").open_mask().read(Box(0, 0, 1411, 1411))
    expected = whole_image_labels(load_bundle("vessels"), read_all(demo_image()), Whole(stride=8))
    assert expected.any()
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.soak
def test_a_full_disk_while_staging_stops_clearly_and_resumes(cli: Cli, small_disk: Path, tmp_path: Path) -> None:
    image = write_tissue(tmp_path / "tissue.tif", 1024, 1024)
    command = ("segment", image, "--core", 512, "--foreground", "none", "--workers", 1, "--out", small_disk / "run")
    full = cli.run(*command)
    assert full.code == 1, full.err
    lines = [line for line in full.err.splitlines() if line.strip()]
    assert len(lines) == 1, full.err
    assert "No space left on device" in lines[0]
    assert "make space or choose another --out, then run the same command again" in lines[0]
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    resumed = cli.run(*command)
    assert resumed.code == 0, resumed.err
    labels = Run.open(small_disk / "run").open_mask().read(Box(0, 0, 1024, 1024))
    np.testing.assert_array_equal(labels, whole_image_labels(load_bundle("nuclei"), read_all(image)))


def test_models_are_listed(cli: Cli) -> None:
    ended = cli.run("models")
    assert ended.code == 0
    assert "nuclei" in ended.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.svs"], r"absent.svs"),
        (["empty.tif"], r"empty.tif"),
        pytest.param(["truncated.tif"], r"truncated.tif", marks=pytest.mark.slow),
        pytest.param(["text.png"], r"text.png", marks=pytest.mark.slow),
        pytest.param(
            ["good.tif", "--model", "unknown"],
            r"no model called 'unknown': the shipped ones are nuclei",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["good.tif", "--core", "100"],
            r"core 100 px is not a multiple of the model's stride 16 px.*use 96 px",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["good.tif", "--level", "3"], r"level 3 is not in the image; it has levels 0 to 0", marks=pytest.mark.slow
        ),
        pytest.param(["gray.png"], r"takes 3 band\(s\).*has 1", marks=pytest.mark.slow),
        pytest.param(["deep.tif"], r"takes uint8 and .*uint16", marks=pytest.mark.slow),
        pytest.param(
            ["good.tif", "--core", "16000", "--workers", "64"],
            r"GiB are available.*use a core below",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["good.tif", "--foreground", "absent.png"],
            r"foreground mask absent.png can't be read",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_wrong_input_is_told_in_one_line(
    arguments: list[str], message: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    good = write_tissue(tmp_path / "good.tif", 256, 256).read_bytes()
    (tmp_path / "empty.tif").write_bytes(b"")
    (tmp_path / "truncated.tif").write_bytes(good[: len(good) // 3])
    (tmp_path / "text.png").write_text("this is no picture")
    Image.fromarray(tissue(64, 64)[..., 0]).save("gray.png")
    write_deep(tmp_path / "deep.tif")
    ended = cli.run("segment", *arguments, "--out", tmp_path / "run")
    assert ended.code == 2, ended.err
    lines = [line for line in ended.err.splitlines() if line.strip()]
    assert len(lines) == 1, ended.err
    assert lines[0].startswith("error: ")
    assert re.search(message, lines[0]), lines[0]
    assert not (tmp_path / "run" / "run.json").exists() or "foreground" in message


def write_deep(path: Path) -> None:
    tifffile.imwrite(path, tissue(64, 64).astype(np.uint16) * 257, photometric="rgb", tile=(64, 64))


@pytest.mark.slow
def test_a_folder_of_another_run_is_refused_with_the_differences(cli: Cli, segmented: Path) -> None:
    before = mask_files(segmented)
    ended = cli.run("segment", tissue_photograph(), "--out", segmented, "--core", 64)
    assert ended.code == 2
    for difference in ("image fingerprint", "core: 128 here, 64 asked for", "foreground: none here, auto asked for"):
        assert difference in ended.err
    assert mask_files(segmented) == before


def test_a_folder_of_something_else_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    ended = cli.run("segment", tissue_photograph(), "--out", tmp_path)
    assert ended.code == 2
    assert "exists and holds no run.json" in ended.err
    assert [p.name for p in tmp_path.iterdir() if p.name != "driver.lock"] == ["precious.txt"]


def post(url: str, body: dict[str, object]) -> list[dict[str, object]]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_prefect_sees_one_task_per_stage_and_the_progress(segmented: Path, prefect_url: str) -> None:
    artifacts = post(f"{prefect_url}/artifacts/filter", {})
    key = artifact_key("tiles", segmented.resolve())
    ours = [a for a in artifacts if a["key"] == key and str(segmented) in str(a["description"])]
    assert any("30/30 tiles" in str(artifact["description"]) for artifact in ours)
    stages: dict[str, set[object]] = {}
    for artifact in ours:
        tasks = post(f"{prefect_url}/task_runs/filter", {"flow_runs": {"id": {"any_": [artifact["flow_run_id"]]}}})
        names = " ".join(sorted(str(task["name"]).rsplit("-", 1)[0] for task in tasks))
        stages[names] = {task["state_type"] for task in tasks}
    # Reruns of the same folder are flows of their own.
    assert stages.get("export find_objects finish infer plan stage stitch") == {"COMPLETED"}, stages


@pytest.mark.slow
def test_a_running_ray_cluster_is_used(cli: Cli, segmented: Path, tmp_path: Path) -> None:
    ray = Path(sys.executable).parent / "ray"
    port = free_port()
    command = [str(ray), "start", "--head", "--block", "--num-cpus=2", f"--port={port}", "--node-ip-address=127.0.0.1"]
    log = (tmp_path / "ray.log").open("wb")
    environment = {**cli.environment, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    head = subprocess.Popen([*command, "--include-dashboard=false"], env=environment, stdout=log, stderr=log)
    try:
        image = Run.open(segmented).card.image.path
        wait_for_port(port, head)
        options = ("--core", 128, "--foreground", "none", "--ray-address", f"127.0.0.1:{port}")
        ended = Cli(environment).run("segment", image, "--out", tmp_path / "run", *options)
        assert ended.code == 0, ended.err
        assert mask_files(tmp_path / "run") == mask_files(segmented)
        assert head.poll() is None, "the cluster outlives a driver that only attached to it"
    finally:
        head.terminate()
        head.wait(60)
        log.close()


def wait_for_port(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail(f"nothing listens at port {port}")
