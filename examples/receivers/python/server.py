"""Receives webhooks signed by Standard Webhooks. Python 3.11 or newer, standard library only."""

import base64
import hashlib
import hmac
import json
import logging
import os
import queue
import re
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# docs:start verify
TOLERANCE_SECONDS = 300


class Refused(Exception):
    """Not verified. The text is for your log; tell the sender nothing but 401."""


def keys_of(secrets: str) -> list[bytes]:
    """The keys that secrets stand for, separated by spaces: two of them while you rotate."""
    keys = []
    for secret in secrets.split():
        if not secret.startswith("whsec_"):
            raise ValueError("a secret begins with whsec_")
        keys.append(base64.b64decode(secret[len("whsec_") :], validate=True))
    if not keys:
        raise ValueError("no secret")
    return keys


def verify(keys: list[bytes], headers: Mapping[str, str], body: bytes, now: float) -> str:
    """The id of a request that the holder of a key has sent, just now; raises `Refused`.

    `body` is the raw bytes as they arrived: JSON that was parsed and written anew has another
    signature.
    """
    message_id = headers.get("webhook-id") or ""
    timestamp = headers.get("webhook-timestamp") or ""
    signatures = headers.get("webhook-signature") or ""
    if not (message_id and timestamp and signatures):
        raise Refused("missing header")
    if not re.fullmatch(r"[0-9]{1,12}", timestamp):
        raise Refused("malformed timestamp")
    if abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        raise Refused("timestamp too far from now")
    signed = f"{message_id}.{timestamp}.".encode() + body
    expected = [base64.b64encode(hmac.digest(key, signed, hashlib.sha256)) for key in keys]
    for given in signatures.split(" "):
        version, _, signature = given.partition(",")
        # compare_digest takes as long for a wrong signature as for one that is nearly right.
        if version == "v1" and any(hmac.compare_digest(signature.encode(), e) for e in expected):
            return message_id
    raise Refused("no matching signature")


# docs:end verify

MAX_BODY_BYTES = 2 * 1024 * 1024
READ_SECONDS = 10
MAX_IDS = 10_000
MAX_WAITING = 1_000

log = logging.getLogger("webhooks")


def handle(event_id: str, event: Any) -> None:
    """Your work goes here."""
    log.info("processed %s", event_id)


class Inbox:
    """Takes each event once and has it handled in the background, in the order of arrival."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._waiting: queue.Queue[tuple[str, Any]] = queue.Queue(MAX_WAITING)
        self.processed: deque[str] = deque(maxlen=MAX_IDS)

    def take(self, event_id: str, event: Any) -> bool:
        """False when there is no room: the sender must come again."""
        with self._lock:
            if event_id in self._seen:
                log.info("repeated %s", event_id)
                return True
            try:
                self._waiting.put_nowait((event_id, event))
            except queue.Full:
                return False
            self._seen[event_id] = None
            if len(self._seen) > MAX_IDS:
                self._seen.popitem(last=False)
            return True

    def work(self) -> None:
        while True:
            event_id, event = self._waiting.get()
            try:
                handle(event_id, event)
            except Exception:
                log.exception("failed %s", event_id)
            self.processed.append(event_id)


def events_of(message_id: str, body: bytes) -> list[tuple[str, Any]]:
    """What a verified body holds: one event with the message's id, or a batch with theirs."""
    content = json.loads(body)
    if not isinstance(content, list):
        return [(message_id, content)]
    return [(str(member["id"]), member) for member in content]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = READ_SECONDS
    keys: list[bytes]
    inbox: Inbox

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        if self.path != "/webhooks":
            self.answer(404, "not found", close=True)
        elif not re.fullmatch(r"[0-9]{1,12}", length):
            self.answer(411, "content-length needed", close=True)
        elif int(length) > MAX_BODY_BYTES:
            self.answer(413, "body too large", close=True)
        elif (body := self.read(int(length))) is None:
            self.answer(408, "body too slow", close=True)
        else:
            self.receive(body)

    def receive(self, body: bytes) -> None:
        try:
            message_id = verify(self.keys, self.headers, body, time.time())
            events = events_of(message_id, body)
        except Refused as error:
            log.warning("refused: %s", error)
            self.answer(401, "invalid signature")
        except (ValueError, TypeError, KeyError):
            self.answer(400, "not a JSON event, nor an array of events with ids")
        else:
            taken = all(self.inbox.take(event_id, event) for event_id, event in events)
            self.answer(202) if taken else self.answer(503, "busy")

    def do_GET(self) -> None:
        if self.path == "/healthz":
            self.answer(200, "ok")
        elif self.path == "/processed":
            self.answer(200, json.dumps({"processed": list(self.inbox.processed)}))
        else:
            self.answer(404, "not found")

    def read(self, length: int) -> bytes | None:
        """The body; None when it has not come in time."""
        body = b""
        deadline = time.monotonic() + READ_SECONDS
        while len(body) < length:
            self.connection.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                part = self.rfile.read1(length - len(body))  # type: ignore[attr-defined]
            except TimeoutError:
                return None
            if not part:
                return None
            body += part
        self.connection.settimeout(READ_SECONDS)
        return body

    def answer(self, status: int, text: str = "", close: bool = False) -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        if status == 503:
            self.send_header("retry-after", "5")
        if close:  # the rest of the body is still to come: no further request on this connection
            self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """What there is to say is logged where it happens."""


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        Handler.keys = keys_of(os.environ.get("WEBHOOK_SECRET", ""))
    except ValueError as error:
        sys.exit(f"WEBHOOK_SECRET: {error}; it is whsec_ and base64, as the sender gave it to you")
    Handler.inbox = Inbox()
    threading.Thread(target=Handler.inbox.work, daemon=True).start()
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8000"))), Handler)
    log.info("listening on %s:%s", *server.server_address)
    server.serve_forever()


if __name__ == "__main__":
    main()
