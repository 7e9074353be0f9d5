"""In every framework a webhook is verified, handled once, answered the same. All really served."""

from __future__ import annotations

import http.client
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from dispatcherd.receiver import AsyncReceiver, Backlog, Event, Receiver, Request
from dispatcherd.receiver.signing import new_key_pair, new_secret, sign_hex
from dispatcherd.receiver.testing import RequestFactory, SignedRequest
from tests.integration.receiver.serving import PATH, SERVERS, Client, serve_django
from tests.rig.waiting import wait_for

Serve = Callable[..., tuple[Any, Client]]


@pytest.fixture(params=SERVERS)
def serve(request: pytest.FixtureRequest, webhook_secret: str) -> Iterator[Serve]:
    """Serves a receiver in each framework; gives it and a client."""
    kind, server = SERVERS[request.param]
    with ExitStack() as stack:

        def start(handler: Any, *, secrets: Any = None, **options: Any) -> tuple[Any, Client]:
            receiver = kind(secrets or [webhook_secret], **options)
            receiver.on("*")(handler)
            return receiver, Client(stack.enter_context(server(receiver)))

        yield start


def send(client: Client, request: SignedRequest) -> tuple[int, Any]:
    status, told, _ = client.post(request.headers, request.body)
    return status, told


def test_a_good_request_is_handled_with_its_raw_bytes(
    serve: Serve, signed_request: RequestFactory
) -> None:
    seen: list[Event] = []
    receiver, client = serve(seen.append)
    body = b'{ "type":"order.created",\n  "data": {"name": "\xc3\xbc", "n": 1.0}, "z":1 }\r\n'
    request = signed_request(body, id="evt_1", version="2")
    status, told, headers = client.post(request.headers, request.body)
    assert (status, told) == (200, {"status": "done"})
    assert headers["content-type"].startswith("application/json")
    assert [(event.id, event.type, event.version, event.body) for event in seen] == [
        ("evt_1", "order.created", "2", body)
    ]
    assert receiver.metrics.value("requests_total", status="200") == 1


def test_bad_requests_are_refused_and_reach_no_handler(
    serve: Serve, signed_request: RequestFactory
) -> None:
    seen: list[Event] = []
    _, client = serve(seen.append)
    good = signed_request()
    for request, expected in [
        (good.tampered(), (401, {"error": "no_matching_signature"})),
        (signed_request(secret=new_secret()), (401, {"error": "no_matching_signature"})),
        (signed_request(age_seconds=301 + 30), (401, {"error": "stale_timestamp"})),
        (signed_request(age_seconds=-331), (401, {"error": "future_timestamp"})),
        (good.without("webhook-signature"), (401, {"error": "missing_header"})),
        (good.without("webhook-timestamp"), (401, {"error": "missing_header"})),
    ]:
        assert send(client, request) == expected
    assert seen == []


def test_a_replay_and_a_retry_are_answered_well_and_handled_once(
    serve: Serve, signed_request: RequestFactory
) -> None:
    seen: list[Event] = []
    receiver, client = serve(seen.append)
    request = signed_request(id="evt_1")
    retry = signed_request(id="evt_1", attempt=2, age_seconds=-1)
    assert [send(client, one) for one in (request, request, retry)] == [
        (200, {"status": "done"}),
        (200, {"status": "duplicate"}),
        (200, {"status": "duplicate"}),
    ]
    assert len(seen) == 1
    assert receiver.metrics.value("unusual_total", kind="replay") == 1


def test_while_a_secret_is_rotated_either_passes(
    serve: Serve, signed_request: RequestFactory
) -> None:
    seen: list[Event] = []
    old, new = new_secret(), new_secret()
    private, public = new_key_pair()
    _, client = serve(seen.append, secrets=[new, old, public])
    for secrets in ([old], [new], [old, new], [private], [private, old]):
        assert send(client, signed_request(secret=secrets))[0] == 200
    assert send(client, signed_request(secret=[new_secret(), new_secret()]))[0] == 401
    assert len(seen) == 5


def test_the_hex_form_passes_where_it_is_asked_for(
    serve: Serve, signed_request: RequestFactory
) -> None:
    seen: list[Event] = []
    _, client = serve(seen.append, hex_header="X-Webhook-Signature")
    request = signed_request(id="evt_1")
    signature = sign_hex(signed_request.secret, request.body)
    headers = {"webhook-id": "evt_1", "X-Webhook-Signature": signature}
    assert client.post(headers, request.body)[0] == 200
    assert client.post(headers, request.body + b" ")[0] == 401
    assert len(seen) == 1


