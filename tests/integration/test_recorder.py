"""The recorder on the real Postgres: all that is handed in is written once, come what may."""

from __future__ import annotations

import asyncio

from dispatcherd.delivery import (
    Delivery,
    Reason,
    Refused,
    Stage,
)
from dispatcherd.offsets import Window
from tests.rig.recording import (
    DELIVERED,
    RETRY,
    becomes,
    recording,
)
from tests.rig.store import Store, event
from tests.rig.store import store as store_on

# --- what is handed in ---------------------------------------------------------------------


async def test_outcomes_are_durable_and_then_the_watermark_is(store: Store) -> None:
    async with recording(store) as one:
        done, failed = one.take_in(0)[0], one.take_in(1)[0]
        open_ = one.take_in(2)[0]
        assert one.attempt(done)
        assert one.attempt(failed, RETRY)
        assert one.window.durable_watermark == 0
        assert await one.recorder.drained(10)
        assert one.window.durable_watermark == one.window.watermark == 2
        assert failed.owed
        assert not open_.owed
    assert await store.value("SELECT watermark FROM progress") == 2
    assert await store.value("SELECT count(*) FROM attempts") == 2
    assert await store.fetch('SELECT "offset" FROM deliveries') == [(1,)]


async def test_a_row_that_is_owed_goes_when_it_is_delivered(store: Store) -> None:
    async with recording(store) as one:
        [delivery] = one.take_in(0)
        one.attempt(delivery, RETRY)
        assert one.buffer.pending(delivery)
        await one.recorder.drained(10)
        assert not one.buffer.pending(delivery)
        one.attempt(delivery)
        assert delivery.stage is Stage.GONE
        await one.recorder.drained(10)
    assert await store.value("SELECT count(*) FROM deliveries") == 0
    assert await store.fetch("SELECT number FROM attempts ORDER BY 1") == [(1,), (2,)]


async def test_a_half_settled_record_is_known_to_the_next_claim(store: Store) -> None:
    async with recording(store) as one:
        first, second, third = one.take_in(0, 1, 2, 3)
        one.attempt(first)
        one.attempt(second, RETRY)
        await one.recorder.drained(10)
    [partial] = await store.fetch("SELECT partial::text FROM progress")
    assert partial == ('{"0": [1, 2]}',)
    assert not third.owed


async def test_what_is_done_leaves_memory_while_a_flush_is_under_way_and_is_durable_after_it(
    store: Store,
) -> None:
    async with recording(store) as one, store.connection() as other:
        first, second, third = (one.take_in(offset)[0] for offset in range(3))
        async with other.transaction():
            await other.execute("SELECT FROM progress FOR UPDATE")
            one.attempt(first)
            await becomes(lambda: one.buffer.under_way)
            one.attempt(second)
            assert one.buffer.try_reserve(1, third.event.size)
            one.buffer.park(third, 0.0, Reason.LANE_FULL)
            assert one.window.deliveries == 2
            one.buffer.settle()
            assert (one.window.deliveries, one.window.bytes) == (0, 0)
            assert (one.window.watermark, one.window.durable_watermark) == (3, 0)
            assert await store.value("SELECT watermark FROM progress") == 0
        assert await one.recorder.drained(10)
        assert one.window.durable_watermark == 3
    assert await store.value("SELECT watermark FROM progress") == 3
    assert await store.value("SELECT count(*) FROM attempts") == 2
    assert await store.fetch('SELECT "offset" FROM deliveries') == [(2,)]


async def test_what_is_held_is_flushed_though_its_window_knows_already(store: Store) -> None:
    async with recording(store) as one:
        one.take_in(0)
        one.buffer.hold(one.window, 0, 1)
        one.buffer.settle()
        assert not one.buffer.empty
        assert await one.recorder.drained(10)
    assert await store.fetch("SELECT start_offset, end_offset FROM held_ranges") == [(0, 1)]


