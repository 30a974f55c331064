"""Images in Google's cloud storage: read by ranges through the same library, from a real server on localhost."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from cli import mask_files, tissue
from gcs_server import BUCKET, gcs_server, upload
from walks import walk

from tiling.archives.listing import find_slides
from tiling.archives.slide import file_version
from tiling.geometry import Box
from tiling.source import open_source
from tiling.storage.object_path import ObjectPath

pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="the server's program is for Linux on x86-64"
)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with gcs_server() as address:
        yield address


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "tissue.tif"
    tifffile.imwrite(path, tissue(384, 300), photometric="rgb", tile=(128, 128), compression="jpeg")
    return path


def test_pixels_are_those_of_the_file_on_disk(server: str, image: Path) -> None:
    there = upload(server, "a folder/tissue+1.tif", image)
    with open_source(image) as here, open_source(there) as source:
        assert source.describe() == here.describe()
        for box in (Box(0, 0, 384, 300), Box(120, 100, 140, 299)):
            np.testing.assert_array_equal(source.read(0, box), here.read(0, box))


def test_a_run_from_a_bucket_is_the_run_from_disk(server: str, image: Path, tmp_path: Path) -> None:
    walk(image, tmp_path / "here")
    walk(upload(server, "tissue.tif", image), tmp_path / "there")
    assert mask_files(tmp_path / "there") == mask_files(tmp_path / "here")


def test_a_slide_that_is_listed_is_the_slide_that_is_looked_at(server: str, image: Path, tmp_path: Path) -> None:
    place = upload(server, "archive/tissue.tif", image)
    (slide,) = find_slides(f"gs://{BUCKET}/archive", tmp_path)
    assert (slide.name, slide.place) == ("tissue.tif", place)
    assert slide.file_version == file_version(place)
    tifffile.imwrite(tmp_path / "other.tif", tissue(384, 301), photometric="rgb")
    upload(server, "archive/tissue.tif", tmp_path / "other.tif")
    assert slide.file_version != file_version(place)


def test_what_is_not_there_is_missing(server: str) -> None:
    assert file_version(ObjectPath.parse(f"gs://{BUCKET}/none.tif")) is None
