"""Handlers before the answer: each event once, and the sender told the truth. Both receivers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dispatcherd.receiver import (
    AsyncReceiver,
    Event,
    Receiver,
    Request,
    RetryLater,
)
from dispatcherd.receiver.testing import RequestFactory
from tests.unit.receiver.flow import Either, Gate, ask, recording, request_of, said, until

Make = Callable[..., Either]


@pytest.fixture(params=[Receiver, AsyncReceiver])
def make(request: pytest.FixtureRequest, webhook_secret: str) -> Make:
    """Makes a receiver of either kind."""
    return lambda **options: request.param([webhook_secret], **options)


async def test_a_genuine_event_is_handled_and_its_repeat_is_not(
    make: Make, signed_request: RequestFactory
) -> None:
    receiver = make()
    seen = recording(receiver)
    first = signed_request({"type": "order.created", "data": 7}, id="evt_1")
    assert said(await ask(receiver, first)) == (200, {"status": "done"})
    again = signed_request({"type": "order.created", "data": 7}, id="evt_1", attempt=2)
    assert said(await ask(receiver, again)) == (200, {"status": "duplicate"})
    assert [(event.id, event.data) for event in seen] == [("evt_1", 7)]


async def test_each_refusal_has_its_status_and_cause(
    make: Make, signed_request: RequestFactory
) -> None:
    receiver = make(max_body_bytes=500)
    seen = recording(receiver)
    good = signed_request()
    for broken, expected in [
        (good.tampered(), (401, {"error": "no_matching_signature"})),
        (signed_request(age_seconds=400), (401, {"error": "stale_timestamp"})),
        (signed_request(age_seconds=-400), (401, {"error": "future_timestamp"})),
        (good.without("webhook-id"), (401, {"error": "missing_header"})),
        (signed_request(b"x" * 501), (413, {"error": "body_too_large"})),
    ]:
        assert said(await ask(receiver, broken)) == expected
    got = await ask(receiver, good, method="GET")
    assert (got.status, dict(got.headers)["allow"]) == (405, "POST")
    assert not seen


async def test_address_and_scheme_are_checked_when_asked_for(
    make: Make, signed_request: RequestFactory
) -> None:
    receiver = make(allowed=["192.0.2.0/24"])
    recording(receiver)
    assert said(await ask(receiver, signed_request())) == (403, {"error": "unknown_sender"})
    receiver = make(allowed=["127.0.0.0/8"], https_only=True)
    recording(receiver)
    assert said(await ask(receiver, signed_request())) == (403, {"error": "not_https"})
    assert (await ask(receiver, signed_request(), scheme="https")).status == 200


async def test_a_failed_handler_is_asked_for_again_and_gets_it(
    make: Make, signed_request: RequestFactory, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = make()
    calls: list[str] = []

    @receiver.on("*")
    def handler(event: Event) -> None:
        calls.append(event.id)
        if len(calls) == 1:
            raise ValueError("no stock")

    request = signed_request(id="evt_1")
    assert said(await ask(receiver, request)) == (500, {"error": "failed"})
    assert "no stock" in caplog.text
    assert said(await ask(receiver, request)) == (200, {"status": "done"})
    assert len(calls) == 2


async def test_a_handler_may_ask_for_later(make: Make, signed_request: RequestFactory) -> None:
    receiver = make()

    @receiver.on("*")
    def handler(event: Event) -> None:
        raise RetryLater(7)

    answer = await ask(receiver, signed_request())
    assert (answer.status, dict(answer.headers)["retry-after"]) == (503, "7")


@pytest.mark.parametrize("ending", [SystemExit, KeyboardInterrupt])
async def test_a_handler_that_exits_ends_alone(
    make: Make, signed_request: RequestFactory, ending: type[BaseException]
) -> None:
    receiver = make()
    calls: list[str] = []

    @receiver.on("*")
    def handler(event: Event) -> None:
        calls.append(event.id)
        if len(calls) == 1:
            raise ending

    request = signed_request()
    assert (await ask(receiver, request)).status == 500
    assert (await ask(receiver, request)).status == 200


async def test_an_event_under_work_is_not_started_a_second_time(
    make: Make, signed_request: RequestFactory
) -> None:
    receiver = make()
    gate = Gate()
    receiver.on("*")(gate.blocking)
    request = signed_request()
    first = asyncio.create_task(ask(receiver, request))
    await until(lambda: gate.inside)
    answer = await ask(receiver, request)
    assert said(answer) == (409, {"error": "busy"})
    assert 1 <= int(dict(answer.headers)["retry-after"]) <= 30
    gate.open()
    assert (await first).status == 200
    assert said(await ask(receiver, request)) == (200, {"status": "duplicate"})
    assert gate.most == 1


async def test_a_function_that_overruns_keeps_its_claim_until_it_ends(
    make: Make, signed_request: RequestFactory
) -> None:
    receiver = make(timeout_seconds=0.05)
    gate = Gate()
    receiver.on("*")(gate.blocking)
    request = signed_request()
    answer = await ask(receiver, request)
    assert said(answer) == (503, {"error": "timeout"})
    assert "retry-after" in dict(answer.headers)
    assert said(await ask(receiver, request)) == (409, {"error": "busy"})
    gate.open()
    await until(lambda: gate.ended)
    # Its work counts: the sender's next attempt does not repeat it.
    await until(lambda: receiver.metrics.value("handler_runs_total", result="done"))
    answer = await ask(receiver, request)
    while answer.status == 409:  # counted just before the claim is completed
        answer = await ask(receiver, request)
    assert said(answer) == (200, {"status": "duplicate"})
    assert (gate.most, gate.ended) == (1, ["done"])


async def test_a_coroutine_that_overruns_is_cancelled_and_may_run_again(
    signed_request: RequestFactory,
) -> None:
    receiver = AsyncReceiver([signed_request.secret], timeout_seconds=0.05)
    gate = Gate()
    receiver.on("*")(gate.cooperative)
    request = signed_request()
    assert said(await ask(receiver, request)) == (503, {"error": "timeout"})
    assert gate.ended == ["cancelled"]
    gate.open()
    assert said(await ask(receiver, request)) == (200, {"status": "done"})


async def test_a_timeout_error_of_the_handlers_own_is_a_failure(
    signed_request: RequestFactory,
) -> None:
    receiver = AsyncReceiver([signed_request.secret])

    @receiver.on("*")
    async def handler(event: Event) -> None:
        raise TimeoutError("the warehouse")

    assert said(await ask(receiver, signed_request())) == (500, {"error": "failed"})


async def test_a_cancelled_request_gives_its_claim_and_its_place_back(
    signed_request: RequestFactory,
) -> None:
    receiver = AsyncReceiver([signed_request.secret], max_concurrent=1)
    gate = Gate()
    receiver.on("*")(gate.cooperative)
    request = signed_request()
    task = asyncio.create_task(ask(receiver, request))
    await until(lambda: gate.inside)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.open()
    assert said(await ask(receiver, request)) == (200, {"status": "done"})


async def test_past_the_cap_of_handlers_the_sender_is_told_later(
    make: Make, signed_request: RequestFactory
) -> None:
    receiver = make(max_concurrent=2)
    gate = Gate()
    receiver.on("*")(gate.blocking)
    held = [asyncio.create_task(ask(receiver, signed_request())) for _ in range(2)]
    await until(lambda: gate.inside == 2)
    third = signed_request()
    assert said(await ask(receiver, third)) == (503, {"error": "later"})
    gate.open()
    assert [answer.status for answer in await asyncio.gather(*held)] == [200, 200]
    assert (await ask(receiver, third)).status == 200
    assert gate.most == 2


async def test_without_a_time_limit_a_function_runs_in_the_callers_thread(
    signed_request: RequestFactory,
) -> None:
    import threading

    receiver = Receiver([signed_request.secret], timeout_seconds=None)
    threads: list[threading.Thread] = []
    receiver.on("*")(lambda event: threads.append(threading.current_thread()))
    assert receiver.handle(request_of(signed_request())).status == 200
    assert threads == [threading.current_thread()]

    @receiver.on("exit")
    def leave(event: Event) -> None:
        raise SystemExit

    request = request_of(signed_request({"type": "exit"}))
    for _ in range(70):  # more often than there are places
        with pytest.raises(SystemExit):
            receiver.handle(request)
    assert receiver.handle(request_of(signed_request())).status == 200


async def test_handlers_run_inside_the_given_context(
    make: Make, signed_request: RequestFactory
) -> None:
    from contextlib import contextmanager

    steps: list[str] = []

    @contextmanager
    def around() -> Any:
        steps.append("enter")
        try:
            yield
        finally:
            steps.append("leave")

    receiver = make(around=around)
    receiver.on("*")(lambda event: steps.append("run"))
    await ask(receiver, signed_request())
    assert steps == ["enter", "run", "leave"]


header_text = st.text(max_size=30) | st.sampled_from(["127.0.0.1", "https", "\udcff", "::1, x"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    forged=st.dictionaries(
        st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature", "x-forwarded-for",
                         "X-Forwarded-Proto", "webhook-attempt", "x-webhook-version", "é"]),
        header_text,
    ),
    body=st.binary(max_size=50),
    peer=st.none() | st.text(max_size=10) | st.just("127.0.0.1"),
)  # fmt: skip
def test_no_request_whatsoever_makes_it_raise_or_reach_a_handler(
    signed_request: RequestFactory, forged: dict[str, str], body: bytes, peer: str | None
) -> None:
    receiver = Receiver(
        [signed_request.secret], trusted_proxies=["127.0.0.0/8"], allowed=["127.0.0.0/8", "::/0"]
    )
    seen = recording(receiver)
    headers = {**signed_request().headers, **forged}
    assert receiver.handle(Request(headers, body, peer)).status in (400, 401, 403)
    assert not seen


async def test_what_happened_is_counted(make: Make, signed_request: RequestFactory) -> None:
    receiver = make(name="hooks")
    recording(receiver, "a.b")
    request = signed_request({"type": "a.b"})
    for one in (request, request, request.tampered()):
        await ask(receiver, one)
    value = receiver.metrics.value
    assert value("requests_total", receiver="hooks", status="200") == 2
    assert value("requests_total", status="401") == 1
    assert value("events_total", type="a.b", result="done") == 1
    assert value("events_total", type="a.b", result="duplicate") == 1
    assert value("handler_runs_total", type="a.b", result="done") == 1
    assert value("unusual_total", kind="replay") == 1
    assert 'response_seconds_count{receiver="hooks"} 3' in receiver.metrics.text()
