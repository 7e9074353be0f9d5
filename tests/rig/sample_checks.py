"""What every sample receiver must do with a request, as functions that a test calls.

The signatures are made by the package `standardwebhooks`: by neither our signer nor our samples.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from standardwebhooks import Webhook

from tests.rig.samples import RECEIVERS, Running, run
from tests.rig.waiting import wait_for

CURRENT = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEXT = "whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="
STRANGE = "whsec_c3RyYW5nZXN0cmFuZ2VzdHJhbmdlc3RyYW5nZQ=="
SECRETS = f"{CURRENT} {NEXT}"
"""What the samples are started with."""

MAX_BODY_BYTES = 2 * 1024 * 1024
TOLERANCE_SECONDS = 300

Headers = dict[str, str]


class Answer:
    """What came back."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status, self.body = status, body

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300

    def __repr__(self) -> str:
        return f"{self.status} {self.body[:200]!r}"


def new_id() -> str:
    """An event id that was never used."""
    return f"evt_{uuid.uuid4().hex}"


def signed(message_id: str, body: bytes, *secrets: str, age_seconds: float = 0) -> Headers:
    """The three headers."""
    at = datetime.fromtimestamp(int(time.time() - age_seconds), UTC)
    text = body.decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(
            Webhook(secret).sign(message_id, at, text) for secret in secrets or [CURRENT]
        ),
    }


def post(running: Running, headers: Headers, body: bytes) -> Answer:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
    try:
        connection.connect()
        with contextlib.suppress(ConnectionError):  # it need not read on once it has answered
            connection.request(
                "POST", "/webhooks", body, {"content-type": "application/json", **headers}
            )
        answer = connection.getresponse()
        return Answer(answer.status, answer.read())
    finally:
        connection.close()


def event(message_id: str) -> bytes:
    """A plausible event."""
    content = {"id": message_id, "type": "order.created", "data": {"total": 42, "note": "naïve ✓"}}
    return json.dumps(content).encode()


def assert_processed(running: Running, *ids: str) -> None:
    """Each of them once, in this order."""
    wait_for(lambda: set(ids) <= set(running.processed()), 20, f"{running.sample.folder}: {ids}")
    assert [one for one in running.processed() if one in ids] == list(ids)


def assert_refused(running: Running, headers: Headers, body: bytes) -> None:
    """401, with the words that every refusal has."""
    answer = post(running, headers, body)
    assert answer.status == 401 and answer.body.strip() == b"invalid signature", (headers, answer)


def assert_not_handled(running: Running, *ids: str) -> None:
    """None of them was handled, nor will be: one that came after them has been."""
    later = new_id()
    assert post(running, signed(later, event(later)), event(later)).accepted
    assert_processed(running, later)
    assert not set(ids) & set(running.processed())


def good(running: Running) -> None:
    """A signed request is accepted and its event handled."""
    one = new_id()
    answer = post(running, signed(one, event(one)), event(one))
    assert answer.accepted, answer
    assert_processed(running, one)


def first_event(running: Running) -> None:
    """What `send.sh` sends, which the READMEs tell a reader to try; refused with another secret."""

    def sent(secret: str) -> tuple[str, str]:
        printed = run("sh send.sh", RECEIVERS, PORT=str(running.port), WEBHOOK_SECRET=secret)
        [one] = re.findall(r'"id":"(\w+)"', printed)
        return one, printed.splitlines()[-1]

    one, status = sent(CURRENT)
    assert status.startswith("2"), status
    assert_processed(running, one)
    assert sent(STRANGE)[1] == "401"


def conformance(running: Running) -> None:
    """`dispatcherd conformance` passes it in all that it looks at, and could look at everything."""
    line = [
        sys.executable, "-m", "dispatcherd", "conformance", running.url, "--json",
        "--processed-url", running.url.replace("/webhooks", "/processed"),
        "--requests", "5", "--timeout", "60", "--settle", "30",
    ]  # fmt: skip
    environ = {**os.environ, "WEBHOOK_SECRET": CURRENT}
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, env=environ)
    assert done.returncode in (0, 1), done.stderr
    checks = json.loads(done.stdout)["checks"]
    assert checks and not [check for check in checks if check["passed"] is not True]


