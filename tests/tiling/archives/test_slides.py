"""Slides among an archive's files; no name climbs out of the archive or takes another's place."""

from __future__ import annotations

import os
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from object_store import place, s3_server
from scenes import scene_pixels, write_landsat, write_sentinel2

from flows.archive import dry_run
from flows.config.archive import COLUMNS, ArchiveConfig
from tiling.archives import slide_ledger
from tiling.archives.archive import Archive, ArchiveCard, folder_name
from tiling.archives.listing import expect_disjoint, find_slides, glob_pattern
from tiling.archives.slide import Slide, file_version
from tiling.archives.slide_ledger import SlideLedger
from tiling.archives.slide_record import SlideRecord, SlideState
from tiling.errors import RunError, SourceError
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place, move_tree, size_of_tree

ANY_NAME = st.text(st.sampled_from([*string.ascii_letters, *"./% :\\\n\x1b\u202eé", "\udcff"]), min_size=1, max_size=30)


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode("utf-8", "surrogateescape"))
    return root


def found(source: object, leave_out: Place = Path("nowhere")) -> dict[str, Slide]:
    slides = list(find_slides(str(source), leave_out, COLUMNS))
    assert len({slide.name for slide in slides}) == len(slides)
    return {slide.name: slide for slide in slides}


def test_a_folder_gives_its_images_and_no_results(tmp_path: Path) -> None:
    root = make(
        tmp_path / "in", "b/1.svs", "a.TIFF", "notes.txt", ".hidden.svs", ".cache/2.svs", "old/run.json",
        "old/overlay.png", "image.zarr/0.png", "out/archive.json", "out/slides/a.TIFF/overlay.png", "svs",
    )  # fmt: skip
    assert list(found(root, root / "out")) == ["a.TIFF", "b/1.svs"]


def test_a_delivered_scene_is_one_slide_that_changes_with_its_files(tmp_path: Path) -> None:
    pixels = scene_pixels(12, 12, 2)
    safe = write_sentinel2(tmp_path / "in" / "2020", {"B04": (10, pixels[..., 0]), "B08": (10, pixels[..., 1])})
    landsat = write_landsat(tmp_path / "in", {"B4": pixels[..., 0], "B5": pixels[..., 1]})
    make(tmp_path / "in", "a.tif")
    slides = found(tmp_path / "in")
    assert set(slides) == {"a.tif", landsat.name, f"2020/{safe.name}"}
    assert set(found(f"{tmp_path}/in/**/*.SAFE")) == {f"2020/{safe.name}"}
    assert len(found(f"{tmp_path}/in/**/*.jp2")) == 2
    band = next(landsat.glob("*_B5.TIF"))
    before = slides[landsat.name].file_version
    assert before is not None
    assert before.size_bytes > 2 * band.stat().st_size
    band.write_bytes(band.read_bytes() + b"more")
    assert found(tmp_path / "in")[landsat.name].file_version != before
    band.unlink()
    next(landsat.glob("*_B4.TIF")).unlink()
    assert "no band" in (found(tmp_path / "in")[landsat.name].refused or "")
    with pytest.raises(SourceError, match="is one scene and no archive"):
        found(safe)


def test_folders_lists_and_descriptions_are_scenes_where_they_are_named(tmp_path: Path) -> None:
    root = make(tmp_path / "in", "east/1.tif", "east/2.tif", "west/1.tif", "b.tif", "n.tif", "out/run.json")
    (root / "plain.vrt").write_text("<VRTDataset/>")
    folders = found(f"{root}/*/", root / "out")
    assert set(folders) == {"east", "west"}
    make(root, "east/3.tif")
    assert found(f"{root}/*/", root / "out")["east"].file_version != folders["east"].file_version
    assert ArchiveConfig(source=f"{root}/*/", out=tmp_path / "out", model="nuclei").source == f"{root}/*/"
    manifest = root / "list.csv"
    manifest.write_text('slide,name\neast,\n"red=b.tif,nir=n.tif",both\n"{b,n}.tif",\n"red=b.tif,nir=gone.tif",lacks\n')
    slides = found(manifest)
    assert {name for name, slide in slides.items() if slide.refused is None} == {"east", "both", "{b,n}.tif"}
    assert "gone.tif: there is no such file" in (slides["lacks"].refused or "")
    assert slides["both"].place == root / "red=b.tif,nir=n.tif"
    assert "none of an image" in (found(f"{root}/*.vrt")["plain.vrt"].refused or "")


