"""The contract of test_exchange_servers.py with aiohttp's server. aiohttp_server.py PORT"""

from __future__ import annotations

import sys

from aiohttp import web


async def count(request: web.Request) -> web.Response:
    body = await request.read()
    assert request.transport is not None
    return web.Response(text=f"{len(body)} {request.transport.get_extra_info('peername')[1]}")


async def chunked(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(b"part one, ")
    await response.write(b"part two")
    return response


async def busy(request: web.Request) -> web.Response:
    return web.Response(status=503, headers={"Retry-After": "7"})


async def none(request: web.Request) -> web.Response:
    return web.Response(status=204)


async def gone(request: web.Request) -> web.Response:
    return web.Response(status=410, text="gone")


async def moved(request: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": "/count"})


async def close(request: web.Request) -> web.Response:
    response = web.Response(text="bye")
    response.force_close()
    return response


async def broken(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_length = 100
    await response.prepare(request)
    await response.write(b"not a hundred")
    assert request.transport is not None
    request.transport.close()
    return response


if __name__ == "__main__":
    app = web.Application(client_max_size=1 << 30)
    for handler in (count, chunked, busy, none, gone, moved, close, broken):
        app.router.add_post(f"/{handler.__name__}", handler)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=lambda *_: None)
