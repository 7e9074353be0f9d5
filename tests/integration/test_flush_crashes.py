"""A crash at any moment of a flush leaves all of it or nothing, and repeated it is there once.

A flush that holds one of everything is cut at its n-th wait for Postgres, for every n, in three
ways: the task is cancelled while it waits, the backend is ended before it is asked, and the
backend is ended after it has done what it was asked, so that only the answer is lost. The
connection is a real one; what stands before it counts, and cuts.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from dispatcherd.delivery import Claim, Delivery, Reason
from dispatcherd.offsets import Window
from dispatcherd.record import flush
from dispatcherd.record.connection import Connection, is_transient
from dispatcherd.record.gathering import Change, Gathering, QuarantineRow
from tests.rig.store import Store, attempt_row, event, gathering, operation, until

WAITS = ("execute", "executemany", "fetch", "fetchrow", "fetchval", "copy_records_to_table")


class Counting:
    """A real connection whose n-th wait is cut; the others are only counted."""

    def __init__(self, connection: Connection, cut_at: int, way: Callable[..., Any]) -> None:
        self.connection = connection
        self.waits = 0
        self._cut_at = cut_at
        self._way = way

    async def wait(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        self.waits += 1
        if self.waits == self._cut_at:
            return await self._way(self.connection, ask)
        return await ask()

    def transaction(self) -> _Transaction:
        return _Transaction(self, self.connection.transaction())

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.connection, name)
        if name not in WAITS:
            return method

        async def counted(*arguments: Any, **named: Any) -> Any:
            return await self.wait(lambda: method(*arguments, **named))

        return counted


class _Transaction:
    """BEGIN, COMMIT, ROLLBACK and savepoints are waits like any other."""

    def __init__(self, counting: Counting, transaction: Any) -> None:
        self._counting = counting
        self._transaction = transaction

    async def __aenter__(self) -> None:
        await self._counting.wait(self._transaction.__aenter__)

    async def __aexit__(self, *error: Any) -> Any:
        return await self._counting.wait(lambda: self._transaction.__aexit__(*error))


async def cancelled(_connection: Connection, ask: Callable[[], Awaitable[Any]]) -> Any:
    """The task is cancelled when it next waits: the statement has gone out by then."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    return await ask()


async def ended_before(connection: Connection, ask: Callable[[], Awaitable[Any]]) -> Any:
    """Postgres has lost us before we ask."""
    await end_backend(connection)
    return await ask()


async def answer_lost(connection: Connection, ask: Callable[[], Awaitable[Any]]) -> Any:
    """Postgres has done it, and we never hear of it."""
    with contextlib.suppress(asyncpg.PostgresError):  # also when the answer is a refusal
        await ask()
    await end_backend(connection)
    raise ConnectionResetError("the answer was lost")


WAYS = [cancelled, ended_before, answer_lost]
_enders: dict[str, Any] = {}


async def end_backend(connection: Connection) -> None:
    await _enders["store"].fetch("SELECT pg_terminate_backend($1)", connection.get_server_pid())


# --- one of everything ---------------------------------------------------------------------


