"""The choice of the core and of the precision: measured once, remembered, and deterministic where it can't be."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_bundles import bundle_of, noise, small_unet
from torch import nn

from unet_core.bundles.bundle import Bundle, load_bundle
from unet_core.files import cache_folder
from unet_core.inference import precision
from unet_core.inference.autotune import best_core, measure_core, recall_core
from unet_core.inference.core_pace import seconds_per_core
from unet_core.inference.memo import Memo
from unet_core.inference.precision import choose_precision, lacks_bfloat16
from unet_core.inference.tuning_job import TuningJob
from unet_core.models import build

ROOMY = 8 * 2**30


def test_best_core_is_the_fastest_when_nothing_is_known_of_the_image() -> None:
    assert best_core({512: 1.0, 1024: 1.2, 768: 1.1}, None, 4) == 1024
    assert best_core({512: 1.0, 1024: 1.0}, None, 4) == 512


def test_best_core_leaves_no_worker_idle() -> None:
    rates = {512: 1.0, 1024: 1.1}
    assert best_core(rates, (2048, 2048), 4) == 1024
    assert best_core(rates, (1024, 1024), 4) == 512, "one tile would keep one of four workers busy"
    assert best_core(rates, (100_000, 100_000), 4) == 1024


def test_core_is_measured_once_and_remembered(tmp_path: Path) -> None:
    bundle, memo = small_unet(depth=2), Memo(tmp_path / "cores")
    job = TuningJob("float32", "cpu", ROOMY)
    threads = torch.get_num_threads()
    core_px = measure_core(bundle, job, memo)
    assert torch.get_num_threads() == threads
    (path,) = (tmp_path / "cores").iterdir()
    kept = json.loads(path.read_text())
    assert kept["question"]["precision"] == "float32"
    assert core_px == int(max(kept["answer"], key=kept["answer"].get))
    # Another figure on disk, as of another process: it stands.
    kept["answer"] = {"512": 2.0, "768": 3.0, "1024": 1.0}
    path.write_text(json.dumps(kept))
    assert measure_core(bundle, job, memo) == 768


def test_core_follows_from_the_network_where_nothing_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    memo = Memo(tmp_path / "file" / "cores")
    bundle = load_bundle("nuclei-small")
    assert measure_core(bundle, TuningJob("float32", "cpu", ROOMY), memo) == 768
    assert measure_core(bundle, TuningJob("float32", "cpu", ROOMY), memo) == 768


def test_what_is_not_measured_needs_no_worker_to_be_known(tmp_path: Path) -> None:
    job, memo = TuningJob("float32", "cpu", ROOMY), Memo(tmp_path / "cores")
    quick, slow = load_bundle("nuclei-small"), load_bundle("nuclei")
    assert recall_core(quick, job, memo) is None, "it is worth measuring, and was not yet"
    core_px = recall_core(slow, job, memo)
    assert core_px == measure_core(slow, job, memo), "timing it would take longer than the budget"
    assert not [*(tmp_path / "cores").iterdir()]
    assert recall_core(slow, TuningJob("float32", "cpu", 1), memo) == 128
    (tmp_path / "file").write_text("")
    nowhere = Memo(tmp_path / "file" / "cores")
    assert recall_core(quick, job, nowhere) == measure_core(quick, job, nowhere)


def with_rates(bundle: Bundle, job: TuningJob, memo: Memo, rates: dict[str, float]) -> Memo:
    """The memo with these rates, as another process has measured them."""
    measure_core(bundle, job, memo)
    (path,) = memo.folder.iterdir()
    path.write_text(json.dumps({**json.loads(path.read_text()), "answer": rates}))
    return memo


def test_network_of_a_wide_halo_gets_a_large_core_in_strips(tmp_path: Path) -> None:
    bundle = bundle_of(build("resnet34_unet", {"bands": 3, "classes": 3, "first_channels": 4}))
    job = TuningJob("float32", "cpu", ROOMY)
    memo = with_rates(bundle, job, Memo(tmp_path / "cores"), {"512": 5e5, "1024": 1e6})

    def core(**changes: Any) -> int | None:
        changed = replace(job, **changes)
        found = measure_core(bundle, changed, memo)
        assert recall_core(bundle, changed, memo) == found
        return found

    assert core() == 4096
    assert core(extent=(4096, 4096), workers=2) == 2048, "one tile would keep one of two workers busy"
    assert core(extent=(1024, 1024), workers=1) == 1024
    assert core(memory_bytes=2**28) == 1024


def test_core_that_would_take_minutes_is_not_chosen(tmp_path: Path) -> None:
    bundle = bundle_of(build("resnet34_unet", {"bands": 3, "classes": 3, "first_channels": 4}))
    job = TuningJob("float32", "cpu", ROOMY)
    memo = with_rates(bundle, job, Memo(tmp_path / "cores"), {"512": 1e4, "1024": 2e4})
    assert measure_core(bundle, job, memo) == 1024


def test_core_in_strips_must_be_worth_the_background_that_it_takes_along(tmp_path: Path) -> None:
    bundle, job = small_unet(depth=4), TuningJob("float32", "cpu", ROOMY)
    memo = with_rates(bundle, job, Memo(tmp_path / "cores"), {"512": 5e5, "1024": 1e6})
    assert measure_core(bundle, job, memo) == 1024


def test_seconds_of_a_core_in_strips_are_counted_from_a_smaller_one() -> None:
    bundle, job = small_unet(depth=2), TuningJob("float32", "cpu", ROOMY)
    small, large = (seconds_per_core(bundle, job, core_px) for core_px in (1024, 16384))
    assert 100 * small < large < 600 * small


def test_core_fits_the_memory_and_the_stride_grid(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    memo, bundle = Memo(tmp_path / "file"), load_bundle("nuclei-small")
    roomy = measure_core(bundle, TuningJob("float32", "cpu", ROOMY), memo)
    tight = measure_core(bundle, TuningJob("float32", "cpu", 60 * 2**20), memo)
    assert tight < 512 <= roomy
    assert tight % 16 == roomy % 16 == 0
    assert measure_core(bundle, TuningJob("float32", "cpu", 1), memo) == 128, "the plan refuses it, with the figures"


def test_cache_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "overtile"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "overtile"


def test_of_answers_given_at_once_one_stands_for_all(tmp_path: Path) -> None:
    memo = Memo(tmp_path / "deep" / "folder")
    assert memo.is_open()
    question = {"machine": "this"}
    start, answers = threading.Barrier(8), list[dict[str, int]]()

    def answer(figure: int) -> None:
        start.wait()
        answers.append(memo.keep(question, {"core": figure}))

    threads = [threading.Thread(target=answer, args=(figure,)) for figure in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert all(given == answers[0] == memo.recall(question) for given in answers)
    assert [path.suffix for path in memo.folder.iterdir()] == [".json"], "no half-written file stays"


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b'{"answer": 3}', b"\xff\xfe"])
def test_damaged_memo_counts_as_none_and_is_replaced(damage: bytes, tmp_path: Path) -> None:
    memo, question = Memo(tmp_path), {"machine": "this"}
    memo.keep(question, {"core": 1})
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage)
    assert memo.recall(question) is None
    assert memo.keep(question, {"core": 2}) == {"core": 2} == memo.recall(question)


def test_memo_that_cannot_be_written_gives_the_answer_back(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    memo = Memo(tmp_path / "file")
    assert not memo.is_open()
    assert memo.keep({"a": 1}, {"core": 2}) == {"core": 2}


# Precision


@pytest.fixture
def photograph() -> NDArray[np.uint8]:
    from skimage.data import immunohistochemistry

    return immunohistochemistry()


def has_flags(flags: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose processor says so, as Linux on x86 and on Arm words it."""
    (folder / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: A processor\n{flags}\n")
    monkeypatch.setattr(precision, "CPU_INFO", folder / "cpuinfo")


def test_processor_without_bfloat16_computes_in_float32(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    has_flags("flags\t\t: fpu avx2 avx512f bf16ish", tmp_path, monkeypatch)
    choice = choose_precision(small_unet(), [noise(32, 32)])
    assert (choice.precision, choice.agreement) == ("float32", None)
    assert "no bfloat16 arithmetic" in choice.reason


@pytest.mark.parametrize(
    "flags", ["flags\t: fpu avx512_bf16 avx2", "flags\t: fpu amx_bf16", "Features\t: fp asimd bf16 i8mm"]
)
def test_processors_that_multiply_bfloat16_are_known(
    flags: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    has_flags(flags, tmp_path, monkeypatch)
    assert lacks_bfloat16("cpu") is None


def test_system_that_tells_nothing_of_its_processor_computes_in_float32(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(precision, "CPU_INFO", tmp_path / "absent")
    assert "no bfloat16 arithmetic" in (lacks_bfloat16("cpu") or "")


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Any processor computes bfloat16; only its speed differs."""
    has_flags("flags\t: avx512_bf16", tmp_path, monkeypatch)


@pytest.mark.usefixtures("native")
def test_agreement_is_measured_on_the_samples(photograph: NDArray[np.uint8]) -> None:
    nuclei = load_bundle("nuclei-small")
    choice = choose_precision(nuclei, [photograph[:250, :250], photograph[256:, 256:400]])
    assert choice.agreement is not None
    assert 0.99 < choice.agreement <= 1
    expected = "bfloat16" if choice.agreement >= 0.999 else "float32"
    assert choice.precision == expected
    assert f"{100 * choice.agreement:.4f} %" in choice.reason


def at_a_tie(bundle: Bundle) -> Bundle:
    """Classes whose logits differ by less than bfloat16 can tell."""
    with torch.no_grad():
        head = bundle.module.get_submodule("head")
        assert isinstance(head, nn.Conv2d)
        head.weight.mul_(1e-3)
        assert head.bias is not None
        head.bias.fill_(10)
    return bundle


@pytest.mark.usefixtures("native")
def test_network_whose_labels_suffer_stays_in_float32() -> None:
    choice = choose_precision(at_a_tie(small_unet()), [noise(64, 64)])
    assert choice.agreement is not None
    assert choice.agreement < 0.9
    assert choice.precision == "float32"
    assert "only" in choice.reason


@pytest.mark.usefixtures("native")
def test_without_samples_nothing_is_assumed() -> None:
    choice = choose_precision(small_unet(depth=3), [noise(7, 7)])
    assert (choice.precision, choice.agreement) == ("float32", None)
    assert "no sample" in choice.reason
