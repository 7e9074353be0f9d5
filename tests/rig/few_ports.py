"""`python -m tests.rig.few_ports`, in a network namespace of its own: how an exchange fares that
runs out of ports. Prints the reasons, then the statuses after ports have come free, as JSON."""

from __future__ import annotations

import asyncio
import fcntl
import json
import socket
import struct
from collections import Counter
from itertools import islice
from pathlib import Path

import uvloop
from aiohttp import web

from tests.rig.exchanges import Poster

_PORTS = 12
_SIOCSIFFLAGS, _UP_AND_RUNNING = 0x8914, 0x41


def _few_ports() -> None:
    with socket.socket() as s:
        fcntl.ioctl(s, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _UP_AND_RUNNING))
    ports = f"30000 {30_000 + _PORTS - 1}"
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(ports)


async def _main() -> None:
    released = asyncio.Event()

    async def hang(_request: web.Request) -> web.Response:
        await released.wait()
        return web.Response()

    app = web.Application()
    app.router.add_post("/", hang)
    runner = web.AppRunner(app)
    await runner.setup()
    url = "http://127.0.0.1:20000/"
    await web.TCPSite(runner, "127.0.0.1", 20_000).start()
    poster = Poster("fast")
    try:
        posts = [asyncio.create_task(poster.post(url)) for _ in range(2 * _PORTS)]
        first = [await post for post in islice(asyncio.as_completed(posts), _PORTS)]
        short = Counter(answer.failure and answer.failure.word for answer in first)
        released.set()
        kept = Counter(answer.status for answer in await asyncio.gather(*posts))
        again = Counter([(await poster.post(url)).status for _ in range(2 * _PORTS)])
    finally:
        await poster.close()
        await runner.cleanup()
    print(json.dumps({"short": short, "kept": kept, "again": again}))


if __name__ == "__main__":
    _few_ports()
    uvloop.run(_main())
