"""Answered at once, worked on later: what was accepted is done, waits, or is dead.

Both receivers."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from dispatcherd.receiver import (
    AsyncReceiver,
    Backlog,
    Event,
    MemoryStore,
    Receiver,
    Retry,
    RetryLater,
    ShedPolicy,
)
from dispatcherd.receiver.testing import RequestFactory
from tests.unit.receiver.flow import Either, Gate, ask, close, said, start, until

Make = Callable[..., Either]
SOON = Retry(max_attempts=3, first_seconds=0.01, max_seconds=0.02)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "webhooks.db"


@pytest.fixture(params=[Receiver, AsyncReceiver])
async def make(
    request: pytest.FixtureRequest, webhook_secret: str, path: Path
) -> AsyncIterator[Make]:
    """Makes receivers of either kind on one file, and ends them."""
    made: list[Either] = []

    def one(**options: Any) -> Either:
        limits = options.pop("limits", {})
        options = {"backlog": Backlog(path, **limits), "retry": SOON, **options}
        made.append(request.param([webhook_secret], **options))
        return made[-1]

    yield one
    for receiver in made:
        await close(receiver, 0.1)


async def test_an_event_is_accepted_at_once_and_handled_soon(
    make: Make, signed_request: RequestFactory
) -> None:
    receiver = make()
    gate = Gate()
    receiver.on("*")(gate.blocking)
    request = signed_request()
    assert said(await ask(receiver, request)) == (202, {"status": "queued"})
    await until(lambda: gate.inside)
    assert said(await ask(receiver, request)) == (200, {"status": "duplicate"})
    gate.open()
    await until(lambda: gate.ended)
    await until(lambda: receiver.backlog.depth().items == 0)
    assert said(await ask(receiver, request)) == (200, {"status": "duplicate"})
    assert gate.most == 1


async def test_a_coroutine_works_the_backlog_off(
    signed_request: RequestFactory, path: Path
) -> None:
    seen: list[str] = []
    async with AsyncReceiver([signed_request.secret], backlog=Backlog(path)) as receiver:

        @receiver.on("*")
        async def handler(event: Event) -> None:
            await asyncio.sleep(0)
            seen.append(event.id)

        sent = [signed_request() for _ in range(50)]
        answers = await asyncio.gather(*(ask(receiver, request) for request in sent))
        assert {answer.status for answer in answers} == {202}
        await until(lambda: len(seen) == 50)
    assert sorted(seen) == sorted(request.id for request in sent)


async def test_a_batch_is_taken_whole(make: Make, signed_request: RequestFactory) -> None:
    receiver = make(limits={"max_items": 3}, shed=ShedPolicy(1.0, 1.0))
    gate = Gate()
    receiver.on("a")(gate.blocking)
    members = [{"type": "a", "id": f"e{n}"} for n in range(3)] + [{"type": "other", "id": "x"}]
    assert said(await ask(receiver, signed_request(members[1:]))) == (202, {"status": "accepted"})
    status, told = said(await ask(receiver, signed_request([*members[:2], {"type": "a"}])))
    gate.open()
    # Two of three were new and only one would fit: none was taken, and all come again.
    assert (status, told) == (503, {"error": "later"})


async def test_a_handler_that_fails_runs_again_and_in_the_end_the_job_is_dead(
    make: Make, signed_request: RequestFactory
) -> None:
    receiver = make()
    calls: list[str] = []
    broken = True

    @receiver.on("*")
    def handler(event: Event) -> None:
        calls.append(event.id)
        if broken:
            raise ValueError("no stock")

    request = signed_request()
    await ask(receiver, request)
    backlog = receiver.backlog
    await until(lambda: backlog.depth().dead == 1)
    assert (len(calls), backlog.dead()[0].error) == (3, "ValueError('no stock')")
    broken = False
    assert backlog.revive(request.id)
    await until(lambda: backlog.depth().items == 0)
    assert len(calls) == 4


async def test_a_handler_that_asks_for_later_is_run_later(
    make: Make, signed_request: RequestFactory
) -> None:
    receiver = make()
    calls: list[str] = []

    @receiver.on("*")
    def handler(event: Event) -> None:
        calls.append(event.id)
        if len(calls) == 1:
            raise RetryLater(0.05)

    await ask(receiver, signed_request())
    await until(lambda: receiver.backlog.depth().items == 0)
    assert len(calls) == 2


async def test_a_function_that_overruns_holds_up_no_other_job_and_is_not_run_beside_itself(
    make: Make, signed_request: RequestFactory
) -> None:
    receiver = make(workers=1, timeout_seconds=0.05)
    gate = Gate()
    seen: list[Event] = []
    receiver.on("slow")(gate.blocking)
    receiver.on("quick")(seen.append)
    await ask(receiver, signed_request({"type": "slow"}))
    await until(lambda: gate.inside)
    await ask(receiver, signed_request({"type": "quick"}))
    await until(lambda: seen)
    gate.open()
    await until(lambda: receiver.backlog.depth().items == 0)
    assert (gate.most, gate.ended) == (1, ["done"])


async def test_no_more_handlers_run_at_once_than_there_are_workers(
    make: Make, signed_request: RequestFactory
) -> None:
    receiver = make(workers=3)
    gate = Gate()
    receiver.on("*")(gate.blocking)
    for _ in range(10):
        await ask(receiver, signed_request())
    await until(lambda: gate.inside == 3)
    gate.open()
    await until(lambda: len(gate.ended) == 10)
    assert gate.most == 3


async def test_draining_lets_running_jobs_end_and_leaves_the_rest_in_the_file(
    make: Make, signed_request: RequestFactory, path: Path
) -> None:
    receiver = make(workers=1)
    gate = Gate()
    receiver.on("*")(gate.blocking)
    requests = [signed_request() for _ in range(3)]
    for request in requests:
        await ask(receiver, request)
    await until(lambda: gate.inside)
    closing = asyncio.create_task(close(receiver))
    await until(lambda: receiver._closing)
    assert said(await ask(receiver, signed_request())) == (503, {"error": "shed"})
    gate.open()
    assert await closing == 0
    assert gate.ended == ["done"]
    assert Backlog(path).depth().items == 2
    # The next start works them off, without a request.
    seen: list[str] = []
    again = make()
    again.on("*")(lambda event: seen.append(event.id))
    await start(again)
    await until(lambda: len(seen) == 2)
    assert set(seen) < {request.id for request in requests}


async def test_draining_does_not_wait_for_ever(make: Make, signed_request: RequestFactory) -> None:
    receiver = make()
    gate = Gate()
    receiver.on("*")(gate.blocking)
    await ask(receiver, signed_request())
    await until(lambda: gate.inside)
    assert await close(receiver, 0.05) == 1
    gate.open()
    await until(lambda: gate.ended)
    # It ended after all, and what it did is remembered.
    await until(lambda: receiver.backlog.depth().items == 0)


async def test_a_drained_coroutine_is_cancelled_and_its_job_kept(
    signed_request: RequestFactory, path: Path
) -> None:
    receiver = AsyncReceiver([signed_request.secret], backlog=Backlog(path), retry=SOON)
    gate = Gate()
    receiver.on("*")(gate.cooperative)
    await ask(receiver, signed_request())
    await until(lambda: gate.inside)
    assert await receiver.close(0.05) == 1
    assert gate.ended == ["cancelled"]
    assert Backlog(path).depth().items == 1


async def test_behind_its_mark_it_sheds_with_a_time_and_recovers(
    make: Make, signed_request: RequestFactory
) -> None:
    receiver = make(workers=1, limits={"max_items": 10}, shed=ShedPolicy(0.5, 0.2))
    gate = Gate()
    receiver.on("*")(gate.blocking)
    told = (202, {"status": "queued"})
    while told != (503, {"error": "shed"}):
        answer = await ask(receiver, signed_request())
        told = said(answer)
        # The depth is looked at a few times a second; until then the backlog itself is the bound.
        assert told[0] in (202, 503) and receiver.backlog.depth().items <= 10
    assert 1 <= int(dict(answer.headers)["retry-after"]) <= 45
    assert receiver.metrics.value("refused_total", cause="shed") == 1
    gate.open()
    await until(lambda: receiver.backlog.depth().items == 0)
    while told[0] != 202:
        told = said(await ask(receiver, signed_request()))


async def test_a_full_backlog_takes_nothing_and_says_later(
    make: Make, signed_request: RequestFactory
) -> None:
    receiver = make(limits={"max_items": 1}, shed=ShedPolicy(1.0, 1.0))
    gate = Gate()
    receiver.on("*")(gate.blocking)
    statuses = [(await ask(receiver, signed_request())).status for _ in range(3)]
    gate.open()
    assert statuses == [202, 503, 503]


async def test_a_job_that_ends_the_process_each_time_is_given_up(
    make: Make, signed_request: RequestFactory, path: Path
) -> None:
    backlog = Backlog(path)
    backlog.put([Event("evt_1", "a", "1", "", b"{}")])
    for _ in range(3):  # three processes took it and died
        assert backlog.take(0.0) is not None
    receiver = make()
    seen: list[Event] = []
    receiver.on("*")(seen.append)
    await ask(receiver, signed_request({"type": "b"}))
    await until(lambda: seen and backlog.depth().dead == 1)
    assert [event.type for event in seen] == ["b"]


@pytest.mark.parametrize(("policy", "dead"), [("accept", 0), ("refuse", 1)])
async def test_a_type_that_is_handled_no_longer_follows_the_policy(
    make: Make, signed_request: RequestFactory, path: Path, policy: str, dead: int
) -> None:
    Backlog(path).put([Event("evt_1", "gone", "1", "", b"{}")])
    receiver = make(unknown=policy)
    receiver.on("here")(lambda event: None)
    await ask(receiver, signed_request({"type": "here"}))
    await until(lambda: receiver.backlog.depth().items == dead)
    assert receiver.backlog.depth().dead == dead


async def test_with_a_shared_store_an_event_is_queued_on_one_host_only(
    make: Make, signed_request: RequestFactory, tmp_path: Path
) -> None:
    store = MemoryStore()
    one = make(store=store)
    other = make(store=store, backlog=Backlog(tmp_path / "other.db"))
    seen: list[str] = []
    for receiver in (one, other):
        receiver.on("*")(lambda event: seen.append(event.id))
    request = signed_request()
    assert (await ask(one, request)).status == 202
    assert said(await ask(other, request)) == (200, {"status": "duplicate"})
    await until(lambda: seen)


async def test_what_the_disk_does_not_take_is_not_accepted(
    make: Make, signed_request: RequestFactory, path: Path
) -> None:
    store = MemoryStore()
    receiver = make(store=store)
    seen: list[Event] = []
    receiver.on("*")(seen.append)
    await ask(receiver, signed_request())
    await until(lambda: seen)
    with sqlite3.connect(path) as db:
        # SQLite itself refuses every insert from now on.
        db.execute("CREATE TRIGGER full BEFORE INSERT ON jobs BEGIN"
                   " SELECT RAISE(ABORT, 'disk full'); END")  # fmt: skip
    request = signed_request()
    assert said(await ask(receiver, request)) == (503, {"error": "unavailable"})
    with sqlite3.connect(path) as db:
        db.execute("DROP TRIGGER full")
    # The claim in the store was released: the sender's next attempt is taken.
    assert (await ask(receiver, request)).status == 202
    await until(lambda: len(seen) == 2)


async def test_the_backlog_is_in_the_metrics(make: Make, signed_request: RequestFactory) -> None:
    receiver = make(name="hooks")
    gate = Gate()
    receiver.on("*")(gate.blocking)
    await ask(receiver, signed_request())
    text = receiver.metrics.text()
    gate.open()
    assert 'webhook_receiver_backlog_events{receiver="hooks"} 1' in text
    assert 'webhook_receiver_backlog_dead{receiver="hooks"} 0' in text


async def test_closing_twice_and_starting_twice_do_no_harm(
    make: Make, signed_request: RequestFactory
) -> None:
    receiver = make(workers=2)
    gate = Gate()
    receiver.on("*")(gate.blocking)
    for _ in range(2):
        await start(receiver)
    for _ in range(5):
        await ask(receiver, signed_request())
    await until(lambda: gate.inside == 2)
    gate.open()
    assert [await close(receiver), await close(receiver)] == [0, 0]
    ended = len(gate.ended)
    await start(receiver)
    assert (await ask(receiver, signed_request())).status == 503
    assert (gate.most, len(gate.ended)) == (2, ended)
