"""`dispatcherd send-test` against real servers: what arrives, what the answer is said to mean."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from click.testing import CliRunner

from dispatcherd.cli.main import cli
from dispatcherd.receiver.signing import new_key_pair
from dispatcherd.receiver.testing import WebhookServer, serve
from dispatcherd.receiver.verify import Verifier
from tests.rig.receivers import Receivers
from tests.rig.waiting import free_port

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def server() -> Iterator[WebhookServer]:
    """A receiver that verifies."""
    kept, stop = serve(SECRET)
    yield kept
    stop()


@pytest.fixture(scope="module")
def anything() -> Iterator[Receivers]:
    """Receivers that verify nothing and answer as they are told."""
    process = Receivers()
    yield process
    process.stop()


def send(*arguments: str, stdin: bytes = b"", **environ: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code, and the documents that it printed."""
    done = CliRunner().invoke(
        cli, ["send-test", "--json", *arguments], input=stdin,
        env={"WEBHOOK_SECRET": SECRET, **environ},
    )  # fmt: skip
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, [orjson.loads(line) for line in done.stdout.splitlines()]


def test_what_is_sent_verifies_and_is_shown_as_it_went_out(
    anything: Receivers,
) -> None:
    code, [shown] = send(anything.url("shown"))
    assert code == 0 and shown["meaning"] == "delivered"
    [(headers, body)] = anything.ledger("shown").kept
    assert body == shown["request"]["body"].encode()
    assert headers == {name.lower(): value for name, value in shown["request"]["headers"]}
    Verifier([SECRET]).verify(headers, body, float(headers["webhook-timestamp"]))
    assert shown["response"]["status"] == 200 and shown["response"]["seconds"] > 0


@pytest.mark.parametrize(
    ("arguments", "type_", "data"),
    [
        ([], "webhook.ping", {"message": "A test event of dispatcherd."}),
        (["--data", '{"a": 1}'], "webhook.test", {"a": 1}),
        (["--type", "x.y", "--data", "[1]"], "x.y", [1]),
    ],
)
def test_the_event_is_what_was_asked_for(
    server: WebhookServer, arguments: list[str], type_: str, data: Any
) -> None:
    assert send(server.url, *arguments)[0] == 0
    [event] = server.wait_for(1)
    assert (event.type, event.data, event.version) == (type_, data, "1")


def test_an_event_type_is_sent_with_the_catalogues_example(server: WebhookServer) -> None:
    assert send(server.url, "--type", "order.created")[0] == 0
    assert send(server.url, "--type", "order.created", "--version", "1")[0] == 0
    new, old = server.wait_for(2)
    assert new.version == "2" and new.data["currency"] == "EUR"
    assert old.version == "1" and "currency" not in old.data


def test_a_whole_event_goes_out_byte_for_byte(server: WebhookServer) -> None:
    body = b'{ "id":"evt_7","type":"a.b",\n "data": 1.0}'
    assert send(server.url, "--file", "-", stdin=body)[0] == 0
    [event] = server.wait_for(1)
    assert (event.id, event.body) == ("evt_7", body)


def test_a_batch_has_ids_of_its_own_and_a_repeat_has_the_same(server: WebhookServer) -> None:
    assert send(server.url, "--batch", "3")[0] == 0
    assert len({event.id for event in server.wait_for(3)}) == 3
    server.events.clear()
    assert send(server.url, "--repeat", "3")[0] == 0
    again = server.wait_for(3)
    assert len({event.id for event in again}) == 1
    assert [event.attempt for event in again] == [1, 2, 3]


BROKEN = (["--tamper"], ["--stale"], ["--future"], ["--unsigned"], ["--stale", "600", "--tamper"])


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_broken_has_to_be_refused(
    server: WebhookServer, anything: Receivers, broken: list[str]
) -> None:
    code, [shown] = send(server.url, *broken)
    assert code == 0 and shown["meaning"].startswith("refused, as it must be")
    assert not server.events
    code, [shown] = send(anything.url("gullible"), *broken)
    assert code == 1 and "ACCEPTED" in shown["meaning"]


@pytest.mark.parametrize(
    ("manner", "meaning"),
    [
        ({"status": 410}, "410: a dead letter at once, nothing more is sent"),
        ({"status": 503}, "unavailable: the next attempt would come in 5 s"),
        ({"status": 429, "headers": {"retry-after": "77"}},
         "throttled: the next attempt would come in 77 s"),
        ({"status": 302, "headers": {"location": "/elsewhere"}},
         "status_redirect: the next attempt would come in 5 s"),
    ],
)  # fmt: skip
def test_the_meaning_of_an_answer_is_the_daemons(
    anything: Receivers, manner: dict[str, Any], meaning: str
) -> None:
    anything.manner("meaning", "status", **manner)
    code, [shown] = send(anything.url("meaning"))
    assert (code, shown["meaning"]) == (1, meaning)


def test_a_batch_that_failed_in_part_is_said_to(anything: Receivers) -> None:
    anything.manner("partly", "fail_members", every=2)
    events = [{"id": f"e{n}", "type": "a.b"} for n in (1,)]
    code, [shown] = send(anything.url("partly"), "--file", "-", "--batch", "1",
                         stdin=orjson.dumps(events[0] | {"id": "e2"}))  # fmt: skip
    assert code == 1
    assert shown["meaning"] == "1 of 1 events failed: only those are sent again"


def test_who_does_not_answer_is_a_failure_with_its_reason(anything: Receivers) -> None:
    code, [shown] = send(f"http://127.0.0.1:{free_port()}/")
    assert code == 1 and shown["response"]["failure"] == "connect_failed"
    anything.manner("hanging", "hang")
    code, [shown] = send(anything.url("hanging"), "--timeout", "0.2")
    assert code == 1 and shown["response"]["failure"] == "timeout"
    anything.manner("hanging", "ok")


def test_an_endpoint_of_the_configuration_gives_secret_headers_and_url(
    anything: Receivers, tmp_path: Path
) -> None:
    private, public = new_key_pair()
    config = {
        "network": {"allowed_networks": ["127.0.0.0/8"]},
        "endpoints": [
            {"id": "other", "url": anything.url("x"), "secret": {"env": "NOT_SET_ANYWHERE"}},
            {"id": "mine", "url": anything.url("mine"), "secret": {"env": "MY_KEY"},
             "headers": {"x-mine": "hunter2"}},
        ],
    }  # fmt: skip
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    code, [shown] = send("--endpoint", "mine", "--config", str(path), MY_KEY=private)
    assert code == 0 and ["x-mine", "***"] in shown["request"]["headers"]
    [(headers, body)] = anything.ledger("mine").kept
    assert headers["x-mine"] == "hunter2"
    assert "hunter2" not in str(shown)
    Verifier([public]).verify(headers, body, float(headers["webhook-timestamp"]))


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["ftp://a.example.com"],
        ["http://127.0.0.1:9/", "--secret", "whpk_AAAA"],
        ["http://127.0.0.1:9/", "--type", "order.creted"],
        ["http://127.0.0.1:9/", "--data", "{"],
        ["http://127.0.0.1:9/", "--file", "/nope"],
        ["http://127.0.0.1:9/", "--file", "/dev/null"],
        ["http://127.0.0.1:9/", "--stale", "--future"],
        ["--endpoint", "nobody"],
    ],
)
def test_a_command_line_that_cannot_be_used_sends_nothing(arguments: list[str]) -> None:
    assert send(*arguments) == (2, [])
