"""dispatcherd's exchange with nothing around it: signed POSTs, and not even a lane.

    python -m bench.alone PORT CONNECTIONS COUNT FILE SECRET fast|reference

`reference` is ClientSession behind the same seam. FILE holds one whole request, of which path and
body are taken. Prints what it cost as a line of JSON. Leaves out: the
loop below it (bare) and the daemon above it (drain).
"""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import sys
import time
from pathlib import Path

import uvloop

from bench.bare import cpu_seconds
from dispatcherd.config.model import NetworkConfig
from dispatcherd.delivery import Response
from dispatcherd.exchange import ClientSessionExchange, Exchange, FastExchange, Target
from dispatcherd.metrics import Metrics
from dispatcherd.sign import Signer
from dispatcherd.timers import Timers

_KINDS = {"fast": FastExchange, "reference": ClientSessionExchange}


class Posts:
    """How many are left, and what each takes."""

    def __init__(
        self, count: int, exchange: Exchange, target: Target, body: bytes, secret: str
    ) -> None:
        self.to_send = self.to_hear = count
        self.exchange, self.target, self.body = exchange, target, body
        self.signer = Signer([base64.b64decode(secret.removeprefix("whsec_"))])
        self.done = asyncio.get_running_loop().create_future()


class Flight:
    """One request after the other on one connection."""

    def __init__(self, posts: Posts) -> None:
        self._posts = posts

    def post(self) -> None:
        """The next, if there is one."""
        posts = self._posts
        if not posts.to_send:
            return
        posts.to_send -= 1
        webhook_id = f"evt_{posts.to_send:026d}"
        lines = posts.signer.lines(webhook_id, int(time.time()), posts.body)
        posts.exchange.post(posts.target, lines, posts.body, time.monotonic() + 15.0, self)

    def ended(self, response: Response) -> None:
        """The seam's: it came to something."""
        posts = self._posts
        if response.status != 200:
            posts.done.set_exception(RuntimeError(f"{response}"))
            return
        posts.to_hear -= 1
        if not posts.to_hear:
            posts.done.set_result(None)
        self.post()


async def main(port: int, connections: int, count: int, path: str, secret: str, kind: str) -> None:
    """Post, and say what it cost."""
    request = await asyncio.to_thread(Path(path).read_bytes)
    head, _, body = request.partition(b"\r\n\r\n")
    timers = Timers(Metrics())
    ticking = asyncio.create_task(timers.run())
    config = NetworkConfig(allowed_networks=["127.0.0.0/8"])
    exchange: Exchange = _KINDS[kind](config, timers.wheel, timers.now)
    url = f"http://127.0.0.1:{port}{head.split(b' ')[1].decode()}"
    target = exchange.target(url, [("content-type", "application/json")])
    cost = {}
    for counted in (connections * 20, count):  # the first opens the connections
        posts = Posts(counted, exchange, target, body, secret)
        gc.collect()
        gc.freeze()
        cpu, wall = cpu_seconds(), time.monotonic()
        for _ in range(connections):
            Flight(posts).post()
        await posts.done
        cost = {"requests": counted, "wall_seconds": time.monotonic() - wall}
        cost["cpu_seconds"] = cpu_seconds() - cpu
    print(json.dumps(cost))
    await exchange.close()
    ticking.cancel()


if __name__ == "__main__":
    port, connections, count, path, secret, kind = sys.argv[1:7]
    uvloop.run(main(int(port), int(connections), int(count), path, secret, kind))