def test_a_zarr_of_an_image_is_one_slide_that_changes_with_its_chunks(tmp_path: Path) -> None:
    root = make(
        tmp_path / "in", "a.ome.zarr/zarr.json", "a.ome.zarr/0/c/0/0/0.png", "sub/B.OME.ZARR/0/.zarray",
        "table.zarr/zarr.json", "old.zarr/.zattrs", "channels.qptiff", "packed.ome.zarr.zip", "run/run.json",
        "run/mask.ome.zarr/zarr.json",
    )  # fmt: skip
    (root / "old.zarr/.zattrs").write_text('{"multiscales": []}')
    slides = found(root)
    assert set(slides) == {"a.ome.zarr", "old.zarr", "sub/B.OME.ZARR", "channels.qptiff", "packed.ome.zarr.zip"}
    assert set(found(f"{root}/*.ome.zarr")) == {"a.ome.zarr"}
    before = slides["a.ome.zarr"].file_version
    assert before is not None
    assert before == file_version(root / "a.ome.zarr")
    assert not before.is_settled(60), "it may still be being copied"
    make(root, "a.ome.zarr/0/c/0/1/0")
    assert file_version(root / "a.ome.zarr") != before
    (root / "list.csv").write_text("slide\na.ome.zarr\n")
    assert found(root / "list.csv")["a.ome.zarr"].file_version == file_version(root / "a.ome.zarr")


def test_a_folder_that_can_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(tmp_path / "in", "a.svs", "closed/b.svs")
    scan = os.scandir

    def refuse(folder: Path) -> object:
        if folder.name == "closed":
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert {name: slide.refused for name, slide in found(root).items()} == {
        "a.svs": None,
        "closed/": "Permission denied",
    }


def test_a_source_that_is_not_there_is_told_from_one_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_bytes(b"x")
    for name, what in (("away", "and nothing is there.*not mounted"), ("a.svs", "and it is a file")):
        with pytest.raises(SourceError, match=f"/{name}: an archive is a folder.*{what}.*correct the path$"):
            found(tmp_path / name)


@pytest.mark.parametrize(
    ("source", "message"),
    [("in", r"holds no image: .* \.svs \.tif "), ("in/*.svs", "no file matches"), ("in/list.csv", "names no slide")],
)
def test_a_source_without_a_slide_is_refused(tmp_path: Path, source: str, message: str) -> None:
    make(tmp_path / "in", "notes.txt", "sub/run.json", "sub/overlay.png")
    (tmp_path / "in/list.csv").write_text("slide,level\n")
    with pytest.raises(SourceError, match=f"{message}.*not mounted") as refused:
        found(tmp_path / source)
    assert "\n" not in str(refused.value)
    config = ArchiveConfig.model_validate({"source": str(tmp_path / source), "out": tmp_path / "out"})
    with pytest.raises(SourceError, match=message):
        dry_run(config)
    assert not (tmp_path / "out").exists()


def test_links_lead_nowhere_out_of_the_archive(tmp_path: Path) -> None:
    root = make(tmp_path / "in", "real/1.svs")
    make(tmp_path / "elsewhere", "secret.svs")
    (root / "inside.svs").symlink_to("real/1.svs")
    (root / "outside.svs").symlink_to(tmp_path / "elsewhere/secret.svs")
    (root / "folder").symlink_to(tmp_path / "elsewhere")
    (root / "circle").symlink_to(root)
    (root / "broken.svs").symlink_to("absent.svs")
    slides = {slide.name: slide for slide in find_slides(str(root), tmp_path / "out")}
    opened = {name for name, slide in slides.items() if slide.refused is None}
    assert opened == {"real/1.svs", "inside.svs"}
    assert "outside the archive" in (slides["outside.svs"].refused or "")
    assert "leads nowhere" in (slides["broken.svs"].refused or "")


