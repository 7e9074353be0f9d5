"""Operators' requests on rows: they and the outcomes of attempts never overwrite each other."""

from __future__ import annotations

import pytest

from dispatcherd.delivery import Claim, Reason, Request
from dispatcherd.record import look, owed
from dispatcherd.record.gathering import Change
from dispatcherd.record.owed import RequestRow
from tests.rig.store import OWED, Store, delivery, gathering, operation, write
from tests.rig.store import store as store_on


async def ask(store: Store, request: Request) -> None:
    """As the command line asks, of everything."""
    async with store.database.session() as connection:
        await look.ask(connection, look.Wanted(), request)


REQUESTS = "SELECT request, request_no IS NULL FROM deliveries"


async def requested(store: Store, claim: Claim) -> RequestRow:
    [row] = await owed.requests(store.database, [claim], 10)
    return row


@pytest.fixture
async def endpoint(store: Store) -> int:
    """The surrogate key of a registered endpoint: what operators see joins it."""
    return int(
        await store.value("INSERT INTO endpoints (name, spec) VALUES ('one', '{}') RETURNING id")
    )


async def test_a_request_survives_the_outcome_of_an_attempt_that_did_not_know_it(
    store: Store, endpoint: int
) -> None:
    claim = await store.claim()
    one = delivery(claim, 0, endpoint)
    await write(store, gathering(1, operations=[operation(one, Change.OWED, status=500)]))
    await ask(store, Request.RETRY)
    assert [row[2:5] for row in await store.fetch(OWED)] == [(1, Reason.UNAVAILABLE, 500)]
    await write(store, gathering(2, operations=[operation(one, Change.DEAD, status=503)]))
    assert [row[2:5] for row in await store.fetch(OWED)] == [(2, Reason.UNAVAILABLE, 503)]
    assert (await requested(store, claim)).request is Request.RETRY


async def test_an_outcome_that_took_a_request_up_clears_that_one_and_no_later_one(
    store: Store, endpoint: int
) -> None:
    claim = await store.claim()
    one = delivery(claim, 0, endpoint)
    await write(store, gathering(1, operations=[operation(one, Change.OWED)]))
    await ask(store, Request.RETRY)
    first = await requested(store, claim)
    await ask(store, Request.DISCARD)
    second = await requested(store, claim)
    assert second.number > first.number
    for number, row in ((2, first), (3, second)):
        taken = operation(one, Change.OWED)
        taken.request_no = row.number
        await write(store, gathering(number, operations=[taken]))
        left = await owed.requests(store.database, [claim], 10)
        assert left == ([second] if row is first else [])


async def test_a_request_taken_up_earlier_in_the_same_flush_is_not_forgotten(
    store: Store, endpoint: int
) -> None:
    claim = await store.claim()
    one = delivery(claim, 0, endpoint)
    await write(store, gathering(1, operations=[operation(one, Change.OWED)]))
    await ask(store, Request.RETRY)
    taken = operation(one, Change.OWED)
    taken.request_no = (await requested(store, claim)).number
    await write(store, gathering(2, operations=[taken, operation(one, Change.OWED)]))
    assert await owed.requests(store.database, [claim], 10) == []


async def test_granting_a_request_keeps_what_the_attempts_came_to(
    store: Store, endpoint: int
) -> None:
    claim = await store.claim()
    one = delivery(claim, 0, endpoint, attempts=9, cycle_start=2)
    await write(store, gathering(1, operations=[operation(one, Change.DEAD, status=418)]))
    await ask(store, Request.RETRY)
    await owed.grant(store.database, [claim], [await requested(store, claim)])
    assert await store.fetch(OWED) == [(0, endpoint, 1, Reason.OPERATOR_RETRY, 418, 9, 9)]
    assert await store.fetch(REQUESTS) == [(None, True)]


async def test_a_request_that_was_replaced_meanwhile_is_not_granted(
    store: Store, endpoint: int
) -> None:
    claim = await store.claim()
    one = delivery(claim, 0, endpoint)
    await write(store, gathering(1, operations=[operation(one, Change.DEAD)]))
    await ask(store, Request.DISCARD)
    discard = await requested(store, claim)
    await ask(store, Request.RETRY)
    await owed.grant(store.database, [claim], [discard])
    assert len(await store.fetch(OWED)) == 1
    assert (await requested(store, claim)).request is Request.RETRY


async def test_a_discarded_dead_letter_goes_with_its_body(store: Store, endpoint: int) -> None:
    claim = await store.claim()
    await write(
        store, gathering(1, operations=[operation(delivery(claim, 0, endpoint), Change.DEAD)])
    )
    await ask(store, Request.DISCARD)
    await owed.grant(store.database, [claim], [await requested(store, claim)])
    assert await store.fetch(OWED) == []
    assert await store.value("SELECT count(*) FROM bodies") == 0


async def test_a_request_is_granted_only_by_the_owner(
    store: Store, dsn: str, endpoint: int
) -> None:
    claim = await store.claim()
    await write(
        store, gathering(1, operations=[operation(delivery(claim, 0, endpoint), Change.DEAD)])
    )
    await ask(store, Request.DISCARD)
    row = await requested(store, claim)
    async with store_on(dsn) as other:
        await other.claim()
    await owed.grant(store.database, [claim], [row])
    assert len(await store.fetch(OWED)) == 1
