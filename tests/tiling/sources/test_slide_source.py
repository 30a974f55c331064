"""Slides in scanners' own formats read as their own streams decode, through OpenSlide; hostile ones are refused."""

from __future__ import annotations

import pickle
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli import tissue
from finished import labels_of
from numpy.typing import NDArray
from openslide import OpenSlide
from oracle import segment_here
from source_oracle import assert_reads_like, assert_refused, open_and_read
from tiny import save_tiny
from vendor_slides import write_dicom, write_mrxs, write_ndpi, write_scn

from tiling.errors import SourceError
from tiling.geometry import Box, PixelSize
from tiling.source import open_source
from tiling.sources.openslide import reader
from tiling.view import View

Pixels = NDArray[Any]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny") / "model")


def halves(height: int = 600, width: int = 800, levels: int = 3) -> list[Pixels]:
    pixels = tissue(height, width)
    return [np.ascontiguousarray(pixels[:: 2**level, :: 2**level]) for level in range(levels)]


def test_ndpi_reads_as_its_streams_decode(tmp_path: Path) -> None:
    expected = write_ndpi(tmp_path / "slide.ndpi", halves(), mpp=0.5)
    with open_source(tmp_path / "slide.ndpi") as source:
        assert source.format == "hamamatsu"
        assert source.bands == ("red", "green", "blue")
        assert source.levels[0].pixel_size == PixelSize(0.5, 0.5, "um")
        # Below the file's own levels, OpenSlide offers what JPEG decodes to at a smaller scale.
        assert [(level.height, level.width) for level in source.levels][:3] == [(600, 800), (300, 400), (150, 200)]
        for level, pixels in enumerate(expected):
            assert_reads_like(source, level, pixels, boxes=3)
        copy = pickle.loads(pickle.dumps(source))
        np.testing.assert_array_equal(copy.read(1, Box(7, 9, 80, 70)), expected[1][7:80, 9:70])
        assert len(source.fingerprint()) == 64


def test_ndpi_is_known_by_its_tag_whatever_it_is_called(tmp_path: Path) -> None:
    write_ndpi(tmp_path / "slide.tif", halves(levels=1))
    with open_source(tmp_path / "slide.tif") as source:
        assert source.format == "hamamatsu"


def test_dicom_reads_as_its_frames_decode(tmp_path: Path) -> None:
    expected = write_dicom(tmp_path / "slide", halves(), mpp=0.25)
    with open_source(tmp_path / "slide" / "level-0.dcm") as source:
        assert source.format == "dicom"
        assert source.levels[0].pixel_size == PixelSize(0.25, 0.25, "um")
        assert len(source.levels) == 3
        for level, pixels in enumerate(expected):
            assert_reads_like(source, level, pixels, boxes=3)
        first = source.fingerprint()
    (tmp_path / "slide" / "notes.txt").write_text("not of the slide")
    with open_source(tmp_path / "slide" / "level-0.dcm") as source:
        assert source.fingerprint() == first
    changed = bytearray((tmp_path / "slide" / "level-1.dcm").read_bytes())
    changed[-100] ^= 1
    (tmp_path / "slide" / "level-1.dcm").write_bytes(changed)
    with open_source(tmp_path / "slide" / "level-0.dcm") as source:
        assert source.fingerprint() != first


def test_scn_reads_as_its_tiles_decode(tmp_path: Path) -> None:
    expected = write_scn(tmp_path / "slide.scn", halves(768, 1024), mpp=0.5)
    with open_source(tmp_path / "slide.scn") as source:
        assert source.format == "leica"
        assert source.levels[0].pixel_size is not None
        assert source.levels[0].pixel_size.x == pytest.approx(0.5)
        # The slide is larger than what was scanned; the rest has the background's colour.
        whole = source.levels[0]
        pixels = source.read(0, whole.box)
        assert (pixels[:768, :1024] == expected[0]).all()


def test_mrxs_reads_as_its_tiles_decode(tmp_path: Path) -> None:
    expected = write_mrxs(tmp_path / "slide.mrxs", tissue(1024, 1536), mpp=0.25, levels=2)
    with open_source(tmp_path / "slide.mrxs") as source:
        assert source.format == "mirax"
        assert source.levels[0].pixel_size == PixelSize(0.25, 0.25, "um")
        for level, pixels in enumerate(expected):
            assert_reads_like(source, level, pixels, boxes=3)
        first = source.fingerprint()
    data = tmp_path / "slide" / "Data0000.dat"
    data.write_bytes(data.read_bytes() + b"more")
    with open_source(tmp_path / "slide.mrxs") as source:
        assert source.fingerprint() != first