def test_of_a_batch_what_failed_is_named(serve: Serve, signed_request: RequestFactory) -> None:
    seen: list[str] = []

    def handler(event: Event) -> None:
        if event.id == "evt_2":
            raise ValueError("no stock")
        seen.append(event.id)

    _, client = serve(handler)
    batch = signed_request([{"type": "a", "id": f"evt_{n}"} for n in (1, 2, 3)])
    failures = {"batchItemFailures": [{"itemIdentifier": "evt_2"}]}
    assert send(client, batch) == (200, failures)
    assert seen == ["evt_1", "evt_3"]


def test_a_failed_handler_is_a_500_and_the_next_attempt_is_handled(
    serve: Serve, signed_request: RequestFactory
) -> None:
    calls: list[str] = []

    def handler(event: Event) -> None:
        calls.append(event.id)
        if len(calls) == 1:
            raise ValueError("no stock")

    _, client = serve(handler)
    request = signed_request()
    assert send(client, request) == (500, {"error": "failed"})
    assert send(client, request) == (200, {"status": "done"})


def test_a_body_above_the_limit_is_refused(serve: Serve, signed_request: RequestFactory) -> None:
    seen: list[Event] = []
    _, client = serve(seen.append, max_body_bytes=100_000)
    fits = signed_request(b'"' + b"x" * 99_998 + b'"')
    assert send(client, fits)[0] == 200
    assert send(client, signed_request(b"x" * 100_001)) == (413, {"error": "body_too_large"})
    assert len(seen) == 1


def test_a_body_without_a_length_is_bounded_too(
    serve: Serve, signed_request: RequestFactory, request: pytest.FixtureRequest
) -> None:
    seen: list[Event] = []
    _, client = serve(seen.append, max_body_bytes=100_000)
    good = signed_request(b'"' + b"x" * 50_000 + b'"')

    def chunks(body: bytes) -> Iterator[bytes]:
        for at in range(0, len(body), 10_000):
            yield body[at : at + 10_000]

    if request.node.callspec.params["serve"] in ("wsgi", "django"):
        # wsgiref reads no chunked bodies; what it passes on is empty, and therefore unsigned.
        with suppress(OSError):  # and it closes while the client still sends
            assert client.post(good.headers, chunks(good.body))[0] == 401
        assert not seen
        return
    assert client.post(good.headers, chunks(good.body))[0] == 200
    try:
        status = client.post(good.headers, chunks(b"x" * 5_000_000))[0]
    except OSError:  # the answer is there before the body is: some servers close at once
        status = 413
    assert status == 413
    assert len(seen) == 1