def test_results_never_lie_among_the_slides(tmp_path: Path) -> None:
    expect_disjoint(f"{tmp_path}/in", tmp_path / "in/out")
    expect_disjoint(f"{tmp_path}/in/**/*.svs", tmp_path / "out")
    expect_disjoint("s3://slides/in", ObjectPath("s3://slides", "in/out"))
    for source in (f"{tmp_path}/out", f"{tmp_path}/out/slides", f"{tmp_path}/out/*.svs"):
        with pytest.raises(SourceError, match="where the results go"):
            expect_disjoint(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("*.svs", {"a.svs"}),
        ("**/*.svs", {"a.svs", "x/b.svs", "x/y/c.svs"}),
        ("x/*", {"x/b.svs"}),
        ("x/**", {"x/b.svs", "x/y/c.svs"}),
        ("[!b].svs", {"a.svs"}),
        ("x/[ab].svs", {"b.svs"}),
    ],
)
def test_a_glob_keeps_to_its_parts(tmp_path: Path, glob: str, expected: set[str]) -> None:
    make(tmp_path, "a.svs", "x/b.svs", "x/y/c.svs", "x/d.txt" if "*.svs" in glob else "d.txt")
    names = set(found(f"{tmp_path}/{glob}"))
    assert {name.rpartition("/")[2] for name in names} == {name.rpartition("/")[2] for name in expected}


def test_an_unfinished_pattern_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no pattern"):
        glob_pattern("[z-a]")
    with pytest.raises(SourceError, match="an archive is a folder"):
        list(find_slides(str(tmp_path / "absent"), tmp_path))


@given(ANY_NAME, ANY_NAME)
def test_two_names_are_never_one_folder_and_none_climbs(one: str, other: str) -> None:
    first, second = folder_name(one), folder_name(other)
    assert (first == second) == (one == other)
    for folder in (first, second):
        assert folder.isprintable()
        parts = folder.split("/")
        assert parts[0] == "slides"
        assert all(part.strip(". ") and len(part.encode()) <= 255 for part in parts)
        assert os.path.normpath(folder) == folder


def test_upper_and_lower_case_and_nested_names_get_folders_of_their_own(tmp_path: Path) -> None:
    names = ["A.svs", "a.svs", "a.svs/b.svs", "x/y.svs", "x", "é" * 200, "é" * 201]
    ledger = new_archive(tmp_path)
    folders = {name: ledger.folder_of(name) for name in names}
    assert {name: ledger.folder_of(name) for name in names} == folders
    lower = [folder.casefold() for folder in folders.values()]
    assert len(set(lower)) == len(names)
    assert not any(other.startswith(f"{one}/") for one in lower for other in lower)


def new_archive(path: Path, **changed: object) -> Archive:
    card = ArchiveCard(created="now", model="m", model_digest="d", maths_version=1, asked={"core": 128})
    return Archive.create_or_resume(path, card.model_copy(update=changed))


def test_an_archive_of_another_model_is_refused_with_the_differences(tmp_path: Path) -> None:
    new_archive(tmp_path)
    new_archive(tmp_path, created="later")
    with pytest.raises(RunError, match="core: 128 here, 64 asked for"):
        new_archive(tmp_path, asked={"core": 64})
    with pytest.raises(RunError, match="model digest: d here, e asked for"):
        new_archive(tmp_path, model_digest="e")


def test_an_archive_of_an_earlier_version_asked_for_the_defaults_of_later_options(tmp_path: Path) -> None:
    new_archive(tmp_path)
    new_archive(tmp_path, asked={"core": 128, "scaled": False, "crs": None, "resampling": "auto"})
    with pytest.raises(RunError, match="crs: not given here, EPSG:3857 asked for"):
        new_archive(tmp_path, asked={"core": 128, "scaled": False, "crs": "EPSG:3857", "resampling": "auto"})
    with pytest.raises(RunError, match="core: 128 here, none asked for"):
        new_archive(tmp_path, asked={"core": None})


def record(slide: str, state: SlideState = SlideState.DONE, fingerprint: str | None = None, **more: str) -> SlideRecord:
    return SlideRecord(slide, state, folder_name(slide), fingerprint=fingerprint, asked=more)


