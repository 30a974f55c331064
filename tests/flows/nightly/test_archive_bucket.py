"""An archive whose slides and runs lie in a bucket: two nights, with real workers and a real S3 server."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from nights import assert_done, carry
from object_store import objects_below, place, s3_server
from tiny import save_tiny, write_noise

from flows.config.archive import ArchiveConfig
from flows.nightly.context import NightContext
from flows.nightly.model import archive_model
from flows.nightly.night import NightSummary
from flows.nightly.page import publish
from flows.nightly.scan import scan
from flows.pool.pool import Pool
from tiling.archives.archive import Archive, ArchiveCard
from tiling.runs.run import Run
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import lock_run


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Workers that have the bucket's credentials from their environment, as on a cluster."""
    with s3_server() as endpoint:
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield endpoint
        ray.shutdown()


@pytest.fixture
def asked(cluster: str, tmp_path: Path) -> ArchiveConfig:
    for number in range(3):
        upload(tmp_path, f"sub/{number}.tif", seed=number)
    model = save_tiny(tmp_path / "tiny")
    source, out = str(place("in")), place("out")
    given = {"source": source, "out": out, "model": str(model), "core": 64, "foreground": "none", "workers": 2}
    return ArchiveConfig.model_validate(given)


def upload(folder: Path, name: str, seed: int) -> None:
    (place("in") / name).write_bytes(write_noise(folder / "noise.tif", 130, 100, seed=seed).read_bytes())


def new_context(config: ArchiveConfig, pool: Pool, night: str) -> NightContext:
    card = ArchiveCard(created="", model="tiny", model_digest="", maths_version=1, asked={})
    loaded, bundle = archive_model(config)
    return NightContext(Archive.create_or_resume(config.out, card), config, loaded, bundle, pool, 2**40, night)


@pytest.mark.soak
def test_two_nights_in_a_bucket(asked: ArchiveConfig, tmp_path: Path) -> None:
    with lock_run(asked.out), Pool(2) as pool:
        context = new_context(asked, pool, "first")
        _, known = carry(context)
    assert set(known) == {f"sub/{number}.tif" for number in range(3)}
    assert_done(known)
    run = asked.out / "slides" / "sub" / "1.tif"
    assert isinstance(run, ObjectPath)
    first = {name: data for name, data in objects_below(run).items() if name.startswith("mask.ome.zarr/0/c")}
    assert len(first) == 6
    upload(tmp_path, "sub/1.tif", seed=11)
    upload(tmp_path, "sub/new.tif", seed=12)
    with lock_run(asked.out), Pool(2) as pool:
        context = new_context(asked, pool, "second")
        found = scan(asked, context.archive)
        assert {slide.name for slide in found.todo} == {"sub/1.tif", "sub/new.tif"}
        assert found.unchanged == 2
        _, known = carry(context, slides=found.todo)
    assert {name: record.night for name, record in known.items()} == {
        "sub/0.tif": "first",
        "sub/1.tif": "second",
        "sub/2.tif": "first",
        "sub/new.tif": "second",
    }
    assert_done(known)
    (aside,) = context.archive.earlier("slides/sub/1.tif")
    assert isinstance(aside, ObjectPath)
    assert {name: data for name, data in objects_below(aside).items() if name in first} == first
    assert Run.open(run).card.image.fingerprint != Run.open(aside).card.image.fingerprint
    publish(context.archive, night_of(context))
    assert b"sub/new.tif" in (asked.out / "nights" / "latest.html").read_bytes()


def night_of(context: NightContext) -> NightSummary:
    name = f"{dt.datetime.now(dt.UTC):%Y-%m-%d_%H%M%S}"
    return NightSummary(
        context.archive.path, name, tuple(context.archive.ledger), (), 2, 0, "its work", 1.0, 1.0, 1, 1.0, 0.0
    )
