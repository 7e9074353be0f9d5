"""Claims on the real Postgres: epochs decide; a frozen holder is ended, a busy one is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from dispatcherd.config.model import PostgresConfig
from dispatcherd.delivery import Delivery
from dispatcherd.errors import StoreUnavailable
from dispatcherd.offsets import Window
from dispatcherd.record import claims, flush
from dispatcherd.record.claims import Claimed
from dispatcherd.record.connection import Database
from dispatcherd.record.gathering import Change
from tests.rig.store import Store, attempt_row, event, gathering, operation, until, until_blocked
from tests.rig.store import store as store_on


async def claim(store: Store, partition: int = 0, partitions: int = 8) -> list[Claimed]:
    return await claims.claim(store.database, "orders", partition, partitions, store.incarnation)


async def epoch(store: Store) -> int:
    return int(await store.value("SELECT epoch FROM progress"))


# --- epochs --------------------------------------------------------------------------------


async def test_each_claim_has_a_higher_epoch_and_only_the_last_one_is_still_ours(
    store: Store,
) -> None:
    held = [(await claim(store))[-1].claim for _ in range(3)]
    other = (await claim(store, partition=1))[-1].claim
    assert [c.epoch for c in held] == [1, 2, 3]
    assert await claims.still_ours(store.database, [*held, other]) == {held[-1], other}
    assert await claims.still_ours(store.database, []) == set()


async def test_of_many_claimants_at_once_each_has_an_epoch_of_its_own(
    store: Store, dsn: str
) -> None:
    async with AsyncExitStack() as stack:
        stores = [store] + [await stack.enter_async_context(store_on(dsn)) for _ in range(3)]
        found = await asyncio.gather(*(claim(stores[n % 4]) for n in range(24)))
    epochs = sorted(one[-1].claim.epoch for one in found)
    assert epochs == list(range(1, 25))
    assert len({one[-1].claim.topic_id for one in found}) == 1
    ours = await claims.still_ours(store.database, [one[-1].claim for one in found])
    assert [c.epoch for c in ours] == [24]


async def test_a_start_is_stored_only_under_the_epoch_that_resolved_it(store: Store) -> None:
    first = (await claim(store))[-1]
    assert first.watermark is None
    second = (await claim(store))[-1]
    assert not await claims.store_start(store.database, first.claim, 5)
    assert await store.value("SELECT watermark FROM progress") is None
    assert await claims.store_start(store.database, second.claim, 7)
    assert (await claim(store))[-1].watermark == 7


async def test_a_partition_that_its_topic_did_not_have_at_first_is_known_as_added(
    store: Store,
) -> None:
    assert not (await claim(store, partition=3, partitions=4))[-1].added_later
    assert (await claim(store, partition=4, partitions=8))[-1].added_later
    assert not (await claim(store, partition=0, partitions=8))[-1].added_later


# --- what a claim finds --------------------------------------------------------------------


async def write(store: Store, number: int, window: Window, *owed: Delivery) -> None:
    contents = gathering(number, [], [operation(d, Change.OWED) for d in owed], [window])
    ids = store.catalogue.ids
    async with store.connection() as connection:
        await flush.write(connection, store.incarnation, contents, 0.0, ids)
    assert contents.fenced == set()


async def test_a_claim_finds_what_the_last_one_stored(store: Store) -> None:
    held = await store.claim(start=10)
    window = Window(held, 10)
    for offset in (10, 12, 13, 15, 20):
        window.add(offset, {1: None, 2: None, 3: None}, 0.0, 1)
        window.mark(offset, b"mark%d" % offset)
    for offset, endpoint in ((10, 1), (10, 2), (10, 3), (13, 1), (13, 2), (13, 3), (15, 2)):
        window.settle(offset, endpoint)
    parked = [Delivery(event(held, 15), 3, 0.0), Delivery(event(held, 12), 1, 0.0)]
    window.settle(15, 3)
    window.settle(12, 1)
    await write(store, 1, window, *parked)
    found = (await claim(store))[-1]
    assert found.watermark == 12
    assert found.settled == [(13, 15), (16, 20)]
    assert found.partial == {12: {1}, 15: {2, 3}}
    assert (found.fingerprint_offset, found.fingerprint) == (10, b"mark10")
    again = Window(found.claim, found.watermark, found.settled, found.partial)
    assert [offset for offset in range(8, 23) if again.wanted(offset)] == [12, 15, 20, 21, 22]
    assert again.settled_endpoints(15) == {2, 3}


async def test_rows_below_the_watermark_are_no_half_settled_records(store: Store) -> None:
    held = await store.claim()
    window = Window(held, 0)
    window.skip_to(100)
    await write(store, 1, window, Delivery(event(held, 5), 1, 0.0))
    assert (await claim(store))[-1].partial == {}


async def test_a_fingerprint_stays_until_there_is_a_later_one(store: Store) -> None:
    held = await store.claim()
    window = Window(held, 0)
    window.add(0, {}, 0.0, 0)
    window.mark(0, b"mark")
    await write(store, 1, window)
    window.skip_to(50)
    await write(store, 2, window)
    found = (await claim(store))[-1]
    assert (found.watermark, found.fingerprint_offset, found.fingerprint) == (50, 0, b"mark")


# --- incarnations of a topic ---------------------------------------------------------------


async def test_a_topic_created_again_has_other_keys_and_ids_and_its_old_claim_is_kept(
    store: Store,
) -> None:
    [old] = await claim(store)
    await claims.store_start(store.database, old.claim, 100)
    await claims.begin_incarnation(store.database, old.claim.topic_id, 8)
    older, new = await claim(store)
    assert older.claim.topic_id == old.claim.topic_id
    assert older.claim.epoch == old.claim.epoch + 1
    assert older.watermark == 100
    assert new.claim.topic_id != old.claim.topic_id
    assert new.claim.id_key != old.claim.id_key
    assert new.watermark is None


async def test_processes_that_find_it_out_at_once_begin_one_incarnation(store: Store) -> None:
    [old] = await claim(store)
    topic_id = old.claim.topic_id
    await asyncio.gather(*(claims.begin_incarnation(store.database, topic_id, 8) for _ in range(8)))
    assert await store.value("SELECT count(*) FROM topics") == 2


# --- a holder that does not let go ---------------------------------------------------------

IN_A_FLUSH = "UPDATE progress SET changed_at = now()"


@pytest.fixture
async def impatient(dsn: str, store: Store) -> Store:
    """Another process, which waits half a second for a lock."""
    async with store_on(dsn, lock_timeout_seconds=0.5) as one:
        yield one


async def test_a_claimant_ends_a_frozen_holder_whose_flush_is_then_fenced(
    store: Store, impatient: Store
) -> None:
    held = await store.claim()
    async with store.connection() as frozen:
        transaction = frozen.transaction()
        await transaction.start()
        await frozen.execute(IN_A_FLUSH)
        silent = (
            "SELECT now() - state_change > interval '2 seconds' FROM pg_stat_activity "
            "WHERE pid = $1"
        )
        await until(store, silent, frozen.get_server_pid())
        found = (await claim(impatient))[-1]
        assert found.claim.epoch == held.epoch + 1
        assert frozen.is_closed()
    window = Window(held, 0)
    window.skip_to(9)
    contents = gathering(1, [attempt_row(store, held, 0)], windows=[window])
    async with store.connection() as thawed:
        await flush.write(thawed, store.incarnation, contents, 0.0, store.catalogue.ids)
    assert contents.fenced == {held}
    assert await store.value("SELECT watermark FROM progress") == 0


async def test_a_holder_that_works_is_not_ended(store: Store, impatient: Store) -> None:
    await store.claim()
    async with store.connection() as busy:
        transaction = busy.transaction()
        await transaction.start()
        await busy.execute(IN_A_FLUSH)
        claiming = asyncio.create_task(claim(impatient))
        while not claiming.done():
            assert await busy.fetchval("SELECT 1") == 1
            await asyncio.sleep(0.02)  # works on, and leaves the loop to who claims
        with pytest.raises(StoreUnavailable):
            claiming.result()
        await transaction.commit()
    assert await epoch(store) == 1
    await claim(impatient)
    assert await epoch(store) == 2


async def test_a_holder_frozen_in_the_middle_of_a_copy_is_ended_too(
    store: Store, impatient: Store
) -> None:
    """Its last statement runs still, as Postgres sees it, and waits for more of its rows."""
    await store.claim()

    async def rows() -> AsyncIterator[bytes]:
        yield b""
        await asyncio.Event().wait()

    async with store.connection() as frozen:
        transaction = frozen.transaction()
        await transaction.start()
        await frozen.execute(IN_A_FLUSH)
        copying = asyncio.create_task(
            frozen.copy_to_table("quarantine", source=rows(), format="binary")
        )
        silent = (
            "SELECT now() - state_change > interval '2 seconds' AND query ~ '^COPY' "
            "FROM pg_stat_activity WHERE pid = $1"
        )
        await until(store, silent, frozen.get_server_pid())
        await claim(impatient)
        copying.cancel()
        await asyncio.wait({copying})
    assert await epoch(store) == 2


async def test_a_session_that_is_not_dispatcherds_is_never_ended(
    store: Store, impatient: Store
) -> None:
    await store.claim()
    async with store.connection() as operator:
        await operator.execute("SET application_name = 'psql'")
        transaction = operator.transaction()
        await transaction.start()
        await operator.execute(IN_A_FLUSH)
        silent = (
            "SELECT now() - state_change > interval '2 seconds' FROM pg_stat_activity "
            "WHERE pid = $1"
        )
        await until(store, silent, operator.get_server_pid())
        with pytest.raises(StoreUnavailable, match="lock"):
            await claim(impatient)
        await operator.execute("SELECT 1")
        await transaction.commit()


async def test_a_claim_waits_for_a_flush_and_then_sees_what_it_wrote(store: Store) -> None:
    held = await store.claim()
    async with store.connection() as flushing:
        transaction = flushing.transaction()
        await transaction.start()
        await flushing.execute("UPDATE progress SET watermark = 77")
        claiming = asyncio.create_task(claim(store))
        await until_blocked(store)
        await transaction.commit()
        found = (await claiming)[-1]
    assert (found.watermark, found.claim.epoch) == (77, held.epoch + 1)


async def test_a_claim_of_one_role_does_not_fall_over_a_frozen_session_of_another(
    store: Store, dsn: str
) -> None:
    """Which it may not end: it says that the row is locked, and is tried again."""
    await store.execute(
        "DO $$ BEGIN CREATE ROLE other LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    )
    await store.execute("GRANT USAGE ON SCHEMA dispatcherd TO other")
    await store.execute("GRANT ALL ON ALL TABLES IN SCHEMA dispatcherd TO other")
    await store.claim()
    incarnation = store.incarnation
    async with store.connection() as frozen:
        transaction = frozen.transaction()
        await transaction.start()
        await frozen.execute(IN_A_FLUSH)
        silent = (
            "SELECT now() - state_change > interval '2 seconds' FROM pg_stat_activity "
            "WHERE pid = $1"
        )
        await until(store, silent, frozen.get_server_pid())
        config = PostgresConfig(dsn=dsn.replace("postgres@", "other@"), lock_timeout_seconds=0.5)
        stranger = Database(config)
        try:
            with pytest.raises(StoreUnavailable):
                await claims.claim(stranger, "orders", 0, 8, incarnation)
        finally:
            await stranger.close()
        assert not frozen.is_closed()
        await transaction.commit()
