"""Images in a bucket and on the web are read by ranges, and give the pixels of the same file on disk."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cli import tissue
from object_store import BUCKET, boto_client, faulty_proxy, place
from PIL import Image

from tiling.errors import SourceError, StorageError
from tiling.geometry import Box
from tiling.source import ImageSource, open_source
from tiling.sources.remote import FETCHED_BYTES, GAP_BYTES, SPAN_BYTES, byte_ranges_of

TILED: dict[str, Any] = {"photometric": "rgb", "tile": (128, 128)}
BOXES = (Box(0, 0, 300, 260), Box(250, 100, 500, 399), Box(499, 398, 500, 399))


def write(path: Path, **options: Any) -> Path:
    pixels = tissue(500, 399)
    planar = options.get("planarconfig") == "separate"
    tifffile.imwrite(path, pixels.transpose(2, 0, 1) if planar else pixels, **options)
    return path


def put(path: Path, name: str | None = None) -> str:
    """A copy of a file in the bucket; gives its URL."""
    target = place(name or path.name)
    target.write_bytes(path.read_bytes())
    return str(target)


def test_pixels_are_those_of_the_file_on_disk(s3: str, tmp_path: Path) -> None:
    files = [
        write(tmp_path / "jpeg.tif", **TILED, compression="jpeg"),
        write(tmp_path / "raw tiles.tif", **TILED),
        write(tmp_path / "strips.tif", photometric="rgb", rowsperstrip=7),
        write(tmp_path / "planar+zstd.tif", photometric="rgb", planarconfig="separate", compression="zstd"),
        write(tmp_path / "big.tif", bigtiff=True, **TILED, compression="deflate"),
        tmp_path / "picture.png",
    ]
    Image.fromarray(tissue(500, 399)).save(files[-1])
    for file in files:
        with open_source(file) as here, open_source(put(file)) as there:
            assert there.describe() == here.describe()
            for box in BOXES:
                np.testing.assert_array_equal(there.read(0, box), here.read(0, box))


def test_rows_of_a_wide_uncompressed_image_are_read_and_not_the_rest(s3: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (96, 40_000, 3), np.uint8)
    tifffile.imwrite(tmp_path / "wide.tif", pixels, photometric="rgb")
    url, box = put(tmp_path / "wide.tif"), Box(10, 30_000, 74, 30_100)
    with faulty_proxy(s3, lambda method, path, count: None) as script, open_source(url) as source:
        opened = len(script.bodies)
        np.testing.assert_array_equal(source.read(0, box), pixels[box.slices])
        asked = [rest for _, _, rest in script.bodies[opened:]]
    assert len(asked) == 64
    assert sum(asked) == box.area * 3


def test_a_box_costs_the_segments_under_it(s3: str, tmp_path: Path) -> None:
    url = put(write(tmp_path / "image.tif", **TILED, compression="jpeg"))
    with faulty_proxy(s3, lambda method, path, count: None) as script, open_source(url) as source:
        source.fingerprint()
        opening = len(script.seen)
        source.read(0, Box(0, 0, 256, 256))
        reading = len(script.seen) - opening
        source.read(0, Box(0, 0, 256, 256))
        assert len(script.seen) == opening + reading
    # The six names that files beside it may have are asked for side by side, and the three of them that make pixels
    # once more for the fingerprint.
    assert opening <= 4 + 6 + 3
    assert reading == 1  # the four tiles lie near each other in the file


def test_ranges_near_each_other_are_joined_within_limits() -> None:
    far = 10 * SPAN_BYTES
    joined = list(byte_ranges_of([(100, 10), (0, 10), (110 + GAP_BYTES, 5), (far, 1), (far, 1)], 2 * far))
    assert [(span.start, span.stop) for span in joined] == [(0, 115 + GAP_BYTES), (far, far + 1)]
    assert joined[0].ranges == ((0, 10), (100, 10), (110 + GAP_BYTES, 5))
    assert list(byte_ranges_of([(0, SPAN_BYTES + 1), (far, 100), (5, 0)], far + 99)) == []
    many = list(byte_ranges_of([(index * SPAN_BYTES, SPAN_BYTES) for index in range(9)], far))
    assert sum(span.stop - span.start for span in many) == FETCHED_BYTES


def test_an_image_on_the_web_is_read_by_ranges(s3: str, tmp_path: Path) -> None:
    path = write(tmp_path / "on the web.tif", **TILED, compression="jpeg")
    boto_client(s3).put_object(Bucket=BUCKET, Key="on the web.tif", Body=path.read_bytes(), ACL="public-read")
    with open_source(path) as here, open_source(f"{s3}/{BUCKET}/on%20the%20web.tif") as there:
        np.testing.assert_array_equal(there.read(0, BOXES[1]), here.read(0, BOXES[1]))
        assert there.fingerprint().startswith("object ")


@pytest.mark.parametrize("fault", ["503", "500", "cut", "mute"])
def test_faults_within_the_bound_change_nothing(s3: str, tmp_path: Path, few_retries: None, fault: str) -> None:
    path = write(tmp_path / "image.tif", **TILED, compression="jpeg")
    url = put(path)

    def every_second(method: str, path: str, count: int) -> str | None:
        return fault if count % 2 and method == "GET" else None

    with faulty_proxy(s3, every_second) as script, open_source(path) as here, open_source(url) as there:
        for box in BOXES:
            np.testing.assert_array_equal(there.read(0, box), here.read(0, box))
    assert fault in script.faults


def test_a_store_that_fails_for_good_is_no_damaged_image(s3: str, tmp_path: Path, few_retries: None) -> None:
    url = put(write(tmp_path / "image.tif", **TILED, compression="jpeg"))

    def read_all() -> None:
        with open_source(url) as source:
            for box in (*BOXES, Box(0, 0, 500, 399)):
                source.read(0, box)

    with faulty_proxy(s3, lambda method, path, count: None) as script:
        read_all()
    for good in range(len(script.seen)):  # also while the parser reads, which would take a missing tag for none

        def fail_from_then_on(method: str, path: str, count: int, good: int = good) -> str | None:
            return None if len(failing.seen) < good else "503"

        with (
            faulty_proxy(s3, fail_from_then_on) as failing,
            pytest.raises(StorageError, match="503 Service Unavailable"),
        ):
            read_all()


def test_what_is_not_there_or_not_allowed_is_told(s3: str) -> None:
    with pytest.raises(SourceError, match=r"s3://slides/nothing\.tif: there is no such object"):
        open_source(f"s3://{BUCKET}/nothing.tif")
    with (
        faulty_proxy(s3, lambda method, path, count: "403"),
        pytest.raises(SourceError, match=r"refuses access \(403 Forbidden\); check the credentials"),
    ):
        open_source(f"s3://{BUCKET}/nothing.tif")


def test_an_image_that_is_replaced_under_the_reader_is_refused(s3: str, tmp_path: Path) -> None:
    url = put(write(tmp_path / "image.tif", **TILED))
    with open_source(url) as source:
        before = source.fingerprint()
        travelled: ImageSource = pickle.loads(pickle.dumps(source))
        tifffile.imwrite(tmp_path / "image.tif", tissue(500, 399)[::-1].copy(), **TILED)
        put(tmp_path / "image.tif")
        with pytest.raises(SourceError, match="changed or removed after it was opened"):
            source.read(0, BOXES[1])
        with pytest.raises(SourceError, match="changed after it was opened"):
            travelled.read(0, BOXES[1])
    with open_source(url) as source:
        assert source.fingerprint() != before


def test_hostile_bytes_in_a_bucket_are_a_source_error(s3: str, tmp_path: Path) -> None:
    whole = write(tmp_path / "image.tif", **TILED, compression="jpeg").read_bytes()
    for name, data in {"empty": b"", "text": b"hello", "short": whole[:200], "cut": whole[: len(whole) // 3]}.items():
        place(f"hostile/{name}.tif").write_bytes(data)
        with pytest.raises(SourceError, match=f"s3://slides/hostile/{name}.tif"):
            open_source(f"s3://{BUCKET}/hostile/{name}.tif").read(0, BOXES[0])
