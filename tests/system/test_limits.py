"""Input that is too deep, too long or unfolds to too much is refused on one line, in bounded memory."""

from __future__ import annotations

import os
import resource
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cli import OVERTILE
from drawn import draw_run

from flows.lifecycle.environment import bypass_proxy_on_localhost
from flows.pool.socket_folder import LONGEST_BYTES, short_folder
from tiling.archives.slide_ledger import SlideLedger
from tiling.errors import AnnotationError, RunError, SourceError
from tiling.runs.ledger import Ledger
from tiling.runs.pyramid_metadata import is_made, open_group
from tiling.runs.run import Run
from tiling.selection.geojson import read_geojson
from tiling.selection.outline import Outline
from tiling.source import open_source
from tiling.sources.omezarr.metadata import parse
from tiling.storage.lease import Holder
from unet_core.bundles.card import read_card
from unet_core.bundles.facts import read_facts
from unet_core.bundles.weights import read_weights
from unet_core.errors import BundleError

NONSENSE = (
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"tile": ' + b"9" * 5000 + b', "state": "done"}',
    b"\xff\xfe",
    b"null",
)


@pytest.mark.parametrize("raw", NONSENSE, ids=["list", "object", "digits", "bytes", "null"])
def test_json_that_is_too_deep_or_too_long_is_refused_on_one_line(raw: bytes, tmp_path: Path) -> None:
    def file(name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        return path

    ledger = file("ledger/00000001.jsonl").parent
    run, model, group = (file(name).parent for name in ("run/run.json", "model/model.json", "mask/zarr.json"))
    (model / "weights.safetensors").touch()
    region, facts = file("region.geojson"), file("card.json")
    asked: tuple[tuple[Callable[[], Any], type[Exception]], ...] = (
        (lambda: Ledger(ledger, 4).fold(), RunError),
        (lambda: SlideLedger(ledger), RunError),
        (lambda: Run.open(run), RunError),
        (lambda: Outline.load(region, ""), RunError),
        (lambda: open_group(group, "mask", read_only=True), RunError),
        (lambda: read_geojson(region, None), AnnotationError),
        (lambda: parse(raw, "zarr.json"), SourceError),
        (lambda: read_card(model), BundleError),
        (lambda: read_facts(facts), BundleError),
    )
    for ask, kind in asked:
        with pytest.raises(kind) as raised:
            ask()
        assert "\n" not in str(raised.value)
        assert len(str(raised.value)) < 1000
    assert is_made(group)
    assert Holder.parse(raw) is None


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_weights_that_unfold_are_refused_before_they_are_read(suffix: str, tmp_path: Path) -> None:
    plain, packed = tmp_path / f"plain{suffix}", tmp_path / f"packed{suffix}"
    torch.save({"w": torch.zeros(20_000_000)}, plain)
    assert set(read_weights(plain)) == {"w"}
    with zipfile.ZipFile(plain) as whole, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as small:
        for name in whole.namelist():
            small.writestr(name, whole.read(name))
    assert packed.stat().st_size < 1_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BundleError, match=r"hold compressed records, 80\d+ bytes in a file of .* never writes"):
        read_weights(packed)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000, "kB"


def test_a_header_of_safetensors_that_is_longer_than_any_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    for length in (2**63, 2**25, 1000):
        path.write_bytes(length.to_bytes(8, "little") + b"{" * 100)
        with pytest.raises(BundleError, match=f"a header of {length} bytes is none"):
            read_weights(path)


def test_a_working_folder_that_is_gone_is_told_on_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f'cd "{gone}" && rmdir "{gone}" && exec "{OVERTILE}" status x'
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert "the folder that this command stands in is gone" in line
    assert "cd into one that exists" in line


def test_a_long_tmpdir_leaves_sockets_where_their_paths_are_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    assert len(os.fsencode(short_folder())) <= LONGEST_BYTES
    monkeypatch.setattr("tempfile.tempdir", "/tmp")
    assert short_folder() == Path("/tmp")


@pytest.mark.parametrize("variable", ["http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"])
def test_no_proxy_stands_before_this_machine(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.request

    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    bypass_proxy_on_localhost()
    assert "NO_PROXY" not in os.environ
    monkeypatch.setenv(variable, "http://192.0.2.1:9")
    monkeypatch.setenv("NO_PROXY", "example.org")
    bypass_proxy_on_localhost()
    bypass_proxy_on_localhost()
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == "example.org,127.0.0.1,localhost"
    assert urllib.request.proxy_bypass("127.0.0.1:4200")
    assert not urllib.request.proxy_bypass("example.com")


UNICODE, NOT_UTF_8, LONG = "ünïcode 细胞", b"not \xff utf-8", b"x" * 255
TELLING = [("C", NOT_UTF_8), ("tr_TR.UTF-8", UNICODE), ("POSIX", LONG)]


@pytest.mark.parametrize(
    ("locale", "name"),
    [
        pytest.param(locale, name, marks=() if (locale, name) in TELLING else pytest.mark.slow)
        for locale in ("C", "POSIX", "de_DE.UTF-8", "tr_TR.UTF-8", "C.UTF-8")
        for name in (UNICODE, NOT_UTF_8, LONG)
    ],
)
def test_a_run_of_any_name_is_shown_under_any_locale(locale: str, name: str | bytes, tmp_path: Path) -> None:
    draw_run(tmp_path / "run")
    place = os.path.join(os.fsencode(tmp_path), os.fsencode(name))  # noqa: PTH118 (bytes)
    os.rename(tmp_path / "run", place)  # noqa: PTH104
    environment = {**os.environ, "LC_ALL": locale, "TZ": "Pacific/Chatham"}
    environment.pop("PYTHONUTF8", None)
    command = [os.fsencode(OVERTILE), b"status", place]
    ended = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert b"Traceback" not in ended.stderr


def test_an_image_whose_name_no_card_can_hold_is_refused_before_anything_starts(tmp_path: Path) -> None:
    image = os.path.join(os.fsencode(tmp_path), b"not \xff utf-8.png")  # noqa: PTH118 (bytes)
    Path(os.fsdecode(image)).touch()
    command = [os.fsencode(OVERTILE), b"segment", image, b"--out", os.fsencode(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "COLUMNS": "1000"})
    assert ended.returncode == 2
    (line,) = ended.stderr.decode().splitlines()
    assert "is not UTF-8" in line
    assert "rename it" in line
    assert not (tmp_path / "out").exists()
    with pytest.raises(SourceError, match="not UTF-8"):
        open_source(os.fsdecode(image))
