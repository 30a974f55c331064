"""Files of several images: named, chosen by a person or by a rule that is shown, and part of what a run is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from source_oracle import assert_reads_like, picture

from flows.config.archive import COLUMNS, ArchiveConfig
from flows.config.recipe import RasterConfig
from flows.config.run import SegmentConfig
from flows.doctor.checks import DoctorConfig, Level
from flows.doctor.storage import check_image
from flows.run.prepare import prepare
from flows.training.rasters import raster_examples
from flows.worker.tuning import Tuning, TuningRequest
from tiling.archives.manifest import read_manifest
from tiling.errors import RunError, SourceError
from tiling.selection.choose_view import choose_view
from tiling.selection.view_request import ModelRequirements, ViewRequest
from tiling.source import open_source
from tiling.view import View
from unet_core.bundles.card import read_card
from unet_core.errors import TrainingError

Pixels = npt.NDArray[Any]
ANY = ModelRequirements("any", None, "uint8")
RGB: dict[str, Any] = {"photometric": "rgb", "tile": (32, 32)}


def scene(number: int, side: int = 96) -> Pixels:
    return picture(3, height=side, width=side + 16 * number) + np.uint8(number)


def ome(path: Path, scenes: dict[str, Pixels], mpp: dict[str, float] | None = None) -> Path:
    with tifffile.TiffWriter(path, ome=True) as writer:
        for name, pixels in scenes.items():
            size = (mpp or {}).get(name)
            said = {} if size is None else {"PhysicalSizeX": size, "PhysicalSizeY": size}
            writer.write(pixels, metadata={"axes": "YXS", "Name": name, **said}, **RGB)
    return path


@pytest.mark.parametrize("name", ["a10_macro_first.ome.tif", "a10b_macro_first_nosize.ome.tif"])
def test_the_slide_is_taken_and_not_the_macro_before_it(cases_dir: Path, name: str) -> None:
    with open_source(cases_dir / name) as source:
        assert (source.series, [image.name for image in source.images]) == (1, ["macro", "slide"])
        assert_reads_like(source, 0, tifffile.imread(cases_dir / name, series=1))
    choice = choose_view(cases_dir / name, ViewRequest(), ANY)
    why = "the largest of those with a pixel size" if "nosize" not in name else "the largest"
    assert (
        f"series 1 of 2, 'slide' 800 x 600 px{' of 0.5 um' if 'nosize' not in name else ''}, {why};"
        in (choice.notes["image"])
    )
    assert "0: 'macro'" in choice.notes["image"]
    assert choice.view is not None
    assert choice.view.series == 1


def test_a_calibrated_image_is_taken_before_a_larger_one(tmp_path: Path) -> None:
    path = ome(tmp_path / "a.ome.tif", {"overview": scene(4), "slide": scene(1)}, {"slide": 0.5})
    with open_source(path) as source:
        assert source.series == 1


@pytest.mark.parametrize(("asked", "number"), [("slide", 1), ("SLIDE", 1), ("0", 0), ("1", 1), ("macro", 0)])
def test_an_image_is_asked_for_by_number_or_name(tmp_path: Path, asked: str, number: int) -> None:
    scenes = {"macro": scene(0), "slide": scene(1)}
    path = ome(tmp_path / "a.ome.tif", scenes)
    choice = choose_view(path, ViewRequest(series=asked), ANY)
    with open_source(path, choice.view) as source:
        assert source.series == number
        assert_reads_like(source, 0, list(scenes.values())[number], boxes=2)
    assert "as asked" in choice.notes["image"]


@pytest.mark.parametrize(("asked", "message"), [("2", "there is no series 2; give --series .*0: 'a'"), ("z", "'z'")])
def test_an_image_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path, asked: str, message: str) -> None:
    path = ome(tmp_path / "a.ome.tif", {"a": scene(0), "b": scene(1)})
    with pytest.raises(SourceError, match=message):
        choose_view(path, ViewRequest(series=asked), ANY)


def test_two_images_of_one_name_are_told_apart_by_number(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for number in range(2):
            writer.write(scene(number), metadata={"axes": "YXS", "Name": "scan"}, **RGB)
    with pytest.raises(SourceError, match=r"2 images are called 'scan'; give --series a number: 0: 'scan' 96 x 96 px"):
        open_source(path, View(series="scan"))
    with open_source(path, View(series="0")) as source:
        assert_reads_like(source, 0, scene(0), boxes=2)


def test_a_file_of_one_image_has_no_second(tmp_path: Path) -> None:
    path = tmp_path / "one.tif"
    tifffile.imwrite(path, scene(0), photometric="rgb", metadata=None)
    with pytest.raises(SourceError, match="there is no series"):
        open_source(path, View(series="1"))
    assert choose_view(path, ViewRequest(series="0"), ANY).view is None


def test_pages_of_different_sizes_are_images(tmp_path: Path) -> None:
    path = tmp_path / "pages.tif"
    with tifffile.TiffWriter(path) as writer:
        for number in range(3):
            named: Any = (285, "s", 0, f"scan {number}", True)
            writer.write(scene(number), photometric="rgb", metadata=None, extratags=[named])
    with open_source(path) as source:
        assert (source.series, [image.name for image in source.images]) == (2, ["scan 0", "scan 1", "scan 2"])
    with open_source(path, View(series="scan 1")) as source:
        assert_reads_like(source, 0, scene(1), boxes=2)


def raw_zarr(path: Path, sides: list[int], listed: list[str] | None, xml: bool = False) -> Path:
    """As bioformats2raw writes several images."""
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    folders = listed or [str(number) for number in range(len(sides))]
    for folder, side in zip(folders, sides, strict=True):
        image = group.create_group(folder)
        array = image.create_array("0", shape=(side, side), chunks=(32, 32), dtype="uint8")
        array[:] = np.full((side, side), side, np.uint8)
        axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
        scale = [{"type": "scale", "scale": [0.5, 0.5]}]
        datasets = [{"path": "0", "coordinateTransformations": scale}]
        image.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    if listed:
        (path / "OME").mkdir()
        (path / "OME" / ".zattrs").write_text(json.dumps({"series": listed}))
        if xml:
            images = "".join(f'<Image ID="Image:{at}" Name="tissue {at}"/>' for at in range(len(sides)))
            (path / "OME" / "METADATA.ome.xml").write_text(f"<OME>{images}</OME>")
    return path


@pytest.mark.parametrize("listed", [None, ["b", "a", "c"]])
def test_images_of_bioformats2raw(tmp_path: Path, listed: list[str] | None) -> None:
    path = raw_zarr(tmp_path / "raw.zarr", [40, 96, 64], listed, xml=True)
    with open_source(path) as source:
        assert source.series == 1
        expected = ["tissue 0", "tissue 1", "tissue 2"] if listed else ["0", "1", "2"]
        assert [image.name for image in source.images] == expected
        assert (source.read(0, source.levels[0].box) == 96).all()
        fingerprint = source.fingerprint()
    with open_source(path, View(series="2")) as source:
        assert (source.read(0, source.levels[0].box) == 64).all()
        assert source.fingerprint() == fingerprint
    zarr.open_array(path / (listed or ["0", "1", "2"])[2] / "0", mode="r+")[0, 0] = 1
    with open_source(path) as source:
        assert source.fingerprint() != fingerprint, "a change in any image counts"


def test_several_multiscales_of_one_folder_are_images(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "two.ome.zarr", mode="w", zarr_format=2)
    images: list[dict[str, Any]] = []
    for name, side in (("small", 40), ("large", 64)):
        array = group.create_array(name, shape=(side, side), chunks=(32, 32), dtype="uint8")
        array[:] = np.full((side, side), side, np.uint8)
        images.append({"name": name, "axes": ["y", "x"], "datasets": [{"path": name}]})
    group.attrs["multiscales"] = images
    with open_source(tmp_path / "two.ome.zarr") as source:
        assert source.images[source.series].name == "large"
        assert (source.read(0, source.levels[0].box) == 64).all()


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(4)), st.integers(0, 3), st.sampled_from(["ome", "pages"]))
def test_pixels_are_equal_whatever_the_order_of_series(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], wanted: int, kind: str
) -> None:
    folder = tmp_path_factory.mktemp("order")
    # Some halve others, some are as large as others but for a column.
    scenes = [scene(number, side) for number, side in enumerate((96, 48, 24, 96))]
    path = folder / ("a.ome.tif" if kind == "ome" else "a.tif")
    if kind == "ome":
        ome(path, {f"scene {each}": scenes[each] for each in order})
    else:
        with tifffile.TiffWriter(path) as writer:
            for each in order:
                named: Any = (285, "s", 0, f"scene {each}", True)
                writer.write(scenes[each], metadata=None, extratags=[named], **RGB)
    with open_source(path, View(series=f"scene {wanted}")) as source:
        assert_reads_like(source, 0, scenes[wanted], boxes=2)
        assert len(source.levels) == 1
    with open_source(path) as source:
        assert source.images[source.series].name == "scene 3"


def untuned(request: TuningRequest) -> Tuning:
    raise AssertionError("nothing is left open")


def test_a_run_of_another_series_is_refused_with_the_difference(tmp_path: Path) -> None:
    image = ome(tmp_path / "a.ome.tif", {"macro": scene(0), "slide": scene(1)}, {"macro": 0.5, "slide": 0.5})
    config = SegmentConfig(image=image, out=tmp_path / "run", core=64, foreground="none")
    card = prepare(config, 1, untuned).card
    assert card.image.view is not None
    assert (card.image.view.series, card.image.extent) == (1, (96, 112))
    assert card.notes["image"].startswith("series 1 of 2, 'slide' 112 x 96 px of 0.5 um, the largest of those")
    same = prepare(config.model_copy(update={"series": "slide"}), 1, untuned).card
    assert same.image.view == card.image.view
    with pytest.raises(RunError, match="series: 1 here, 0 asked for"):
        prepare(config.model_copy(update={"series": "macro"}), 1, untuned)


def test_a_manifest_asks_for_the_series_of_each_slide(tmp_path: Path) -> None:
    ome(tmp_path / "a.ome.tif", {"macro": scene(0), "slide": scene(1)})
    manifest = tmp_path / "slides.csv"
    manifest.write_text("slide,name,series\na.ome.tif,first,macro\na.ome.tif,second,1\n")
    asked = [slide.overrides for slide in read_manifest(manifest, COLUMNS)]
    assert asked == [{"series": "macro"}, {"series": "1"}]
    archive = ArchiveConfig(source=str(manifest), out=tmp_path / "out")
    config = archive.of_slide(tmp_path / "a.ome.tif", tmp_path / "run", "nuclei", asked[0])
    assert config.view_request().series == "macro"


@pytest.mark.parametrize(("series", "number"), [(None, 1), ("macro", 0)])
def test_training_takes_the_series_that_its_recipe_names(tmp_path: Path, series: str | None, number: int) -> None:
    scenes = {"macro": scene(0), "slide": scene(1)}
    image, labels = ome(tmp_path / "a.ome.tif", scenes), tmp_path / "labels.tif"
    pixels = list(scenes.values())[number]
    tifffile.imwrite(labels, (pixels[..., 0] > 99).astype(np.uint8), metadata=None)
    raster = RasterConfig(image=image, labels=labels, series=series)
    read, _ = raster_examples(raster, read_card("nuclei"))[0].read(0, 0, *pixels.shape[:2])
    np.testing.assert_array_equal(read, pixels)


def test_training_says_which_image_it_takes_and_refuses_labels_of_several(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scenes = {"macro": scene(0), "slide": scene(1)}
    image, labels = ome(tmp_path / "a.ome.tif", scenes), tmp_path / "labels.tif"
    tifffile.imwrite(labels, (scenes["slide"][..., 0] > 99).astype(np.uint8), metadata=None)
    with caplog.at_level("INFO"):
        raster_examples(RasterConfig(image=image, labels=labels), read_card("nuclei"))
    assert (
        "series 1 of 2, 'slide' 112 x 96 px, the largest; data.rasters.series takes another (0: 'macro'" in caplog.text
    )
    two = ome(tmp_path / "labels.ome.tif", {name: pixels // 128 for name, pixels in scenes.items()})
    with pytest.raises(TrainingError, match=r"labels .*labels\.ome\.tif hold 2 images, .* give a file of one"):
        raster_examples(RasterConfig(image=image, labels=two), read_card("nuclei"))


@pytest.mark.parametrize(("asked", "message"), [(None, "series 1 of 2, 'slide'"), ("macro", "series 0 of 2, 'macro'")])
def test_doctor_takes_the_image_that_segment_takes_and_says_so(tmp_path: Path, asked: str | None, message: str) -> None:
    image = ome(tmp_path / "a.ome.tif", {"macro": scene(0), "slide": scene(1)}, {"macro": 0.5, "slide": 0.5})
    first = next(iter(check_image(DoctorConfig(image=image, series=asked))))
    assert first.verdict is Level.ok
    assert message in first.found


def test_doctor_names_the_images_where_another_is_asked_for(tmp_path: Path) -> None:
    image = ome(tmp_path / "a.ome.tif", {"macro": scene(0), "slide": scene(1)})
    (check,) = check_image(DoctorConfig(image=image, series="lable"))
    assert check.verdict is Level.missing
    assert "'macro'" in check.found


def test_channels_in_pages_are_bands(cases_dir: Path) -> None:
    path = cases_dir / "a15_cyx_pages.tif"
    with open_source(path) as source:
        assert source.bands == ("1", "2", "3", "4")
        assert_reads_like(source, 0, np.moveaxis(tifffile.imread(path), 0, -1))


@pytest.mark.parametrize("axes", ["CYX", "ZCYX", "CZYX", "TCYX", "TZCYX"])
@pytest.mark.parametrize("imagej", [False, True])
def test_axes_say_which_pages_are_channels(tmp_path: Path, axes: str, imagej: bool) -> None:
    if imagej and axes == "CZYX":
        pytest.skip("ImageJ has one order of pages")
    lengths = {"T": 2, "Z": 3, "C": 4, "Y": 20, "X": 30}
    stack = np.random.default_rng(0).integers(0, 255, [lengths[axis] for axis in axes], np.uint8)
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, stack, imagej=imagej, photometric="minisblack", metadata={"axes": axes})
    z, t = ("Z" in axes) * 2, ("T" in axes) * 1
    with open_source(path, View(z=z, t=t)) as source:
        assert len(source.bands) == 4
        at = tuple({"Z": z, "T": t}.get(axis, slice(None)) for axis in axes)
        assert_reads_like(source, 0, np.moveaxis(stack[at], 0, -1), boxes=2)


@pytest.mark.parametrize("axes", ["", "QYX", "IYX"])
def test_pages_of_which_nothing_says_what_they_are_are_a_stack(tmp_path: Path, axes: str) -> None:
    stack = picture(4, height=40, width=60).transpose(2, 0, 1)
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, stack, photometric="minisblack", metadata={"axes": axes} if axes else {})
    choice = choose_view(path, ViewRequest(z=2), ANY)
    assert choice.notes["image"] == "z 2 of 4"
    with open_source(path, choice.view) as source:
        assert_reads_like(source, 0, stack[2][..., np.newaxis], boxes=2)


def test_channels_of_which_only_one_page_was_written_are_refused(tmp_path: Path) -> None:
    stack = picture(1, height=40, width=60)[np.newaxis].repeat(3, 0)
    plain, imagej = tmp_path / "plain.tif", tmp_path / "imagej.tif"
    tifffile.imwrite(plain, stack, photometric="minisblack", metadata={"axes": "CYX"}, truncate=True)
    with pytest.raises(SourceError, match="names 3 pages and 1 are there: channels would be left out"):
        open_source(plain)
    tifffile.imwrite(imagej, stack, photometric="minisblack", imagej=True, metadata={"axes": "CYX"}, truncate=True)
    with pytest.raises(SourceError, match="ImageJ names 3 pages and 1 can be found"):
        open_source(imagej)
