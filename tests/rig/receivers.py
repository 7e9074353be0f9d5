"""Receivers that count: a process of its own, many endpoints by path, manners set at run time.

`python -m tests.rig.receivers PORT [JOURNAL]` is the process; `Receivers` starts it and asks it.
Manners: `{"do": "ok"}`, `{"do": "status", "status": 503, "headers": {…}}`, `{"do": "fail_first",
"times": 2}` (per webhook-id; with "seconds": after so long), `{"do": "fail_members", "every": 3}`
(each, when it first comes in a batch), `{"do": "refuse_member", "member": "e7"}` (400 to any
request with it), `{"do": "hang"}` (503 when the manner changes),
`{"do": "hold"}` (200 then), `{"do": "slow", "seconds": 0.5}`, `{"do": "drop"}`. Every endpoint
unpacks a JSON array as a batch.

The journal, where one is asked for, has two lines a request, fields separated by tabs: as it
arrives `A number time endpoint user-agent webhook-attempt ids` (ids separated by commas), and as it
ends `E number time status` (0: no answer was given). Times are Unix seconds.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import subprocess
import sys
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any, TextIO

import orjson
from aiohttp import web

from tests.rig.waiting import free_port, wait_for

_KEPT_REQUESTS = 200


class _Journal:
    """What arrived and how it ended, a line each, written through at once."""

    def __init__(self, file: TextIO | None) -> None:
        self._file = file
        self._number = 0

    def arrived(self, name: str, request: web.Request, members: list[str]) -> int:
        self._number += 1
        if self._file is not None:
            agent = request.headers.get("user-agent", "")
            attempt = request.headers.get("webhook-attempt", "")
            told = (name, agent, attempt, ",".join(members))
            self._write("A", self._number, *told)
        return self._number

    def ended(self, number: int, status: int) -> None:
        if self._file is not None:
            self._write("E", number, status)

    def _write(self, kind: str, number: int, *fields: object) -> None:
        assert self._file is not None
        print(kind, number, f"{time.time():.4f}", *fields, sep="\t", file=self._file)


class _Endpoint:
    def __init__(self, name: str, journal: _Journal) -> None:
        self._name = name
        self._journal = journal
        self.manner: dict[str, Any] = {"do": "ok"}
        self.requests = 0
        self.received: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        self.kept: deque[dict[str, Any]] = deque(maxlen=_KEPT_REQUESTS)
        self.attempts: Counter[str] = Counter()
        self.released = asyncio.Event()
        self.now = 0
        self.most = 0

    def set(self, manner: dict[str, Any]) -> None:
        self.manner = manner
        self.released.set()
        self.released = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests += 1
        webhook_id = request.headers.get("webhook-id", "")
        members = [m["id"] for m in orjson.loads(body)] if body[:1] == b"[" else [webhook_id]
        number = self._journal.arrived(self._name, request, members)
        self.received.update(members)
        self.attempts[webhook_id] += 1
        if len(self.kept) < _KEPT_REQUESTS or self.requests % 50 == 0:
            kept = {"headers": list(request.headers.items())}
            self.kept.append(kept | {"body": base64.b64encode(body).decode()})
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            answer = await self._manner(request, webhook_id)
        finally:
            self.now -= 1
        if self.manner["do"] == "refuse_member" and self.manner["member"] in members:
            answer = web.Response(status=400)
        failed = [m for m in members if self._fails_first(m)]
        if failed:
            answer = web.json_response(
                {"batchItemFailures": [{"itemIdentifier": m} for m in failed]}
            )
        if 200 <= answer.status < 300:
            self.accepted.update(m for m in members if m not in failed)
        dropped = request.transport is None or request.transport.is_closing()
        self._journal.ended(number, 0 if dropped else answer.status)
        return answer

    def _fails_first(self, member: str) -> bool:
        manner = self.manner
        if manner["do"] != "fail_members" or self.received[member] > 1:
            return False
        return int(member[1:]) % int(manner["every"]) == 0

    async def _manner(self, request: web.Request, webhook_id: str) -> web.StreamResponse:
        manner = self.manner
        do = manner["do"]
        if do == "status":
            return web.Response(status=manner["status"], headers=manner.get("headers"))
        if do == "fail_first" and self.attempts[webhook_id] <= manner["times"]:
            await asyncio.sleep(manner.get("seconds", 0))
            return web.Response(status=503)
        if do in ("hang", "hold"):
            released = self.released
            await released.wait()
            return web.Response(status=503 if do == "hang" else 200)
        if do == "slow":
            await asyncio.sleep(manner["seconds"])
        if do == "drop":
            assert request.transport is not None
            request.transport.abort()
        return web.Response()


class _Endpoints(dict[str, _Endpoint]):
    """Made as they are first named."""

    def __init__(self, journal: _Journal) -> None:
        super().__init__()
        self._journal = journal

    def __missing__(self, name: str) -> _Endpoint:
        made = self[name] = _Endpoint(name, self._journal)
        return made


async def _serve(port: int, file: TextIO | None) -> None:
    endpoints = _Endpoints(_Journal(file))

    async def deliver(request: web.Request) -> web.StreamResponse:
        return await endpoints[request.match_info["name"]].answer(request)

    async def set_manner(request: web.Request) -> web.Response:
        endpoints[request.match_info["name"]].set(await request.json())
        return web.Response()

    async def tell(request: web.Request) -> web.Response:
        endpoint = endpoints[request.match_info["name"]]
        told = {
            "requests": endpoint.requests,
            "received": endpoint.received,
            "accepted": endpoint.accepted,
            "kept": list(endpoint.kept),
            "most_at_once": endpoint.most,
        }
        return web.json_response(told)

    async def summary(_request: web.Request) -> web.Response:
        return web.json_response(
            {n: [e.requests, len(e.received), len(e.accepted)] for n, e in endpoints.items()}
        )

    async def forget(_request: web.Request) -> web.Response:
        """Only while nobody else is connected or hangs: what a daemon that has ended sent is read
        before its connection ends, and nothing of it can come behind."""
        for endpoint in endpoints.values():
            endpoint.set({"do": "ok"})
        assert runner.server is not None
        alone = len(runner.server.connections) == 1
        if alone:
            endpoints.clear()
        return web.json_response(alone)

    app = web.Application(client_max_size=1 << 30)
    app.router.add_get("/control", summary)
    app.router.add_delete("/control", forget)
    app.router.add_put("/control/{name}", set_manner)
    app.router.add_get("/control/{name}", tell)
    app.router.add_post("/{name}", deliver)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    await asyncio.Event().wait()


class Ledger:
    """What one endpoint has received."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.requests: int = told["requests"]
        self.received: Counter[str] = Counter(told["received"])
        """Times each event id arrived."""
        self.accepted: Counter[str] = Counter(told["accepted"])
        """Times each event id was answered with 2xx."""
        self.most_at_once: int = told["most_at_once"]
        self.kept = [
            ({n.lower(): v for n, v in r["headers"]}, base64.b64decode(r["body"]))
            for r in told["kept"]
        ]


