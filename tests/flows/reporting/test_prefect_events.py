"""Words to Prefect's server that nobody waits for before the flow's end."""

from __future__ import annotations

import threading
from typing import Any

from flows.reporting.prefect_events import Artifact, cause_first, recorded_by_the_end, settle


def test_of_an_expected_error_a_state_has_the_message_alone_and_of_a_bug_its_kind_too() -> None:
    before = "Flow run encountered an exception: "
    assert cause_first(f"{before}IncompleteError: 3 done, 1 failed: a.svs") == "3 done, 1 failed: a.svs"
    assert cause_first(f"{before}SourceError: a.svs is cut") == "a.svs is cut"
    for kept in (f"{before}KeyError: 'a'", "3 done", None):
        assert cause_first(kept) == kept


def test_a_call_goes_on_beside_the_flow_and_has_ended_when_all_is_settled() -> None:
    go, done = threading.Event(), list[int]()

    def call() -> None:
        go.wait(60)
        done.append(1)

    recorded_by_the_end(call)
    recorded_by_the_end(call)
    assert done == []
    go.set()
    settle()
    assert done == [1, 1]
    settle()


def test_the_last_word_of_a_progress_comes_after_the_one_before_it() -> None:
    go, shown = threading.Event(), list[Any]()

    def create() -> str:
        go.wait(60)
        shown.append("created")
        return "id"

    artifact = Artifact(create, lambda artifact, progress: shown.append((artifact, progress)))
    artifact.show(progress=50.0)  # dropped while it is being made
    artifact.end(progress=100.0)
    assert shown == []
    go.set()
    settle()
    assert shown == ["created", ("id", 100.0)]


def test_what_fails_beside_the_flow_keeps_no_other_from_being_settled() -> None:
    done = list[int]()

    def fails() -> None:
        raise OSError("gone")

    recorded_by_the_end(lambda: done.append(1))
    recorded_by_the_end(fails)
    settle()
    assert done == [1]
