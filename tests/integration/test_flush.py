"""One flush on the real Postgres: what it writes, what it must not, what a refused row costs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dispatcherd.delivery import Claim, Reason
from dispatcherd.offsets import Window
from dispatcherd.record import claims, flush, owed
from dispatcherd.record.gathering import Change, QuarantineRow
from tests.rig.store import (
    OWED,
    Store,
    attempt_row,
    delivery,
    gathering,
    operation,
    until_blocked,
    write,
)
from tests.rig.store import store as store_on

ATTEMPTS = 'SELECT "offset" FROM attempts ORDER BY "offset"'
PROGRESS = (
    "SELECT partition, watermark, settled::text, partial::text, fingerprint, fingerprint_offset "
    "FROM progress ORDER BY partition"
)


def window_of(claim: Claim, *records: int, start: int = 0) -> Window:
    """Some records taken in, each for the endpoints 1 and 2."""
    window = Window(claim, start)
    for offset in records:
        window.add(offset, {1: None, 2: None}, 0.0, 10)
    return window


# --- what is written -----------------------------------------------------------------------


async def test_a_flush_writes_attempts_progress_and_what_is_owed(store: Store) -> None:
    claim = await store.claim()
    window = window_of(claim, 0, 2, 3)
    window.settle(0, 1)
    window.settle(0, 2)
    window.settle(3, 2)
    window.mark(0, b"f")
    one = delivery(claim, 3, 2, attempts=4, cycle_start=1)
    contents = gathering(
        1,
        [attempt_row(store, claim, 0), attempt_row(store, claim, 3, endpoint_id=2, status=503)],
        [operation(one, Change.OWED, due_in=60)],
        [window],
    )
    assert await write(store, contents) == 0
    assert contents.fenced == set()
    assert await store.fetch(ATTEMPTS) == [(0,), (3,)]
    assert await store.fetch(PROGRESS) == [(0, 2, "{}", '{"3": [2]}', b"f", 0)]
    assert await store.fetch(OWED) == [(3, 2, 1, Reason.UNAVAILABLE, 503, 4, 1)]
    due, mine = (
        await store.fetch("SELECT extract(epoch FROM due - now())::float FROM deliveries"),
        60,
    )
    assert mine - 10 < due[0][0] <= mine
    [body] = await store.fetch("SELECT webhook_id, body, headers FROM bodies")
    assert body == (one.event.id, one.event.body, b'[["trace","\\u0000\xc3\xbf"]]')
    assert await store.value("SELECT flush FROM instances") == 1


async def test_what_is_owed_comes_back_as_it_was(store: Store) -> None:
    claim = await store.claim()
    one = delivery(claim, 7, attempts=3, cycle_start=2)
    await write(store, gathering(1, operations=[operation(one, Change.OWED, due_in=-1)]))
    [row] = await owed.page(store.database, [claim], 1, 60.0, 10, 1 << 20, [], now=5.0)
    found = row.delivery
    assert (found.key, found.attempts, found.cycle_start, found.owed) == (one.key, 3, 2, True)
    for name in ("id", "type", "version", "timestamp", "body", "headers", "shape", "tenant"):
        assert getattr(found.event, name) == getattr(one.event, name)
    assert row.due_in_seconds <= 0


async def test_a_body_is_kept_as_long_as_any_endpoint_needs_it(store: Store) -> None:
    claim = await store.claim()
    first, second = delivery(claim, 7, 1), delivery(claim, 7, 2)
    await write(
        store,
        gathering(1, operations=[operation(d, Change.OWED) for d in (first, second)]),
    )
    await write(store, gathering(2, operations=[operation(first, Change.DELETE)]))
    assert await store.value("SELECT count(*) FROM bodies") == 1
    await write(store, gathering(3, operations=[operation(second, Change.DEAD)]))
    assert await store.value("SELECT count(*) FROM bodies") == 1
    await write(store, gathering(4, operations=[operation(second, Change.DELETE)]))
    assert await store.fetch(OWED) == []
    assert await store.value("SELECT count(*) FROM bodies") == 0


async def test_one_endpoint_is_delivered_and_another_parked_in_the_same_flush(
    store: Store,
) -> None:
    claim = await store.claim()
    first, second = delivery(claim, 7, 1), delivery(claim, 7, 2)
    await write(store, gathering(1, operations=[operation(first, Change.OWED)]))
    await write(
        store,
        gathering(2, operations=[operation(first, Change.DELETE), operation(second, Change.OWED)]),
    )
    assert [row[:2] for row in await store.fetch(OWED)] == [(7, 2)]
    assert await store.value("SELECT count(*) FROM bodies") == 1


async def test_what_happened_to_a_delivery_within_one_flush_is_written_once(store: Store) -> None:
    claim = await store.claim()
    failed, gone = delivery(claim, 1), delivery(claim, 2)
    contents = gathering(
        1,
        operations=[
            operation(failed, Change.OWED, status=500),
            operation(failed, Change.OWED, status=503),
            operation(gone, Change.OWED),
            operation(gone, Change.DELETE),
        ],
    )
    assert await write(store, contents) == 0
    assert [(row[0], row[4]) for row in await store.fetch(OWED)] == [(1, 503)]
    assert await store.fetch('SELECT "offset" FROM bodies') == [(1,)]


async def test_counts_past_a_smallint_are_cut_and_refuse_nothing(store: Store) -> None:
    claim = await store.claim()
    one = delivery(claim, 1, attempts=100_000, cycle_start=99_999)
    contents = gathering(1, operations=[operation(one, Change.OWED, due_in=1e300)])
    assert await write(store, contents) == 0
    assert [row[5:] for row in await store.fetch(OWED)] == [(32_767, 32_767)]


async def test_a_flush_is_not_written_twice_by_mistake(store: Store) -> None:
    claim = await store.claim()
    await write(store, gathering(1, [attempt_row(store, claim, 0)]))
    with pytest.raises(RuntimeError, match="flush 1"):
        await write(store, gathering(1, [attempt_row(store, claim, 0)]))
    assert await store.fetch(ATTEMPTS) == [(0,)]


# --- rows that Postgres refuses ------------------------------------------------------------

REFUSED: dict[str, dict[str, Any]] = {
    "a status that is no smallint": {"status": 70_000},
    "a duration that is no int": {"duration_us": 2**40},
    "an offset that is no bigint": {"offset": 2**70},
    "a NUL": {"webhook_id": "a\x00b"},
    "a lone surrogate": {"webhook_id": "a\ud800b"},
    "a null": {"webhook_id": None},
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_refused_row_does_not_take_its_batch_along(store: Store, case: str) -> None:
    claim = await store.claim()
    window = window_of(claim, 0)
    rows = [attempt_row(store, claim, offset) for offset in range(50)]
    rows[17] = attempt_row(store, claim, **{"offset": 17, **REFUSED[case]})
    one = delivery(claim, 0)
    contents = gathering(1, rows, [operation(one, Change.OWED)], [window])
    assert await write(store, contents) == 1
    written = [row[0] for row in await store.fetch(ATTEMPTS)]
    assert set(range(50)) - {17} <= set(written)
    assert len(written) == len(set(written))
    if "webhook_id" in REFUSED[case]:
        assert await store.fetch('SELECT webhook_id FROM attempts WHERE "offset" = 17') == [("",)]
    else:
        assert 17 not in written
    assert len(await store.fetch(OWED)) == 1


async def test_many_refused_rows_cost_only_themselves(store: Store) -> None:
    claim = await store.claim()
    bad = {0, 1, 2, 499, 500, 731, 998, 999}
    rows = [
        attempt_row(store, claim, n, **({"status": 70_000} if n in bad else {}))
        for n in range(1_000)
    ]
    assert await write(store, gathering(1, rows)) == len(bad)
    assert {row[0] for row in await store.fetch(ATTEMPTS)} == set(range(1_000)) - bad


async def test_a_flush_of_refused_rows_alone_is_still_a_flush(store: Store) -> None:
    claim = await store.claim()
    rows = [attempt_row(store, claim, n, status=70_000) for n in range(5)]
    window = window_of(claim)
    window.skip_to(5)
    assert await write(store, gathering(1, rows, windows=[window])) == 5
    assert await store.value("SELECT watermark FROM progress") == 5


@pytest.mark.parametrize("detail", ["a\x00b", "a\ud800b"])
async def test_a_refused_detail_of_a_quarantined_record_is_replaced(
    store: Store, detail: str
) -> None:
    claim = await store.claim()
    contents = gathering(1)
    for offset, text in ((0, "fine"), (1, detail), (2, "fine")):
        headers = (("trace\x00", b"\xff\x00"),)
        contents.quarantine.append(
            QuarantineRow(claim, offset, Reason.NOT_JSON, text, b"\x00", b"\xff\x00", 2, headers)
        )
    assert await write(store, contents) == 1
    found = await store.fetch('SELECT "offset", detail, key, value FROM quarantine ORDER BY 1')
    assert [row[0] for row in found] == [0, 1, 2]
    assert found[0][1] == found[2][1] == "fine"
    assert {row[2:] for row in found} == {(b"\x00", b"\xff\x00")}


async def test_a_record_is_quarantined_once_however_often_it_is_read(store: Store) -> None:
    claim = await store.claim()
    for number in (1, 2):
        contents = gathering(number)
        contents.quarantine.append(
            QuarantineRow(claim, 0, Reason.NO_VALUE, "null", None, None, 0, ())
        )
        assert await write(store, contents) == 0
    assert await store.value("SELECT count(*) FROM quarantine") == 1


# --- fencing -------------------------------------------------------------------------------


async def test_a_fenced_partition_is_left_alone_but_its_attempts_are_recorded(
    store: Store, dsn: str
) -> None:
    mine, lost = await store.claim(partition=0), await store.claim(partition=1)
    before = delivery(lost, 5)
    await write(store, gathering(1, operations=[operation(before, Change.OWED)]))
    async with store_on(dsn) as other:
        await other.claim(partition=1)
        windows = [window_of(mine, 0), window_of(lost, 0)]
        for window in windows:
            window.skip_to(9)
            window.settle(0, 1)
        contents = gathering(
            2,
            [attempt_row(store, claim, 0) for claim in (mine, lost)],
            [operation(before, Change.DELETE)]
            + [operation(delivery(claim, 0), Change.OWED) for claim in (mine, lost)],
            windows,
        )
        contents.quarantine.extend(
            QuarantineRow(claim, 3, Reason.EMPTY, "empty", None, b"", 0, ())
            for claim in (mine, lost)
        )
        assert await write(store, contents) == 0
    assert contents.fenced == {lost}
    assert await store.fetch("SELECT partition FROM attempts ORDER BY 1") == [(0,), (1,)]
    assert [row[:3] for row in await store.fetch(PROGRESS)] == [(0, 0, "{[1,9)}"), (1, 0, "{}")]
    owed_now = await store.fetch('SELECT partition, "offset" FROM deliveries ORDER BY 1')
    assert owed_now == [(0, 0), (1, 5)]
    bodies = await store.fetch('SELECT partition, "offset" FROM bodies ORDER BY 1')
    assert bodies == [(0, 0), (1, 5)]
    assert await store.fetch("SELECT partition FROM quarantine") == [(0,)]


async def test_only_the_epoch_counts_also_when_the_same_process_claims_again(store: Store) -> None:
    old = await store.claim()
    new = await store.claim()
    stale, current = window_of(old), window_of(new)
    stale.skip_to(100)
    current.skip_to(7)
    contents = gathering(1, windows=[stale, current])
    await write(store, contents)
    assert contents.fenced == {old}
    assert await store.value("SELECT watermark FROM progress") == 7


async def test_a_flush_that_waited_for_a_claimant_sees_the_new_epoch(
    store: Store, dsn: str
) -> None:
    """The claimant has the lock first: what the flush had read of the row is out of date."""
    claim = await store.claim()
    window = window_of(claim)
    window.skip_to(100)
    contents = gathering(1, [attempt_row(store, claim, 0)], windows=[window])
    async with store.connection() as claimant:
        transaction = claimant.transaction()
        await transaction.start()
        await claimant.execute("UPDATE progress SET epoch = epoch + 1")
        writing = asyncio.create_task(write(store, contents))
        await until_blocked(store)
        assert not writing.done()
        await transaction.commit()
        await writing
    assert contents.fenced == {claim}
    assert await store.value("SELECT watermark FROM progress") == 0
    assert await store.fetch(ATTEMPTS) == [(0,)]


async def test_flushes_and_claims_of_the_same_partitions_do_not_deadlock(
    store: Store, dsn: str
) -> None:
    held = [await store.claim(partition=n) for n in range(6)]

    async def flush_often() -> None:
        for number in range(1, 31):
            order = held if number % 2 else held[::-1]
            contents = gathering(number, windows=[window_of(claim) for claim in order])
            await write(store, contents)

    async with store_on(dsn) as other:

        async def claim_often() -> None:
            for number in range(60):
                await other.claim(partition=number * 5 % 6)

        await asyncio.gather(flush_often(), claim_often())
    deadlocks = await store.value(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    assert deadlocks == 0


# --- a lost answer to COMMIT ---------------------------------------------------------------


async def test_what_was_committed_is_known_and_what_was_not_is_known_too(store: Store) -> None:
    claim = await store.claim()
    async with store.connection() as connection:
        for number in (1, 2):
            assert not await flush.already_committed(connection, store.incarnation, number)
        await write(store, gathering(1, [attempt_row(store, claim, 0)]))
        assert await flush.already_committed(connection, store.incarnation, 1)
        assert not await flush.already_committed(connection, store.incarnation, 2)


async def test_the_question_waits_for_the_transaction_that_it_asks_about(store: Store) -> None:
    claim = await store.claim()
    async with store.connection() as old, store.connection() as new:
        transaction = old.transaction()
        await transaction.start()
        await old.execute("UPDATE instances SET flush = 1")
        asking = asyncio.create_task(flush.already_committed(new, store.incarnation, 1))
        await until_blocked(store)
        assert not asking.done()
        await transaction.commit()
        assert await asking
    assert await claims.still_ours(store.database, [claim]) == {claim}