async def test_places_are_given_back_whatever_came_of_them(store: Store) -> None:
    async with recording(store) as one:
        for offset in range(0, 40, 4):
            delivered, owed, buried, parked = (one.take_in(offset + n)[0] for n in range(4))
            one.attempt(delivered)
            one.attempt(owed, RETRY)
            one.attempt(owed, RETRY)
            one.attempt(owed)
            one.attempt(buried, RETRY)
            one.buffer.bury(buried, Reason.UNAVAILABLE, 503)
            assert one.buffer.try_reserve(1, parked.event.size)
            one.buffer.park(parked, 0.0, Reason.LANE_FULL)
        for offset, value in ((100, b"x" * 500), (101, None)):
            size = min(len(value or b""), 100)
            assert one.buffer.try_reserve(1, size)
            refused = Refused(Reason.NOT_JSON, "no")
            one.buffer.quarantine(one.window, offset, refused, b"k", value, (), 100, 0.0)
        assert one.buffer.rows > 0
        assert await one.recorder.drained(10)
        assert (one.buffer.rows, one.buffer.bytes) == (0, 0)
        assert one.window.durable_watermark == 102
    kept = await store.fetch('SELECT length(value), value_bytes FROM quarantine ORDER BY "offset"')
    assert kept == [(100, 500), (None, 0)]


async def test_a_delivery_that_was_parked_in_the_air_records_its_outcome(store: Store) -> None:
    async with recording(store) as one:
        [delivery] = one.take_in(0)
        assert one.buffer.try_reserve(1, delivery.event.size)  # the attempt's
        assert one.buffer.try_reserve(1, delivery.event.size)  # the row's
        one.buffer.park(delivery, 0.0, Reason.TOO_SLOW)
        await one.recorder.drained(10)
        assert one.window.durable_watermark == 1
        one.buffer.attempt(delivery, 1, 1.7e9, 9.0, 200, DELIVERED, True)
        one.buffer.delivered(delivery)
        await one.recorder.drained(10)
        assert (one.buffer.rows, one.buffer.bytes) == (0, 0)
    assert await store.value("SELECT count(*) FROM deliveries") == 0
    assert await store.value("SELECT count(*) FROM bodies") == 0
    assert await store.value("SELECT count(*) FROM attempts") == 1


# --- fencing, and the end ------------------------------------------------------------------


async def test_a_claim_that_was_lost_is_told_and_its_watermark_stays(
    store: Store, dsn: str
) -> None:
    async with recording(store) as one, store_on(dsn) as other:
        [delivery] = one.take_in(0)
        await other.claim()
        one.attempt(delivery)
        await one.recorder.drained(10)
        assert one.flushed[-1].fenced == {one.window.claim}
        assert one.window.durable_watermark == 0
        assert (one.buffer.rows, one.buffer.bytes) == (0, 0)
        one.buffer.forget(one.window.claim)
        [late] = [Delivery(event(one.window.claim, 1), 1, 0.0)]
        one.attempt(late, RETRY)
        await one.recorder.drained(10)
    assert await store.value("SELECT watermark FROM progress") == 0
    assert await store.value("SELECT count(*) FROM deliveries") == 0
    assert await store.value("SELECT count(*) FROM attempts") == 2


async def test_a_recorder_that_is_cut_off_leaves_each_attempt_recorded_at_most_once(
    store: Store, dsn: str
) -> None:
    """A crash of the process: what was not durable is owed by the log again, and nothing is there
    twice. The next process starts from the stored watermark."""
    for generation in range(15):
        async with store_on(dsn) as process:
            claim = await process.claim()
            start = await process.value("SELECT watermark FROM progress")
            async with recording(process, claim=claim) as one:
                one.window = Window(claim, start)
                one.buffer.windows[claim] = one.window
                for offset in range(start, start + 300):
                    one.attempt(one.take_in(offset)[0])
                    if offset % 20 == 0:
                        await asyncio.sleep(0.001 * generation)  # each is cut off elsewhere
    rows = await store.fetch(
        'SELECT count(*), count(DISTINCT "offset"), max("offset") + 1 FROM attempts'
    )
    [(count, distinct, top)] = rows
    assert count == distinct == top
    assert top < 15 * 300  # some of them were cut off in the middle
    assert await store.value("SELECT watermark FROM progress") == top