def test_a_huge_body_is_never_in_memory_whole(serve: Serve, signed_request: RequestFactory) -> None:
    receiver, client = serve(lambda event: None, max_body_bytes=100_000)
    headers = {**signed_request().headers, "content-length": str(100 << 20)}
    tracemalloc.start()
    try:
        with suppress(OSError):  # the answer is there before the body is: some close at once
            assert client.post(headers, (b"x" * 65_536 for _ in range(1_600)))[0] == 413
        wait_for(
            lambda: receiver.metrics.value("refused_total", cause="body_too_large"), 20, "refused"
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 << 20


def test_other_methods_are_refused(serve: Serve, signed_request: RequestFactory) -> None:
    seen: list[Event] = []
    _, client = serve(seen.append)
    request = signed_request()
    status, _, headers = client.post(request.headers, request.body, "PUT")
    assert (status, "POST" in headers["allow"]) == (405, True)
    assert not seen


def test_the_senders_address_counts_and_not_what_it_writes(
    serve: Serve, signed_request: RequestFactory
) -> None:
    seen: list[Event] = []
    _, client = serve(seen.append, allowed=["192.0.2.0/24"])
    request = signed_request()
    for headers in (request.headers, {**request.headers, "X-Forwarded-For": "192.0.2.1"}):
        assert client.post(headers, request.body)[:2] == (403, {"error": "unknown_sender"})
    assert not seen


def test_behind_a_trusted_proxy_its_word_counts(
    serve: Serve, signed_request: RequestFactory
) -> None:
    seen: list[Event] = []
    _, client = serve(
        seen.append, allowed=["192.0.2.0/24"], trusted_proxies=["127.0.0.0/8"], https_only=True
    )
    request = signed_request()
    proxied = {**request.headers, "X-Forwarded-Proto": "https"}
    for forwarded, status in [("192.0.2.1", 200), ("192.0.2.1, 203.0.113.9", 403), ("", 403)]:
        assert client.post({**proxied, "X-Forwarded-For": forwarded}, request.body)[0] == status
    plain = {**proxied, "X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "http"}
    assert client.post(plain, request.body)[:2] == (403, {"error": "not_https"})
    assert len(seen) == 1


def test_plain_http_is_refused_whatever_a_client_claims(
    serve: Serve, signed_request: RequestFactory
) -> None:
    _, client = serve(lambda event: None, https_only=True)
    request = signed_request()
    headers = {**request.headers, "X-Forwarded-Proto": "https"}
    assert client.post(headers, request.body)[:2] == (403, {"error": "not_https"})


def test_with_a_backlog_the_answer_comes_first(
    serve: Serve, signed_request: RequestFactory, tmp_path: Path
) -> None:
    seen: list[str] = []
    backlog = Backlog(tmp_path / "webhooks.db")
    _, client = serve(lambda event: seen.append(event.id), backlog=backlog)
    request = signed_request()
    assert send(client, request) == (202, {"status": "queued"})
    batch = signed_request([{"type": "a", "id": "e1"}, {"type": "a", "id": "e2"}])
    assert send(client, batch) == (202, {"status": "accepted"})
    wait_for(lambda: len(seen) == 3, 20, "the backlog is worked off")
    assert sorted(seen) == sorted([request.id, "e1", "e2"])
    wait_for(lambda: backlog.depth().items == 0, 20, "the jobs are settled")


def test_an_adapter_refuses_the_other_kind_of_receiver_and_names_the_right_adapter() -> None:
    from dispatcherd.receiver import aiohttp, asgi, django, flask, wsgi

    for adapter, wrong, right in [
        (wsgi.app, AsyncReceiver, "asgi"),
        (flask.view, AsyncReceiver, "asgi"),
        (django.view, AsyncReceiver, "async_view"),
        (asgi.app, Receiver, "wsgi"),
        (aiohttp.handler, Receiver, "wsgi"),
        (django.async_view, Receiver, "view"),
    ]:
        needed = "Receiver" if wrong is AsyncReceiver else "AsyncReceiver"
        with pytest.raises(TypeError, match=f"needs {needed}, not {wrong.__name__}; .*{right}$"):
            adapter(wrong([new_secret()]))  # type: ignore[operator]


def test_a_flask_handler_in_a_thread_of_its_own_has_the_application(
    signed_request: RequestFactory,
) -> None:
    import flask

    from dispatcherd.receiver.flask import view

    app = flask.Flask("receiving")
    receiver = Receiver([signed_request.secret], around=app.app_context)
    names: list[str] = []
    receiver.on("*")(lambda event: names.append(flask.current_app.name))
    app.add_url_rule(PATH, view_func=view(receiver), methods=["POST"])
    request = signed_request()
    answer = app.test_client().post(PATH, data=request.body, headers=request.headers)
    assert (answer.status_code, names) == (200, ["receiving"])


def test_a_django_handler_leaves_no_connection_open(
    signed_request: RequestFactory,
) -> None:
    with serve_django(Receiver([signed_request.secret])):
        from django.db import connections
        from django.db.backends.signals import connection_created

        from dispatcherd.receiver.django import connections as closing

        opened: list[Any] = []
        keep = lambda connection, **_: opened.append(connection)  # noqa: E731
        connection_created.connect(keep)
        again = Receiver([signed_request.secret], around=closing)

        @again.on("*")
        def handler(event: Event) -> None:
            with connections["default"].cursor() as cursor:
                cursor.execute("SELECT 1")

        request = signed_request()
        assert again.handle(Request(request.headers, request.body)).status == 200
        connection_created.disconnect(keep)
        assert len(opened) == 1 and opened[0].connection is None


def test_many_at_once_are_each_handled_once(serve: Serve, signed_request: RequestFactory) -> None:
    from concurrent.futures import ThreadPoolExecutor

    seen: list[str] = []
    _, client = serve(lambda event: seen.append(event.id))
    requests = [signed_request() for _ in range(20)] * 3
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda one: send(client, one)[0], requests))
    assert set(statuses) <= {200, 409}
    assert sorted(seen) == sorted({request.id for request in requests})


def test_a_client_that_goes_away_in_the_middle_does_no_harm(
    serve: Serve, signed_request: RequestFactory
) -> None:
    seen: list[Event] = []
    _, client = serve(seen.append)
    request = signed_request(b'"' + b"x" * 100_000 + b'"')
    for _ in range(3):
        connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=10)
        connection.putrequest("POST", PATH)
        for name, value in {**request.headers, "content-length": str(len(request.body))}.items():
            connection.putheader(name, value)
        connection.endheaders(request.body[:50_000])
        connection.close()
    assert send(client, request)[0] == 200
    assert len(seen) == 1