@pytest.mark.parametrize("core", [128, 512])
def test_what_the_scanner_left_out_holds_no_data(core: int, tiny: Path, tmp_path: Path) -> None:
    left_out = frozenset({(0, 0), (0, 1), (1, 0), (1, 1), (3, 5)})
    pixels = tissue(512, 768)
    expected = write_mrxs(tmp_path / "slide.mrxs", pixels, 128, levels=1, left_out=left_out)[0]
    held = np.ones(pixels.shape[:2], np.bool_)
    for row, col in left_out:
        held[row * 128 : row * 128 + 128, col * 128 : col * 128 + 128] = False
    with open_source(tmp_path / "slide.mrxs") as source, OpenSlide(tmp_path / "slide.mrxs") as theirs:
        alpha = np.asarray(theirs.read_region((0, 0), 0, (768, 512)))[..., 3]
        found = source.read_mask(0, source.levels[0].box)
        assert found is not None
        np.testing.assert_array_equal(found, held)
        np.testing.assert_array_equal(alpha != 0, held)
        np.testing.assert_array_equal(source.read(0, source.levels[0].box)[held], expected[held])
    labels = labels_of(segment_here(tmp_path / "slide.mrxs", tmp_path / "run", core, model=str(tiny)))
    np.testing.assert_array_equal(labels == 255, ~held)


def test_levels_off_the_grid_of_level_0_are_the_same_in_every_read(tmp_path: Path) -> None:
    pixels = tissue(700, 901)
    smaller = np.ascontiguousarray(pixels[::3, ::3])[:233, :300]
    write_ndpi(tmp_path / "slide.ndpi", [pixels, smaller])
    with open_source(tmp_path / "slide.ndpi") as source:
        whole = source.read(1, source.levels[1].box)
        for box in (Box(100, 100, 200, 250), Box(101, 103, 150, 171), Box(0, 0, 1, 1)):
            np.testing.assert_array_equal(source.read(1, box), whole[box.slices])


def test_a_slide_of_which_files_are_missing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "slide.mrxs").write_bytes(b"\xff\xd8\xff\xe0 only the thumbnail came along")
    assert_refused(tmp_path / "slide.mrxs", "OpenSlide can't open it")
    (tmp_path / "slide.czi").write_bytes(b"ZISRAWFILE" + b"\0" * 600)
    assert_refused(tmp_path / "slide.czi", "OpenSlide can't open it")


def test_a_slide_has_one_focal_plane(tmp_path: Path) -> None:
    write_ndpi(tmp_path / "slide.ndpi", halves(levels=1))
    with pytest.raises(SourceError, match="there is no z 2 at t 0"):
        open_source(tmp_path / "slide.ndpi", View(z=2))


def test_damaged_slides_are_read_or_refused_soon(tmp_path: Path) -> None:
    write_ndpi(tmp_path / "good.ndpi", halves(300, 400, 2))
    good = (tmp_path / "good.ndpi").read_bytes()
    outcomes = {"read": 0, "refused": 0}
    for seed in range(16):
        chance = random.Random(seed)
        data = bytearray(good[: chance.randrange(len(good))] if seed % 4 == 0 else good)
        for _ in range(chance.choice((1, 4, 16))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path = tmp_path / "mutation.ndpi"
        path.write_bytes(data)
        started = time.monotonic()
        try:
            open_and_read(path)
            outcomes["read"] += 1
        except SourceError:
            outcomes["refused"] += 1
        assert time.monotonic() - started < reader.PROBE_SECONDS
    assert min(outcomes.values()) > 1, outcomes


@pytest.mark.parametrize(
    ("script", "part"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "OpenSlide ends with SIGSEGV"),
        ("import time; time.sleep(60)", "takes longer than"),
        ("bytearray(1 << 40)", "OpenSlide ends with exit code 1"),
        ("print('hello')", "said nothing of it"),
    ],
)
def test_a_library_that_dies_takes_nothing_with_it(
    script: str, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ndpi(tmp_path / "slide.ndpi", halves(60, 80, 1))
    (tmp_path / "probe.py").write_text(script)
    monkeypatch.setattr(reader, "_PROBE", tmp_path / "probe.py")
    monkeypatch.setattr(reader, "PROBE_SECONDS", 1)
    assert_refused(tmp_path / "slide.ndpi", part)


def test_the_probe_ends_what_takes_too_much_time(tmp_path: Path) -> None:
    """The limit of processor time is the system's own: it holds where no signal handler runs any more."""
    probe = Path(reader.__file__).with_name("probe.py")
    source = probe.read_text().replace("json.dump(probe(path), sys.stdout)", "\n    while True: pass")
    (tmp_path / "probe.py").write_text(source)
    command = [reader.sys.executable, str(tmp_path / "probe.py"), "slide", str(reader.PROBE_BYTES), "1"]
    ended = subprocess.run(command, check=False, timeout=30)
    assert -ended.returncode in {signal.SIGXCPU, signal.SIGKILL}
