"""The demo's receivers: one process, one path an endpoint, each with its own manners.

`python -m dispatcherd.demo.receivers`: takes one JSON line on stdin, name → {"manner": …,
"secrets": […], "hex_header": …}, answers with one on stdout, {"port": …}, and serves until stdin
ends. Manners: `{"do": "ok"}`, `{"do": "slow", "seconds": 0.1}`, `{"do": "refuse_first", "times":
2}` (503, for each webhook-id), `{"do": "hang"}`, `{"do": "gone"}` (410).

    POST /<endpoint>             what the daemon sends
    GET  /-/counts               what every endpoint has received
    POST /-/manner/<endpoint>    a JSON manner: from now on it behaves so

Invariant: a request counts as verified only if every one of its endpoint's secrets has signed it,
checked here by the letter of Standard Webhooks 1.0 and not by the daemon's own code. Leaves out:
what a real receiver does with an event.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import sys
import time
from collections import Counter
from typing import Any

import orjson
import uvloop
from aiohttp import web

_TOLERANCE_SECONDS = 300


class Receiver:
    """One endpoint."""

    def __init__(self, manner: dict[str, Any], secrets: list[str], hex_header: str | None) -> None:
        self.manner = manner
        self._keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets]
        self._hex_header = hex_header
        self._tries: Counter[str] = Counter()
        self._accepted: Counter[str] = Counter()
        self._changed = asyncio.Event()
        self.requests = 0
        self.verified = 0

    def counts(self) -> dict[str, int]:
        """What it has received: requests, those that verified, different ids, ids again."""
        different = len(self._accepted)
        return {
            "requests": self.requests,
            "verified": self.verified,
            "accepted": different,
            "repeated": self._accepted.total() - different,
        }

    def change(self, manner: dict[str, Any]) -> None:
        """Behave otherwise from now on; who hangs is answered with 503."""
        self.manner = manner
        self._changed.set()
        self._changed = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        """Count, verify, behave."""
        self.requests += 1
        body = await request.read()
        if not self._verifies(request, body):
            return web.Response(status=401, text="the signature does not verify\n")
        self.verified += 1
        webhook_id = request.headers["webhook-id"]
        status = await self._behave(webhook_id)
        if 200 <= status < 300:
            if body.startswith(b"["):
                self._accepted.update(member["id"] for member in orjson.loads(body))
            else:
                self._accepted[webhook_id] += 1
        return web.Response(status=status)

    async def _behave(self, webhook_id: str) -> int:
        do = self.manner["do"]
        if do == "slow":
            await asyncio.sleep(self.manner["seconds"])
        elif do == "refuse_first":
            self._tries[webhook_id] += 1
            if self._tries[webhook_id] <= self.manner["times"]:
                return 503
        elif do == "hang":
            await self._changed.wait()
            return 503
        elif do == "gone":
            return 410
        return 200

    def _verifies(self, request: web.Request, body: bytes) -> bool:
        headers = request.headers
        stamp = headers.get("webhook-timestamp", "")
        if not stamp.isdigit() or abs(time.time() - int(stamp)) > _TOLERANCE_SECONDS:
            return False
        signed = f"{headers.get('webhook-id', '')}.{stamp}.".encode() + body
        given = headers.get("webhook-signature", "").split(" ")
        for key in self._keys:
            mac = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
            if not any(hmac.compare_digest(f"v1,{mac}", signature) for signature in given):
                return False
        if self._hex_header is None:
            return True
        mac = hmac.digest(self._keys[0], body, "sha256").hex()
        return hmac.compare_digest(mac, headers.get(self._hex_header, ""))


def application(receivers: dict[str, Receiver]) -> web.Application:
    """The HTTP surface over all of them."""

    async def deliver(request: web.Request) -> web.Response:
        receiver = receivers.get(request.match_info["name"])
        return web.Response(status=404) if receiver is None else await receiver.answer(request)

    async def counts(_request: web.Request) -> web.Response:
        found = {name: receiver.counts() for name, receiver in receivers.items()}
        return web.Response(
            body=orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE),
            content_type="application/json",
        )

    async def manner(request: web.Request) -> web.Response:
        receiver = receivers.get(request.match_info["name"])
        if receiver is None:
            return web.Response(status=404, text=f"endpoints: {', '.join(receivers)}\n")
        receiver.change(orjson.loads(await request.read()))
        return web.Response(text=f"{request.match_info['name']} does now: {receiver.manner}\n")

    app = web.Application(client_max_size=16 * 1024 * 1024)
    app.router.add_get("/-/counts", counts)
    app.router.add_post("/-/manner/{name}", manner)
    app.router.add_post("/{name}", deliver)
    return app


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    orders = orjson.loads(await loop.run_in_executor(None, sys.stdin.buffer.readline))
    receivers = {name: Receiver(**order) for name, order in orders.items()}
    runner = web.AppRunner(application(receivers), access_log=None, handle_signals=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1_024).start()
    sys.stdout.buffer.write(orjson.dumps({"port": runner.addresses[0][1]}) + b"\n")
    sys.stdout.buffer.flush()
    await loop.run_in_executor(None, sys.stdin.buffer.read)  # ends with whoever started it


if __name__ == "__main__":
    uvloop.run(_serve())