def test_the_last_record_counts_and_content_is_known_under_any_name(tmp_path: Path) -> None:
    ledger = SlideLedger(tmp_path)
    ledger.append(record("a", SlideState.BEGUN, "1"))
    ledger.append(record("a", SlideState.DONE, "1"))
    ledger.append(record("b", SlideState.DONE, "2", level="1"))
    ledger.flush()
    again = SlideLedger(tmp_path)
    duplicate = again.done_with("1", {})
    assert duplicate is not None
    assert (duplicate.slide, duplicate.state) == ("a", SlideState.DONE)
    assert again.done_with("2", {}) is None, "the same content with other wishes is another run"
    again.append(record("a", SlideState.DONE, "3"))
    assert again.done_with("1", {}) is None


@pytest.mark.parametrize(
    "line",
    [
        '{"slide":"a","state":"done","folder":"../../home"}',
        '{"slide":"a","state":"done","folder":"/home"}',
        '{"slide":1,"state":"done","folder":"slides/a"}',
        '{"slide":"a","state":"done","folder":"slides/a","time":1e999}',
        '{"slide":"a","state":"done","folder":"slides/a","seconds":"x"}',
        '{"event":"night"}',
        '{"event":"night","time":1,"facts":[]}',
    ],
)
def test_a_line_that_no_night_writes_is_no_record(line: str, tmp_path: Path) -> None:
    (tmp_path / "00000001.jsonl").write_text(f"{line}\n")
    with pytest.raises(RunError, match=r"00000001\.jsonl holds a line that is no record"):
        SlideLedger(tmp_path)


def test_many_segments_become_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slide_ledger, "SEGMENTS_KEPT", 8)
    ledger = SlideLedger(tmp_path)
    for number in range(12):
        ledger.append(record(f"{number % 5}", SlideState.DONE, f"{number}"))
        ledger.flush()
    ledger.announce("night", {"config": 1})
    before = sorted(SlideLedger(tmp_path), key=lambda each: each.slide)
    ledger.compact()
    assert len(list(tmp_path.glob("*.jsonl"))) == 1
    after = SlideLedger(tmp_path)
    assert sorted(after, key=lambda each: each.slide) == before
    assert [event["event"] for event in after.events] == ["night"]


def test_a_manifest_asks_for_single_slides(tmp_path: Path) -> None:
    make(tmp_path / "in", "a.svs", "sub/b.svs")
    make(tmp_path / "far", "c.svs", "d.svs")
    (tmp_path / "in/far.svs").symlink_to(tmp_path / "far/d.svs")
    manifest = tmp_path / "in" / "list.csv"
    rows = ["slide,name,image_mpp,core", "a.svs,,0.25,", "sub/b.svs,,,256"]
    rows += [f"{tmp_path}/far/c.svs,third,,", "absent.svs,,,"]
    manifest.write_text("\ufeff" + "\n".join([*rows, "../far/d.svs,,,", "far.svs,,,", "a.svs,,,"]) + "\n")
    slides = list(find_slides(str(manifest), tmp_path, COLUMNS))
    good = {slide.name: dict(slide.overrides) for slide in slides if slide.refused is None}
    assert good == {"a.svs": {"image_mpp": "0.25"}, "sub/b.svs": {"core": "256"}, "third": {}, "d.svs": {}}
    refused = {slide.name: slide.refused or "" for slide in slides if slide.refused is not None}
    assert "no such file" in refused["absent.svs"]
    assert "symbolic link" in refused["far.svs"]
    assert "names it again" in refused["a.svs"]


def test_a_url_that_is_none_is_refused_alone_and_its_secret_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_bytes(b"a")
    rows = ("slide", "https://host/y.svs?sig=canary", "s3://me:canary@bucket/z.svs", "a.svs")
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    signed, named, sound = find_slides(str(tmp_path / "list.csv"), tmp_path / "out")
    assert sound.refused is None
    for slide, line in ((signed, 2), (named, 3)):
        assert slide.name == f"line {line}"
        assert f"line {line} of the manifest: a URL of" in (slide.refused or "")
        assert "canary" not in repr(slide)


