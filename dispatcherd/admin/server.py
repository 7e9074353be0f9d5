"""The loopback HTTP surface: `/metrics`, `/healthz`, `/readyz`, and the published facts.

Invariant: it answers from memory and waits for no part. Leaves out: operators' actions (a later
issue; the command line has them).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import orjson
from aiohttp import web

from dispatcherd import __version__
from dispatcherd.admin import facts
from dispatcherd.admin.exposition import Exposition
from dispatcherd.config.model import Config
from dispatcherd.errors import ConfigError

Missing = Callable[[], dict[str, str]]
"""What stands in the way of readiness: part → reason; empty when ready."""


class AdminServer:
    """Serves on host:port from start to stop."""

    def __init__(
        self, config: Callable[[], Config], exposition: Exposition, missing: Missing
    ) -> None:
        """`config`: the configuration in force; a reload changes what is published."""
        self._config = config
        self._exposition = exposition
        self._missing = missing
        self._runner: web.AppRunner | None = None

    async def start(self) -> int:
        """Begin to listen; returns the port. Raises OSError when it is taken."""
        app = web.Application(middlewares=[_as_json])
        app.router.add_get("/", self._index)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get(facts.PATH, self._facts)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        admin = self._config().admin
        site = web.TCPSite(self._runner, admin.host, admin.port)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _index(self, _request: web.Request) -> web.Response:
        text = f"dispatcherd {__version__}\n\n/metrics  /healthz  /readyz  {facts.PATH}\n"
        return web.Response(text=text)

    async def _metrics(self, _request: web.Request) -> web.Response:
        content_type = "text/plain; version=0.0.4; charset=utf-8"
        # A quarter of a second for a thousand endpoints: the loop has to turn meanwhile.
        text = await asyncio.to_thread(self._exposition.text)
        return web.Response(body=text, headers={"Content-Type": content_type})

    async def _health(self, _request: web.Request) -> web.Response:
        return _json({"status": "ok"}, 200)  # answered by the loop that does the work

    async def _ready(self, _request: web.Request) -> web.Response:
        missing = self._missing()
        if missing:
            return _json({"status": "not ready", "missing": missing}, 503)
        return _json({"status": "ready"}, 200)

    async def _facts(self, _request: web.Request) -> web.Response:
        try:
            answer = _json(facts.document(self._config()), 200)
        except ConfigError as error:
            return _json({"error": str(error), "path": facts.PATH}, 404)
        answer.headers["cache-control"] = "public, max-age=300"
        return answer


def _json(content: object, status: int) -> web.Response:
    return web.Response(
        body=orjson.dumps(content) + b"\n", status=status, content_type="application/json"
    )


@web.middleware
async def _as_json(
    request: web.Request, handler: Callable[[web.Request], object]
) -> web.StreamResponse:
    try:
        return await handler(request)  # type: ignore[misc, no-any-return]
    except web.HTTPException as error:
        return _json({"error": error.reason, "path": request.path}, error.status)