def raw_bytes(running: Running) -> None:
    """The signature is over the bytes as sent: spaces, escapes and the order of keys count."""
    one = new_id()
    body = f'{{ "z":1.0 ,\r\n\t"a":"\\u00e9", "id" : "{one}", "n":1e2 }}\n'.encode()
    answer = post(running, signed(one, body), body)
    assert answer.accepted, answer
    assert_processed(running, one)


def batch(running: Running) -> None:
    """Each member of an array is an event with its own id; a repeated one is left out."""
    ids = [new_id() for _ in range(3)]
    first = b"[" + event(ids[0]) + b"," + event(ids[1]) + b"]"
    second = b"[" + event(ids[1]) + b"," + event(ids[2]) + b"]"
    for body in (first, second):
        batch_id = f"batch_{uuid.uuid4().hex}"
        answer = post(running, signed(batch_id, body), body)
        assert answer.accepted, answer
        assert batch_id not in running.processed()
    assert_processed(running, *ids)


def tampered_body(running: Running) -> None:
    """A body that was changed on its way is refused."""
    one = new_id()
    body = event(one)
    assert_refused(running, signed(one, body), body.replace(b"42", b"43"))
    assert_refused(running, signed(one, body), body + b" ")
    assert_refused(running, signed(one, body), b"")
    assert_not_handled(running, one)


def tampered_signature(running: Running) -> None:
    """Changed in one character, cut short, empty, no base64, or of another version: refused."""
    one = new_id()
    headers = signed(one, event(one))
    right = headers["webhook-signature"]
    other = "B" if right[3] == "A" else "A"
    for wrong in (
        f"v1,{other}{right[4:]}", right[:-8], "v1,", "v1", "v1,%%%", right.removeprefix("v1,"),
        right.replace("v1,", "v2,"), right.replace("v1,", "v1a,"),
    ):  # fmt: skip
        assert_refused(running, {**headers, "webhook-signature": wrong}, event(one))
    assert_not_handled(running, one)


def tampered_headers(running: Running) -> None:
    """The id and the time are signed too; a time that is no number is refused."""
    one, other = new_id(), new_id()
    headers = signed(one, event(one))
    assert_refused(running, {**headers, "webhook-id": other}, event(one))
    earlier = str(int(headers["webhook-timestamp"]) - 1)
    for wrong in (earlier, "", "0x10", "1e9", "9" * 30, "-1", "soon"):
        assert_refused(running, {**headers, "webhook-timestamp": wrong}, event(one))
    assert_not_handled(running, one, other)


def wrong_secret(running: Running) -> None:
    """Signed by somebody else."""
    one = new_id()
    assert_refused(running, signed(one, event(one), STRANGE), event(one))
    assert_not_handled(running, one)


def stale(running: Running) -> None:
    """Older than the tolerance: somebody may have kept it. Younger than that: accepted."""
    one, other = new_id(), new_id()
    old = signed(one, event(one), age_seconds=TOLERANCE_SECONDS + 5)
    assert_refused(running, old, event(one))
    young = signed(other, event(other), age_seconds=TOLERANCE_SECONDS - 60)
    assert post(running, young, event(other)).accepted
    assert_not_handled(running, one)


def future(running: Running) -> None:
    """Further ahead than the tolerance: refused. Less than that: accepted."""
    one, other = new_id(), new_id()
    ahead = signed(one, event(one), age_seconds=-TOLERANCE_SECONDS - 60)
    assert_refused(running, ahead, event(one))
    near = signed(other, event(other), age_seconds=60 - TOLERANCE_SECONDS)
    assert post(running, near, event(other)).accepted
    assert_not_handled(running, one)


def replayed(running: Running) -> None:
    """The same id again, also signed anew and four at once, is accepted and handled once."""
    one = new_id()
    headers = signed(one, event(one))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: post(running, headers, event(one)), range(4)))
    answers.append(post(running, signed(one, event(one), age_seconds=-1), event(one)))
    assert all(answer.accepted for answer in answers), answers
    last = new_id()
    assert post(running, signed(last, event(last)), event(last)).accepted
    assert_processed(running, one, last)


