"""A receiver written by hand that does everything right but what it is told to do wrong."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

KEY = b"k" * 32
SECRET = "whsec_" + base64.b64encode(KEY).decode()
STRANGER = b"s" * 32
KNOWN_TYPE = "webhook.ping"
SLOW_SECONDS = 0.1


class WrongReceiver:
    """One fault, named as the check that has to find it; "" for none."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.processed: list[str] = []

    def wrong(self, *faults: str) -> bool:
        return self.fault in faults

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers: Mapping[str, str] = request.headers
        if self.wrong("accepts_odd_headers"):
            headers = {n.decode(): v.decode() for n, v in request.raw_headers}
        if self.wrong("answers_in_time"):
            await asyncio.sleep(SLOW_SECONDS)  # this fault is a time
        if self.wrong("accepts_large_body") and len(body) > 100_000:
            return web.Response(status=413)
        if self.wrong("accepts_non_ascii"):
            body.decode("ascii")
        if not self.verified(headers, body):
            return web.Response(status=500 if self.wrong("answers 500") else 401)
        return await self.take(headers, json.loads(body))

    async def take(self, headers: Mapping[str, str], document: Any) -> web.Response:
        if isinstance(document, list) and self.wrong("accepts_batches"):
            return web.Response(status=400)
        events = document if isinstance(document, list) else [document]
        for event in events:
            if self.wrong("survives_unknown_type"):
                assert event["type"] == KNOWN_TYPE
            if self.wrong("survives_unknown_version"):
                assert headers["x-webhook-version"] == "1"
            if self.wrong("processes no batch") and isinstance(document, list):
                continue
            known = event["id"] in self.processed
            if known and self.wrong("repeats are refused"):
                return web.Response(status=422)
            if self.wrong("deduplicates_at_once"):
                await asyncio.sleep(0.05)  # others come between the question and the answer
            if not known or self.wrong("no deduplication"):
                self.processed.append(event["id"])
        return web.json_response({})

    def verified(self, headers: Mapping[str, str], body: bytes) -> bool:
        if self.wrong("no verification"):
            return True
        signature = headers.get("webhook-signature")
        if signature is None:
            return self.wrong("refuses_unsigned")
        stamp = headers.get("webhook-timestamp", "")
        if not stamp.isdigit() and not self.wrong("survives_malformed"):
            return False
        age = time.time() - int(stamp)
        if (age > 300 and not self.wrong("refuses_stale")) or (
            age < -300 and not self.wrong("refuses_future")
        ):
            return False
        return self.signed(headers["webhook-id"], int(stamp), body, signature.split(" "))

    def signed(self, id_: str, stamp: int, body: bytes, signatures: list[str]) -> bool:
        if self.wrong("refuses_respaced"):
            body = json.dumps(json.loads(body), separators=(",", ":"), ensure_ascii=False).encode()
        if self.wrong("refuses_other_id") and body[:1] == b"{":
            id_ = json.loads(body)["id"]
        stamps = [stamp]
        if self.wrong("refuses_other_time"):
            stamps += range(stamp - 3_610, stamp - 3_590)
        keys = [KEY, STRANGER] if self.wrong("refuses_wrong_secret") else [KEY]
        contents = [f"{id_}.{moment}.".encode() + body for moment in stamps]
        macs = [hmac.digest(key, content, "sha256") for key in keys for content in contents]
        expected = {"v1," + base64.b64encode(mac).decode() for mac in macs}
        if self.wrong("accepts_rotated"):
            signatures = signatures[:1] if signatures[0].startswith("v1,") else signatures
        if self.wrong("looks at the last signature only"):
            signatures = signatures[-1:]
        if self.wrong("accepts_other_versions") and not all(s[:3] == "v1," for s in signatures):
            return False
        return bool(expected & set(signatures))

    async def tell(self, _request: web.Request) -> web.Response:
        return web.json_response({"processed": self.processed})


@asynccontextmanager
async def served(receiver: WrongReceiver) -> AsyncIterator[str]:
    """Its URL; `/processed` beside it."""
    app = web.Application(client_max_size=4 << 20)
    app.router.add_post("/hooks", receiver.answer)
    app.router.add_get("/processed", receiver.tell)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hooks"
    finally:
        await runner.cleanup()