def test_a_manifest_names_mask_images_as_it_names_slides(tmp_path: Path) -> None:
    make(tmp_path / "in", "a.svs", "b.svs", "c.svs")
    rows = ["slide,foreground", "a.svs,masks/a.png", f"b.svs,{tmp_path}/b.png", "c.svs,none"]
    (tmp_path / "in/list.csv").write_text("\n".join(rows))
    asked = {name: slide.overrides["foreground"] for name, slide in found(tmp_path / "in/list.csv").items()}
    assert asked == {"a.svs": f"{tmp_path}/in/masks/a.png", "b.svs": f"{tmp_path}/b.png", "c.svs": "none"}


def test_a_line_with_more_cells_than_columns_is_refused_alone(tmp_path: Path) -> None:
    make(tmp_path, "a.svs", "b.svs", "c.svs")
    (tmp_path / "list.csv").write_text("slide,level\na.svs,1\nb.svs,1,0.25\nc.svs,1,,\n")
    slides = found(tmp_path / "list.csv")
    assert "line 3 of the manifest has more cells" in (slides["b.svs"].refused or "")
    assert [name for name, slide in slides.items() if slide.refused is None] == ["a.svs", "c.svs"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("slide,colour\na,b\n", "column 'colour' is not known"), ("image\na\n", "'image' is not known"), ("", "'slide'")],
)
def test_a_manifest_that_asks_for_what_there_is_not_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(SourceError, match=message):
        list(find_slides(str(tmp_path / "list.csv"), tmp_path, COLUMNS))


@pytest.fixture(scope="module")
def bucket() -> Iterator[ObjectPath]:
    with s3_server():
        yield place("archive")


def test_a_bucket_is_an_archive_too(bucket: ObjectPath) -> None:
    for name in ("a.svs", "sub/b.tif", "readme.txt", "out/slides/a.svs/overlay.png", ".trash/c.svs"):
        (bucket / name).write_bytes(b"12345")
    slides = found(bucket, bucket / "out")
    assert set(slides) == {"a.svs", "sub/b.tif"}
    stamp = slides["a.svs"].file_version
    assert stamp == file_version(bucket / "a.svs"), "a listing and a look at one object say the same"
    assert stamp is not None
    assert stamp.is_settled(3600), "an object appears whole"
    assert set(found(f"{bucket}/sub/*.tif", bucket / "out")) == {"b.tif"}


def test_a_zarr_in_a_bucket_is_one_slide_and_results_are_none(bucket: ObjectPath) -> None:
    root = bucket / "with zarr"
    names = ["a.ome.zarr/zarr.json", "a.ome.zarr/0/c/0/0", "a.ome.zarr2/b.svs", "table.zarr/zarr.json"]
    for name in (*names, "run/mask.ome.zarr/zarr.json", "run/overlay.png", "run/run.json"):
        (root / name).write_bytes(b"{}")
    slides = found(root, bucket / "out")
    assert set(slides) == {"a.ome.zarr", "a.ome.zarr2/b.svs"}
    before = slides["a.ome.zarr"].file_version
    assert before is not None
    assert before == file_version(root / "a.ome.zarr")
    assert not before.is_settled(60), "its objects come one by one"
    (root / "a.ome.zarr/0/c/0/1").write_bytes(b"chunk")
    assert file_version(root / "a.ome.zarr") != before
    with pytest.raises(SourceError, match="holds no image"):
        found(bucket / "nothing", bucket / "out")


def test_a_tree_of_objects_moves_whole_or_can_be_moved_again(bucket: ObjectPath) -> None:
    run = bucket / "runs" / "a"
    for name in ("run.json", "mask/0", "mask/1"):
        (run / name).write_bytes(name.encode())
    assert size_of_tree(run) == len("run.jsonmask/0mask/1")
    target = bucket / "earlier" / "a"
    (target / "mask" / "0").write_bytes(b"mask/0")  # as a move that was killed left it
    move_tree(run, target, last="run.json")
    assert not run.exists()
    assert sorted(path.key.removeprefix(f"{target.key}/") for path in target.descendants()) == [
        "mask/0",
        "mask/1",
        "run.json",
    ]
