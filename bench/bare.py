"""The bare exchange in Python: the same bytes posted again and again, with nothing around it.

    python -m bench.bare PORT CONNECTIONS COUNT FILE [SECRET]

FILE holds one whole request. Connections come from aiohttp's connector and are held; httptools
parses the answers; uvloop turns. With SECRET each request is signed anew (Standard Webhooks), which
is the one thing that no sender of webhooks can leave out. Prints what it cost as a line of JSON.
Invariant: one request under way on each connection. Leaves out: deadlines, lanes, records, faults.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import hmac
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import httptools
import uvloop
from yarl import URL


def cpu_seconds() -> float:
    """What this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Posts:
    """How many are still to be sent and heard, over all connections."""

    def __init__(self, count: int, make: Callable[[], bytes]) -> None:
        self.to_send = self.to_hear = count
        self.make = make
        self.done = asyncio.get_running_loop().create_future()


class Exchange(asyncio.Protocol):
    """One connection: write, parse the answer, write the next."""

    def __init__(self, posts: Posts) -> None:
        self._posts = posts
        self._transport: asyncio.WriteTransport | None = None
        self._parser = httptools.HttpResponseParser(self)

    def begin(self, transport: asyncio.WriteTransport) -> None:
        """Take over a transport that is connected."""
        self._transport = transport
        self._next()

    def _next(self) -> None:
        posts = self._posts
        if posts.to_send:
            posts.to_send -= 1
            assert self._transport is not None
            self._transport.write(posts.make())

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """httptools: the answer is whole."""
        posts = self._posts
        if self._parser.get_status_code() != 200:
            posts.done.set_exception(RuntimeError(f"status {self._parser.get_status_code()}"))
            return
        posts.to_hear -= 1
        if not posts.to_hear:
            posts.done.set_result(None)
        self._parser = httptools.HttpResponseParser(self)
        self._next()


def signing(request: bytes, secret: str) -> Callable[[], bytes]:
    """Makes the request anew each time with a timestamp and a signature of now."""
    head, _, body = request.partition(b"\r\n\r\n")
    kept = []
    webhook_id = b""
    for line in head.split(b"\r\n"):
        name = line.split(b":", 1)[0].lower()
        if name == b"webhook-id":
            webhook_id = line.split(b":", 1)[1].strip()
        if name not in (b"webhook-timestamp", b"webhook-signature"):
            kept.append(line)
    start = b"\r\n".join(kept) + b"\r\nwebhook-timestamp: %d\r\nwebhook-signature: v1,%b\r\n\r\n%b"
    prepared = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), digestmod="sha256")

    def make() -> bytes:
        now = int(time.time())
        mac = prepared.copy()
        mac.update(b"%b.%d." % (webhook_id, now))
        mac.update(body)
        return start % (now, base64.b64encode(mac.digest()), body)

    return make


async def main(port: int, connections: int, count: int, path: str, secret: str | None) -> None:
    """Post, and say what it cost."""
    request = await asyncio.to_thread(Path(path).read_bytes)
    make = (lambda: request) if secret is None else signing(request, secret)
    loop = asyncio.get_running_loop()
    connector = aiohttp.TCPConnector(limit=0)
    target = aiohttp.ClientRequest("POST", URL(f"http://127.0.0.1:{port}/"), loop=loop)
    posts = Posts(count, make)
    held = [
        await connector.connect(target, [], aiohttp.ClientTimeout()) for _ in range(connections)
    ]
    gc.collect()
    gc.freeze()
    cpu, wall = cpu_seconds(), time.monotonic()
    for connection in held:
        exchange = Exchange(posts)
        assert connection.transport is not None
        connection.transport.set_protocol(exchange)
        exchange.begin(connection.transport)
    await posts.done
    cost = {"requests": count, "wall_seconds": time.monotonic() - wall}
    print(json.dumps(cost | {"cpu_seconds": cpu_seconds() - cpu}))
    for connection in held:
        connection.close()


if __name__ == "__main__":
    port, connections, count, path = sys.argv[1:5]
    secret = sys.argv[5] if len(sys.argv) > 5 else None
    uvloop.run(main(int(port), int(connections), int(count), path, secret))
