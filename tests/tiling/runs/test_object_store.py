"""Names, cards, ledgers and locks in an object store, over a real S3 server."""

from __future__ import annotations

import threading
from dataclasses import replace

import psutil
import pytest
from object_store import SECRET, TOKEN, connected_to, faulty_proxy, place

from tiling.errors import PlaceError, RunError, StorageError
from tiling.runs.ledger import Ledger, TileRecord, TileState
from tiling.storage import connection
from tiling.storage.lease import Holder, Lease
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import RunLock, lock_run, place_of, write_atomic


@pytest.mark.parametrize(
    ("url", "name", "parent"),
    [
        ("s3://slides/runs/a/", "s3://slides/runs/a", "s3://slides/runs"),
        ("gs://slides//runs/a b", "gs://slides/runs/a b", "gs://slides/runs"),
        ("az://slides/run", "az://slides/run", "az://slides"),
        ("https://example.org/a%20b.tif", "https://example.org/a%20b.tif", "https://example.org"),
    ],
)
def test_a_url_names_a_place(url: str, name: str, parent: str) -> None:
    found = place_of(url)
    assert isinstance(found, ObjectPath)
    assert (str(found), str(found.parent)) == (name, parent)
    assert str(found / "ledger" / "00000001.jsonl") == f"{name}/ledger/00000001.jsonl"


@pytest.mark.parametrize(
    "url",
    [
        f"s3://user:{SECRET}@slides/run",
        f"https://{SECRET}@example.org/slide.tif",
        f"https://example.org/slide.tif?X-Amz-Signature={SECRET}",
        f"az://slides/run?sig={SECRET}",
        f"s3://slides/run#{SECRET}",
    ],
)
def test_a_url_with_credentials_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(StorageError) as raised:
        place_of(url)
    assert SECRET not in str(raised.value)
    assert "environment" in str(raised.value)


@pytest.mark.parametrize(
    "url", ["s3://[x/y", "s3://a℀b/x", "s3://bucket:notaport/x", "http://127.0.0.1:99999/a.tif", "https://host:0/a"]
)
def test_a_malformed_url_is_refused_on_one_line(url: str) -> None:
    with pytest.raises(PlaceError, match=r"is malformed \(host, brackets or port\): give s3://…") as refused:
        place_of(url)
    assert "\n" not in str(refused.value)


def test_what_is_written_is_there_and_listed(s3: str) -> None:
    folder = place("names/run")
    assert not folder.exists()
    write_atomic(folder / "run.json", b"{}")
    write_atomic(folder / "ledger" / "a b+c=%20.jsonl", b"line")
    assert (folder / "ledger" / "a b+c=%20.jsonl").read_bytes() == b"line"
    assert sorted(path.name for path in folder.iterdir()) == ["ledger", "run.json"]
    assert folder.is_dir()
    assert not folder.is_file()
    (folder / "run.json").unlink()
    (folder / "run.json").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match=r"s3://slides/names/run/run\.json"):
        (folder / "run.json").read_bytes()
    folder.delete_tree()
    assert not folder.exists()


def test_a_web_page_is_not_written_to() -> None:
    with pytest.raises(StorageError, match="can only be read"):
        write_atomic(place_of("https://example.org/run/run.json"), b"")


def test_the_ledger_is_the_same_in_a_bucket(s3: str) -> None:
    ledger = Ledger(place("ledger/one"), 5)
    ledger.append(TileRecord(1, TileState.FAILED, 3, reason="it broke"))
    ledger.flush()
    ledger.append(TileRecord(2, TileState.DONE, 1, "aa", pixels=100, time=10.0))
    ledger.announce("planned", {"skipped": 1})
    later = Ledger(place("ledger/one"), 5)
    later.append(TileRecord(1, TileState.DONE, 1, "bb", pixels=50, time=12.0))
    later.flush()
    state = Ledger(place("ledger/one"), 5).fold()
    assert state.states.tolist() == [0, 1, 1, 0, 0]
    assert [record.tile for record in later.records()] == [1, 2, 1]
    event = state.last_event("planned")
    assert event is not None
    assert event.facts == {"skipped": 1}


def test_a_driver_that_slept_through_a_takeover_is_stopped_at_its_next_segment(s3: str) -> None:
    sleeper = Ledger(place("ledger/fenced"), 3)
    sleeper.append(TileRecord(0, TileState.DONE, 1, "aa"))
    sleeper.flush()
    other = Ledger(place("ledger/fenced"), 3)
    other.append(TileRecord(1, TileState.DONE, 1, "bb"))
    other.flush()
    sleeper.append(TileRecord(2, TileState.DONE, 1, "cc"))
    with pytest.raises(RunError, match="another driver, which has taken the run over"):
        sleeper.flush()
    assert Ledger(place("ledger/fenced"), 3).fold().states.tolist() == [1, 1, 0]


def test_a_segment_whose_answer_was_lost_is_written_once(s3: str, few_retries: None) -> None:
    def lose_first_answer(method: str, path: str, count: int) -> str | None:
        return "lost" if method == "PUT" and count == 1 else None

    with faulty_proxy(s3, lose_first_answer) as script:
        ledger = Ledger(place("ledger/lost"), 3)
        ledger.append(TileRecord(0, TileState.DONE, 1, "aa"))
        ledger.flush()
        ledger.append(TileRecord(1, TileState.DONE, 1, "bb"))
        ledger.flush()
        assert [record.tile for record in ledger.records()] == [0, 1]
    assert script.faults == ["lost", "lost"]