def rotated(running: Running) -> None:
    """One of several signatures is enough, and each of the receiver's secrets counts."""
    ids = [new_id() for _ in range(4)]
    for one, secrets in zip(
        ids, [(CURRENT, NEXT), (NEXT,), (STRANGE, NEXT), (CURRENT, STRANGE)], strict=True
    ):
        answer = post(running, signed(one, event(one), *secrets), event(one))
        assert answer.accepted, (secrets, answer)
    mixed = new_id()
    headers = signed(mixed, event(mixed))
    headers["webhook-signature"] = f"v1a,c3RyYW5nZQ== v2,x {headers['webhook-signature']}"
    assert post(running, headers, event(mixed)).accepted
    assert_processed(running, *ids, mixed)


def missing_headers(running: Running) -> None:
    """Without any one of the three, or all of them: refused."""
    one = new_id()
    headers = signed(one, event(one))
    for name in headers:
        rest = {key: value for key, value in headers.items() if key != name}
        assert_refused(running, rest, event(one))
    assert_refused(running, {}, event(one))
    assert_not_handled(running, one)


def not_json(running: Running) -> None:
    """Signed, and no event: 400; it goes on answering."""
    bodies = (b"{", b"", b'[{"type":"order.created"}]', b"[1]")
    ids = [new_id() for _ in bodies]
    for one, body in zip(ids, bodies, strict=True):
        answer = post(running, signed(one, body), body)
        assert answer.status == 400, (body, answer)
    assert_not_handled(running, *ids)


def oversized(running: Running) -> None:
    """A body above the limit is refused; one a little below it is accepted."""
    for pad, statuses in ((-1_000, range(200, 300)), (1_000, (413,))):
        one = new_id()
        body = json.dumps({"id": one, "pad": "x" * (MAX_BODY_BYTES + pad)}).encode()
        answer = post(running, signed(one, body), body)
        assert answer.status in statuses, answer


def endless_body(running: Running) -> None:
    """One that announces too much, or announces nothing and goes on: answered before its end."""
    declared = f"Content-Length: {100 * MAX_BODY_BYTES}", b"x" * 1_000
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    undeclared = "Transfer-Encoding: chunked", chunk * (2 * MAX_BODY_BYTES // 65_536)
    assert status_of(running, *declared) == 413
    assert status_of(running, *undeclared) in (411, 413)  # 411: it takes no chunks at all


def status_of(running: Running, header: str, part: bytes) -> int:
    """What is answered to a request that is begun and not ended."""
    head = f"POST /webhooks HTTP/1.1\r\nHost: 127.0.0.1\r\n{header}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection:
        with contextlib.suppress(ConnectionError):  # it need not read on once it has answered
            connection.sendall(head + part)
        answered = connection.recv(4_096)
    assert answered.startswith(b"HTTP/1."), answered
    return int(answered.split(b" ")[1])


class Dribble:
    """A request whose body never comes, begun before the other checks and looked at after them."""

    def __init__(self, running: Running) -> None:
        self._socket = socket.create_connection(("127.0.0.1", running.port), timeout=40)
        self._socket.sendall(
            b"POST /webhooks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"webhook-id: evt_dribble\r\nContent-Length: 1000\r\n\r\n{"
        )

    def assert_ended(self) -> None:
        """The receiver has ended it by itself, without a 2xx."""
        answered = b""
        try:
            while part := self._socket.recv(4_096):
                answered += part
        except ConnectionResetError:
            pass
        finally:
            self._socket.close()
        assert not answered or answered.split(b" ")[1][:1] == b"4", answered


CHECKS: dict[str, Callable[[Running], None]] = {
    "first event": first_event,
    "good": good,
    "raw bytes": raw_bytes,
    "batch": batch,
    "tampered body": tampered_body,
    "tampered signature": tampered_signature,
    "tampered headers": tampered_headers,
    "wrong secret": wrong_secret,
    "stale": stale,
    "future": future,
    "replayed": replayed,
    "rotated": rotated,
    "missing headers": missing_headers,
    "not JSON": not_json,
    "oversized": oversized,
    "endless body": endless_body,
    "conformance": conformance,
}