class Receivers:
    """The process, and questions to it."""

    def __init__(self, journal: Path | None = None) -> None:
        self.port = free_port()
        written = [] if journal is None else [str(journal)]
        self._process = subprocess.Popen([sys.executable, "-m", "tests.rig.receivers",
                                          str(self.port), *written])  # fmt: skip
        wait_for(self._answers, 20, "the receivers")

    def _answers(self) -> bool:
        try:
            return self.summary() is not None
        except OSError:
            return False

    def url(self, name: str) -> str:
        """Of the endpoint of that name."""
        return f"http://127.0.0.1:{self.port}/{name}"

    def _ask(self, method: str, path: str, content: object = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, None if content is None else json.dumps(content))
            answer = connection.getresponse()
            told = answer.read()
            assert answer.status == 200, (method, path, answer.status, told)
            return json.loads(told) if told else None
        finally:
            connection.close()

    def manner(self, name: str, do: str, **more: object) -> None:
        """Set an endpoint's manner; whoever hangs in it is released."""
        self._ask("PUT", f"/control/{name}", {"do": do, **more})

    def ledger(self, name: str) -> Ledger:
        """What an endpoint has received so far."""
        return Ledger(self._ask("GET", f"/control/{name}"))

    def summary(self) -> dict[str, list[int]]:
        """name → [requests, different ids received, different ids accepted]"""
        return dict(self._ask("GET", "/control"))

    def forget(self) -> None:
        """As if nothing had been received. Whoever has sent must have ended."""
        wait_for(lambda: self._ask("DELETE", "/control"), 20, "every sender to be gone")

    def accepted(self, name: str) -> int:
        """How many different ids an endpoint has answered with 2xx."""
        return self.summary().get(name, [0, 0, 0])[2]

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait(10)


if __name__ == "__main__":
    import uvloop

    if len(sys.argv) > 2:
        with open(sys.argv[2], "w", buffering=1) as journal:
            uvloop.run(_serve(int(sys.argv[1]), journal))
    else:
        uvloop.run(_serve(int(sys.argv[1]), None))