class Everything:
    """A partition's flush in which each statement has something to do, and its window."""

    def __init__(self, store: Store, claim: Claim) -> None:
        self.store = store
        self.claim = claim
        self.owed = self._delivery(1)
        """It has a row, and is delivered in the flush."""
        self.asked = self._delivery(2)
        """It has a row with an operator's request, which the flush has taken up."""

    def _delivery(self, offset: int) -> Delivery:
        return Delivery(event(self.claim, offset), 1, 0.0)

    async def prepare(self) -> None:
        """What an earlier flush has left."""
        contents = gathering(
            1, operations=[operation(d, Change.OWED) for d in (self.owed, self.asked)]
        )
        async with self.store.connection() as connection:
            await self.write(connection, contents)
        await self.store.execute(
            "UPDATE deliveries SET request = 1, request_no = 77 "
            'WHERE partition = $1 AND "offset" = 2',
            self.claim.partition,
        )

    def contents(self) -> Gathering:
        """Flush 2."""
        window = Window(self.claim, 0)
        window.skip_to(5)
        window.add(5, {1: None, 2: None}, 0.0, 1)
        window.settle(5, 1)
        taken = operation(self.asked, Change.DEAD)
        taken.request_no = 77
        operations = [
            operation(self.owed, Change.DELETE),
            taken,
            operation(self._delivery(6), Change.OWED),
        ]
        rows = [attempt_row(self.store, self.claim, offset) for offset in range(4)]
        rows[2] = attempt_row(self.store, self.claim, 2, webhook_id="refused\x00")
        contents = gathering(2, rows, operations, [window])
        contents.quarantine.append(
            QuarantineRow(self.claim, 7, Reason.NOT_JSON, "x\x00", None, b"x", 1, ())
        )
        return contents

    async def write(self, connection: Any, contents: Gathering) -> None:
        ids = self.store.catalogue.ids
        await flush.write(connection, self.store.incarnation, contents, time.monotonic(), ids)

    async def state(self) -> list[list[tuple[Any, ...]]]:
        """Everything that the flush may have touched of this partition."""
        queries = (
            'SELECT "offset", webhook_id FROM attempts WHERE partition = $1 ORDER BY 1, 2',
            'SELECT "offset", state, request FROM deliveries WHERE partition = $1 ORDER BY 1',
            'SELECT "offset" FROM bodies WHERE partition = $1 ORDER BY 1',
            'SELECT "offset", detail FROM quarantine WHERE partition = $1',
            "SELECT watermark, settled::text, partial::text FROM progress WHERE partition = $1",
        )
        found = [await self.store.fetch(query, self.claim.partition) for query in queries]
        number = "SELECT flush FROM instances WHERE incarnation = $1"
        return [*found, await self.store.fetch(number, self.store.incarnation)]


NOTHING = [
    [],
    [(1, 1, None), (2, 1, 1)],
    [(1,), (2,)],
    [],
    [(0, "{}", "{}")],
    [(1,)],
]
ALL = [
    [(0, "evt_0"), (1, "evt_1"), (2, ""), (3, "evt_3")],
    [(2, 2, None), (6, 1, None)],
    [(2,), (6,)],
    [(7, "detail refused by Postgres")],
    [(5, "{}", '{"5": [1]}')],
    [(2,)],
]


async def crash(one: Everything, contents: Gathering, cut_at: int, way: Any) -> int:
    """Write the flush and cut it; the waits there were. 0 when it was not cut, having fewer."""
    connection = await one.store.database.dedicated()
    await flush.prepare(connection)
    counting = Counting(connection, cut_at, way)
    writing = asyncio.create_task(one.write(counting, contents))
    try:
        await writing
    except BaseException as error:
        # What the recorder takes for a reason to repeat the flush, and not for a fault of ours.
        assert isinstance(error, asyncio.CancelledError) or is_transient(error), repr(error)
        return counting.waits
    finally:
        pid = connection.get_server_pid()
        connection.terminate()
        gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)"
        await until(one.store, gone, pid)
    assert counting.waits < cut_at, "it was cut, and went on as if nothing had been"
    return 0


async def repeat(one: Everything, contents: Gathering) -> None:
    """As the recorder does after any doubt."""
    async with one.store.connection() as connection:
        number = contents.number
        if not await flush.already_committed(connection, one.store.incarnation, number):
            await one.write(connection, contents)


@pytest.mark.parametrize("way", WAYS)
async def test_a_flush_cut_at_any_wait_is_all_there_or_not_at_all_and_repeated_is_there_once(
    store: Store, way: Any
) -> None:
    _enders["store"] = store
    seen = {"nothing": 0, "all": 0}
    for cut_at in range(1, 200):
        await store.execute("UPDATE instances SET flush = 0")
        one = Everything(store, await store.claim(partition=cut_at))
        await one.prepare()
        contents = one.contents()
        waits = await crash(one, contents, cut_at, way)
        state = await one.state()
        assert state in (NOTHING, ALL)
        seen["nothing" if state == NOTHING else "all"] += 1
        await repeat(one, contents)
        assert await one.state() == ALL
        assert contents.fenced == set()
        if not waits:
            break
    else:
        raise AssertionError("a flush has no end")
    assert seen["nothing"] > 25
    # The last round was not cut; the one before it was cut in COMMIT, which may have gone out.
    expected = {cancelled: (1, 2), ended_before: (1,), answer_lost: (2,)}
    assert seen["all"] in expected[way], seen
