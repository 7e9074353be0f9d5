"""The demo's sums: right books pass, and each kind of wrong count is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dispatcherd.demo.scenario import End
from dispatcherd.demo.tally import Books, Received, Recorded, discrepancies

RIGHT = Books(
    routed={"prompt": 10, "hangs": 4, "gone": 3},
    must_end={"prompt": End.DELIVERED, "hangs": End.OWED, "gone": End.DEAD},
    recorded={
        "prompt": Recorded(delivered=10, exchanges=10, p50_seconds=0.01, p99_seconds=0.02),
        "hangs": Recorded(owed=4, timeouts=2, exchanges=2),
        "gone": Recorded(dead=3, exchanges=3),
    },
    received={
        "prompt": Received(requests=10, verified=10, accepted=10),
        "hangs": Received(requests=2, verified=2),
        "gone": Received(requests=3, verified=3),
    },
    bad_records={"not_json": 2, "empty": 1},
    quarantined={"not_json": 2, "empty": 1},
    log_ends={("shop", 0): 12, ("shop", 1): 5},
    watermarks={("shop", 0): 12, ("shop", 1): 5},
    committed={("shop", 0): 12, ("shop", 1): 5},
)


def recorded(name: str, **changes: int) -> Books:
    return replace(
        RIGHT, recorded={**RIGHT.recorded, name: replace(RIGHT.recorded[name], **changes)}
    )


def received(name: str, **changes: int) -> Books:
    return replace(
        RIGHT, received={**RIGHT.received, name: replace(RIGHT.received[name], **changes)}
    )


def test_right_books_have_no_discrepancy() -> None:
    assert discrepancies(RIGHT) == []


@pytest.mark.parametrize(
    ("books", "told"),
    [
        (recorded("hangs", owed=3), "hangs: 4 deliveries were routed, but 0 delivered + 3 owed"),
        (recorded("hangs", owed=5), "= 5"),
        (
            recorded("hangs", owed=3, dead=1),
            "hangs: every delivery had to end owed, but 1 are dead",
        ),
        (recorded("gone", overlapping=1), "gone: 1 deliveries are delivered and yet owed or dead"),
        (recorded("prompt", exchanges=9), "prompt: the receiver saw 10 requests, Postgres has 9"),
        (received("prompt", accepted=9), "prompt: the receiver accepted 9 different events"),
        (received("prompt", repeated=1), "prompt: the receiver accepted 1 events more than once"),
        (received("gone", verified=2), "gone: 1 of 3 requests did not verify"),
        (replace(RIGHT, recorded={}), "prompt: 10 deliveries were routed"),
        (replace(RIGHT, received={}), "prompt: the receiver accepted 0 different events"),
        (
            replace(RIGHT, received={**RIGHT.received, "who": Received(requests=1)}),
            "who: nothing was routed to it",
        ),
        (
            replace(RIGHT, quarantined={"not_json": 1, "empty": 1}),
            "quarantine: 2 records were not_json, but 1 lie there",
        ),
        (
            replace(RIGHT, quarantined={**RIGHT.quarantined, "internal_error": 1}),
            "quarantine: 0 records were internal_error, but 1 lie there",
        ),
        (
            replace(RIGHT, watermarks={("shop", 0): 12}),
            "shop/1: Postgres's watermark is 0, the partition's end 5",
        ),
        (
            replace(RIGHT, committed={("shop", 0): 11, ("shop", 1): 5}),
            "shop/0: the offset committed to Kafka is 11, the partition's end 12",
        ),
    ],
)
def test_a_wrong_count_is_named(books: Books, told: str) -> None:
    found = discrepancies(books)
    assert any(told in problem for problem in found), found
