"""What the local endpoint keeps is bounded, and what it answers is as it was told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcherd.tools.diagnose import Diagnosis
from dispatcherd.tools.inbox import Inbox, Received
from dispatcherd.tools.manner import BadManner, Manner, parse_manner, reply
from dispatcherd.tools.origin import may_change, may_look


def put(inbox: Inbox, webhook_id: str = "evt_1", body: bytes = b"{}", ok: bool = True) -> Received:
    received = inbox.take(1.0, "POST", "/", (), body, Diagnosis(ok=ok, id=webhook_id))
    inbox.keep(received)
    return received


@given(st.lists(st.integers(0, 3_000), max_size=40))
def test_never_more_is_kept_than_the_caps_allow_and_always_the_newest(sizes: list[int]) -> None:
    inbox = Inbox(most_requests=5, most_bytes=8_000)
    for size in sizes:
        newest = put(inbox, body=b"x" * size)
        kept = [row["number"] for row in inbox.summaries()]
        assert len(kept) <= 5 and kept[-1] == newest.number
        assert len(kept) == 1 or sum(row["bytes"] for row in inbox.summaries()) <= 8_000
        assert kept == sorted(kept)


def test_an_id_is_counted_and_its_event_processed_once() -> None:
    inbox = Inbox()
    for _ in range(3):
        inbox.process(put(inbox))
    inbox.process(put(inbox, "batch_1", b'[{"id": "a", "type": "x"}, {"id": "b"}]'))
    assert [row["seen"] for row in inbox.summaries()] == [1, 2, 3, 1]
    assert inbox.processed == ["evt_1", "a", "b"]
    inbox.clear()
    assert not inbox.processed and not inbox.summaries() and put(inbox).seen == 1


def test_a_looker_that_does_not_keep_up_holds_up_nobody() -> None:
    inbox = Inbox()
    with inbox.looking() as slow, inbox.looking() as quick:
        for number in range(500):
            put(inbox, f"evt_{number}")
            quick.queue.get_nowait()
    assert slow.behind and not quick.behind
    assert slow.queue.qsize() <= 200


def test_a_body_that_is_no_text_is_shown_in_base64() -> None:
    inbox = Inbox()
    assert put(inbox, body=b"\xff").document()["body_base64"] == "/w=="
    assert put(inbox, body="ü".encode()).document()["body"] == "ü"


# --- manners ---------------------------------------------------------------------------------


def test_what_does_not_verify_is_refused_with_its_cause_unless_told_otherwise() -> None:
    refused = reply(Manner(), False, ["stale"], 1, ())
    assert (refused.status, refused.body) == (401, b'{"error":"stale"}\n')
    assert reply(Manner(check="accept"), False, ["stale"], 1, ()).status == 200


@given(seen=st.integers(1, 20), first=st.integers(1, 10))
def test_a_manner_for_the_first_attempts_ends_with_them(seen: int, first: int) -> None:
    manner = Manner(status=503, retry_after="7", first=first, drop=True, delay_seconds=1)
    answer = reply(manner, True, (), seen, ())
    assert answer.status == (503 if seen <= first else 200)
    assert answer.drop is (seen <= first) and bool(answer.delay_seconds) is (seen <= first)
    assert ("retry-after" in answer.headers) is (seen <= first)


def test_of_a_batch_every_nth_member_is_named_as_failed() -> None:
    answer = reply(Manner(fail_members=2), True, (), 1, ("a", "b", "c", "d"))
    assert answer.body == (
        b'{"batchItemFailures":[{"itemIdentifier":"b"},{"itemIdentifier":"d"}]}\n'
    )
    assert reply(Manner(fail_members=2), True, (), 1, ()).body == b"{}\n"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b'{"status": 99}', b'{"status": 600}', b'{"other": 1}',
        b'{"delay_seconds": 1e9}', b'{"retry_after": "1\\r\\nx: y"}', b'{"check": "maybe"}',
    ],
)  # fmt: skip
def test_a_manner_that_there_is_not_is_refused(content: bytes) -> None:
    with pytest.raises(BadManner):
        parse_manner(content)


# --- who may use the page --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "look"),
    [
        ("127.0.0.1:8000", True), ("localhost:8000", True), ("[::1]:8000", True),
        ("127.9.9.9", True), ("evil.example:8000", False), ("127.0.0.1.evil.example", False),
        ("192.168.0.1:8000", False), ("", False), ("[", False), ("localhost.evil.example", False),
    ],
)  # fmt: skip
def test_only_names_of_loopback_may_look(host: str, look: bool) -> None:
    assert may_look({"Host": host}) is look
    assert may_change({"Host": host, "Origin": f"http://{host}"}) is look


@pytest.mark.parametrize(
    "origin", [None, "null", "http://127.0.0.1:9", "http://evil.example", "https://127.0.0.1:8000"]
)
def test_only_the_pages_own_origin_may_change_something(origin: str | None) -> None:
    headers = {"Host": "127.0.0.1:8000"} | ({} if origin is None else {"Origin": origin})
    assert not may_change(headers)