def test_a_second_driver_is_refused_and_told_who_holds_the_run(s3: str) -> None:
    run = place("locks/held")
    with lock_run(run), pytest.raises(RunError, match=r"process \d+ of .+, since \d{4}-"), lock_run(run):
        pytest.fail("two drivers hold one run")
    with lock_run(run):
        pass
    assert [path.name for path in run.iterdir()] == ["driver.lock"]


def test_a_local_run_keeps_the_systems_lock(tmp_path: object) -> None:
    assert isinstance(lock_run(place_of(str(tmp_path))), RunLock)


def test_of_many_drivers_at_once_one_gets_the_run(s3: str) -> None:
    run = place("locks/race")
    (run / "driver.lock").write_bytes(b"")
    held, refused = list[Lease](), list[str]()
    barrier = threading.Barrier(6)

    def drive() -> None:
        lease = Lease(run)
        barrier.wait()
        try:
            lease.__enter__()
        except RunError as error:
            refused.append(str(error))
        else:
            held.append(lease)

    threads = [threading.Thread(target=drive) for _ in range(6)]
    with faulty_proxy(s3, lambda method, path, count: None):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(held) == 1
    assert len(refused) == 5
    held[0].__exit__(None, None, None)


def test_a_killed_driver_of_this_machine_is_followed_at_once(s3: str) -> None:
    run = place("locks/killed")
    here = Holder.here()
    gone = replace(here, process=_free_process_number(), token="gone")
    (run / "driver.lock").write_bytes(gone.dump())
    with lock_run(run):
        pass
    reused = replace(here, started=here.started - 100, token="gone")
    (run / "driver.lock").write_bytes(reused.dump())
    with lock_run(run):
        pass


def test_a_stale_lease_of_another_machine_is_taken_over_and_a_fresh_one_is_not(s3: str) -> None:
    run = place("locks/stale")
    elsewhere = replace(Holder.here(), host="node7", process=17, machine="another", token="other")
    (run / "driver.lock").write_bytes(elsewhere.dump())
    with pytest.raises(RunError, match=r"process 17 of node7, since "), Lease(run, stale_seconds=60):
        pytest.fail("a live driver's run was taken")
    with Lease(run, stale_seconds=0) as lease:
        assert lease.is_held


def test_a_lease_is_renewed_and_its_loss_is_noticed(s3: str) -> None:
    run = place("locks/beating")
    with faulty_proxy(s3, lambda method, path, count: None), Lease(run, beat_seconds=0.05) as lease:
        first = (run / "driver.lock").read_bytes()
        _wait_until(lambda: (run / "driver.lock").read_bytes() != first)
        holder = Holder.parse((run / "driver.lock").read_bytes())
        assert holder is not None
        assert holder.beat > 0
        thief = replace(holder, token="thief", beat=0).dump()
        (run / "driver.lock").write_bytes(thief)
        _wait_until(lambda: not lease.is_held)
    assert (run / "driver.lock").read_bytes() == thief


def test_a_lease_whose_answers_are_lost_is_held_all_the_same(s3: str, few_retries: None) -> None:
    def lose(method: str, path: str, count: int) -> str | None:
        return "lost" if method == "PUT" and count % 2 else None

    run = place("locks/lost")
    with faulty_proxy(s3, lose) as script, Lease(run, beat_seconds=0.05) as lease:
        _wait_until(lambda: len(script.faults) > 4)
        assert lease.is_held


@pytest.mark.parametrize("fault", ["503", "500", "cut", "mute"])
def test_a_fault_is_retried(s3: str, few_retries: None, fault: str) -> None:
    (place("faults") / fault).write_bytes(bytes(range(256)) * 400)

    def once(method: str, path: str, count: int) -> str | None:
        return fault if count <= 2 else None

    with faulty_proxy(s3, once) as script:
        assert (place("faults") / fault).read_bytes() == bytes(range(256)) * 400
        (place("faults") / fault).write_bytes(b"new")
    # The answer to a put has no body that could be cut.
    assert script.faults.count(fault) == (3 if fault == "cut" else 4)
    assert (place("faults") / fault).read_bytes() == b"new"


@pytest.mark.parametrize("fault", ["503", "500", "cut", "mute"])
def test_beyond_the_bound_it_is_one_clear_line(s3: str, few_retries: None, fault: str) -> None:
    (place("faults") / "long").write_bytes(bytes(1000))
    with faulty_proxy(s3, lambda method, path, count: fault) as script, pytest.raises(StorageError) as raised:
        (place("faults") / "long").read_bytes()
    asked = 1 + connection.MAX_RETRIES
    # The library does not count a body that ends too soon as a retry used up, so it is asked TRIES times over.
    assert len(script.seen) == (asked * connection.TRIES if fault == "cut" else asked)
    assert "\n" not in str(raised.value)
    assert "s3://slides/faults/long" in str(raised.value)
    if fault == "503":
        assert "503 Service Unavailable, SlowDown" in str(raised.value)


def test_no_error_holds_a_credential(s3: str, few_retries: None) -> None:
    texts = list[str]()
    for fault in ("403", "500", "lost", "cut"):
        with faulty_proxy(s3, lambda method, path, count, fault=fault: fault), pytest.raises(StorageError) as raised:
            (place("faults") / "long").read_bytes()
        assert raised.value.__cause__ is None
        texts.append(str(raised.value))
    with connected_to("http://127.0.0.1:9"), pytest.raises(StorageError) as raised:
        place("faults/long").read_bytes()
    for text in [*texts, str(raised.value)]:
        assert SECRET not in text
        assert TOKEN not in text


def _free_process_number() -> int:
    return next(number for number in range(2, 100_000) if not psutil.pid_exists(number))


def _wait_until(is_so: object, seconds: float = 20.0) -> None:
    assert callable(is_so)
    waited = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if is_so():
            return
        waited.wait(0.02)
    pytest.fail("it never came to be")
