"""Batches, unknown events, stores that fail: the sender is told what is so. Both receivers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from dispatcherd.receiver import AsyncReceiver, Event, MemoryStore, Receiver
from dispatcherd.receiver.store import Claim
from dispatcherd.receiver.testing import RequestFactory
from tests.unit.receiver.flow import Either, Gate, ask, close, recording, said, until

Make = Callable[..., Either]


@pytest.fixture(params=[Receiver, AsyncReceiver])
def make(request: pytest.FixtureRequest, webhook_secret: str) -> Make:
    """Makes a receiver of either kind."""
    return lambda **options: request.param([webhook_secret], **options)


# --- batches ---------------------------------------------------------------------------------


async def test_of_a_batch_only_what_failed_is_asked_for_again(
    make: Make, signed_request: RequestFactory
) -> None:
    receiver = make()
    seen: list[str] = []
    broken = {"evt_2", "evt_4"}

    @receiver.on("*")
    def handler(event: Event) -> None:
        if event.id in broken:
            raise ValueError(event.id)
        seen.append(event.id)

    batch = signed_request([{"type": "a", "id": f"evt_{n}"} for n in range(1, 5)])
    failures = {"batchItemFailures": [{"itemIdentifier": "evt_2"}, {"itemIdentifier": "evt_4"}]}
    assert said(await ask(receiver, batch)) == (200, failures)
    broken.clear()
    rest = signed_request([{"type": "a", "id": "evt_2"}, {"type": "a", "id": "evt_4"}])
    assert said(await ask(receiver, rest)) == (200, {"status": "accepted"})
    assert sorted(seen) == ["evt_1", "evt_2", "evt_3", "evt_4"]


async def test_a_sender_without_partial_failures_repeats_the_batch_and_nothing_is_done_twice(
    make: Make, signed_request: RequestFactory
) -> None:
    receiver = make(partial_failures=False)
    seen: list[str] = []
    broken = {"evt_2"}

    @receiver.on("*")
    def handler(event: Event) -> None:
        if event.id in broken:
            raise ValueError(event.id)
        seen.append(event.id)

    batch = signed_request([{"type": "a", "id": f"evt_{n}"} for n in range(1, 4)])
    assert said(await ask(receiver, batch)) == (500, {"error": "failed"})
    broken.clear()
    assert (await ask(receiver, batch)).status == 200
    assert sorted(seen) == ["evt_1", "evt_2", "evt_3"]


async def test_the_time_limit_is_for_the_whole_batch(
    make: Make, signed_request: RequestFactory
) -> None:
    receiver = make(timeout_seconds=0.5)
    gate = Gate()
    seen = recording(receiver, "quick")
    receiver.on("slow")(gate.blocking)
    members = [{"type": "quick", "id": "q1"}, {"type": "slow", "id": "s"},
               {"type": "quick", "id": "q2"}]  # fmt: skip
    status, told = said(await ask(receiver, signed_request(members)))
    gate.open()
    assert (status, told) == (
        200,
        {"batchItemFailures": [{"itemIdentifier": "s"}, {"itemIdentifier": "q2"}]},
    )
    assert [event.id for event in seen] == ["q1"]


# --- policies --------------------------------------------------------------------------------


async def test_an_unknown_type_is_accepted_or_refused_as_the_policy_says(
    make: Make, signed_request: RequestFactory
) -> None:
    for policy, expected in [
        ("accept", (200, {"status": "unhandled"})),
        ("refuse", (422, {"error": "unknown_event"})),
    ]:
        receiver = make(unknown=policy)
        recording(receiver, "order.created")
        assert said(await ask(receiver, signed_request({"type": "x.y"}))) == expected
        assert receiver.metrics.value("unusual_total", kind="unknown_event") == 1


async def test_each_version_goes_to_its_handler(make: Make, signed_request: RequestFactory) -> None:
    receiver = make()
    old: list[Event] = []
    new: list[Event] = []
    receiver.on("order.created", version="1")(old.append)
    receiver.on("order.created", version=["2", "3"])(new.append)
    for version in "123":
        await ask(receiver, signed_request({"type": "order.created"}, version=version))
    unknown = signed_request({"type": "order.created"}, version="4")
    assert said(await ask(receiver, unknown)) == (200, {"status": "unhandled"})
    assert (len(old), len(new)) == (1, 2)


async def test_a_receiver_that_nobody_registered_with_accepts_nothing(
    make: Make, signed_request: RequestFactory
) -> None:
    with pytest.raises(RuntimeError, match="no handler is registered"):
        await ask(make(), signed_request())


async def test_a_closed_receiver_tells_the_sender_to_come_again(
    make: Make, signed_request: RequestFactory
) -> None:
    receiver = make()
    seen = recording(receiver)
    await close(receiver)
    assert (await ask(receiver, signed_request())).status == 503
    assert not seen


async def test_two_receivers_share_a_store_without_sharing_ids(
    make: Make, signed_request: RequestFactory
) -> None:
    store = MemoryStore()
    one, other = make(store=store, name="one"), make(store=store, name="other")
    seen = [recording(one), recording(other)]
    request = signed_request()
    for receiver in (one, other, one):
        assert (await ask(receiver, request)).status == 200
    assert [len(events) for events in seen] == [1, 1]


class BrokenStore:
    """A store whose server is down for one of the three steps."""

    def __init__(self, step: str) -> None:
        self._step = step
        self._store = MemoryStore()

    def _maybe(self, step: str) -> None:
        if step == self._step:
            raise ConnectionError("the store is down")

    def claim(self, key: str, lease_seconds: float) -> Claim:
        self._maybe("claim")
        return self._store.claim(key, lease_seconds)

    def complete(self, claim: Claim) -> bool:
        self._maybe("complete")
        return self._store.complete(claim)

    def release(self, claim: Claim) -> bool:
        self._maybe("release")
        return self._store.release(claim)


@pytest.mark.parametrize(("step", "runs"), [("claim", 0), ("complete", 1), ("release", 1)])
async def test_while_the_store_is_down_nothing_is_called_done(
    make: Make, signed_request: RequestFactory, step: str, runs: int
) -> None:
    receiver = make(store=BrokenStore(step))
    calls: list[str] = []

    @receiver.on("*")
    def handler(event: Event) -> None:
        calls.append(event.id)
        if step == "release":
            raise ValueError

    answer = await ask(receiver, signed_request())
    assert said(answer) == (503, {"error": "unavailable"})
    assert len(calls) == runs


async def test_a_full_store_of_work_in_progress_is_told_as_such(
    make: Make, signed_request: RequestFactory
) -> None:
    receiver = make(store=MemoryStore(max_items=1))
    gate = Gate()
    receiver.on("*")(gate.blocking)
    held = asyncio.create_task(ask(receiver, signed_request()))
    await until(lambda: gate.inside)
    assert said(await ask(receiver, signed_request())) == (503, {"error": "unavailable"})
    gate.open()
    assert (await held).status == 200
    assert (await ask(receiver, signed_request())).status == 200
