"""The sender learns exactly what it must send again."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcherd.receiver.errors import Behind, MethodNotAllowed, NoMatchingSignature
from dispatcherd.receiver.results import Outcome, Result, answer, refusal_answer

results = st.sampled_from(Result)
outcomes = st.builds(Outcome, results, st.floats(0, 300))


@given(outcomes)
def test_one_event_is_answered_with_what_became_of_it(outcome: Outcome) -> None:
    told = answer([("evt_1", outcome)], is_batch=False, partial=True)
    assert told.status == outcome.result.status
    assert outcome.result.word in json.loads(told.body).values()
    assert outcome.result.accepted == (200 <= told.status < 300)


@given(st.lists(outcomes, min_size=1, max_size=8))
def test_a_batch_names_what_must_come_again_and_nothing_else(found: list[Outcome]) -> None:
    named = [(f"evt_{n}", outcome) for n, outcome in enumerate(found)]
    told = answer(named, is_batch=True, partial=True)
    failed = [id_ for id_, outcome in named if not outcome.result.accepted]
    listed = [f["itemIdentifier"] for f in json.loads(told.body).get("batchItemFailures", [])]
    if len(failed) == len(found):
        assert told.status >= 400 and not listed
    else:
        assert 200 <= told.status < 300 and listed == failed


@given(st.lists(outcomes, min_size=1, max_size=8))
def test_a_sender_that_knows_no_partial_failures_sends_all_again(found: list[Outcome]) -> None:
    named = [(f"evt_{n}", outcome) for n, outcome in enumerate(found)]
    told = answer(named, is_batch=True, partial=False)
    assert (told.status < 300) == all(outcome.result.accepted for outcome in found)
    assert b"batchItemFailures" not in told.body


def test_an_id_that_failed_twice_is_named_once() -> None:
    failed, done = Outcome(Result.FAILED), Outcome(Result.DONE)
    told = answer([("a", failed), ("a", failed), ("b", done)], is_batch=True, partial=True)
    assert json.loads(told.body) == {"batchItemFailures": [{"itemIdentifier": "a"}]}


def test_the_longest_wait_is_asked_for_in_whole_seconds() -> None:
    waits = [Outcome(Result.LATER, 1.2), Outcome(Result.BUSY, 4.01)]
    told = answer([("a", waits[0]), ("b", waits[1])], is_batch=True, partial=True)
    assert (told.status, dict(told.headers)["retry-after"]) == (503, "5")


@pytest.mark.parametrize(
    ("refusal", "status", "headers"),
    [
        (NoMatchingSignature("detail"), 401, {}),
        (Behind("detail", 3.5), 503, {"retry-after": "4"}),
        (MethodNotAllowed("detail"), 405, {"allow": "POST"}),
    ],
)
def test_a_refusal_is_answered_with_its_cause_and_no_detail(
    refusal: NoMatchingSignature, status: int, headers: dict[str, str]
) -> None:
    told = refusal_answer(refusal)
    assert told.status == status
    assert json.loads(told.body) == {"error": refusal.cause}
    assert dict(told.headers) == {"content-type": "application/json", **headers}
