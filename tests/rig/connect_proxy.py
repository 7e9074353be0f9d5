"""An egress proxy that does CONNECT, with a script of the test's for what it answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

OK = b"HTTP/1.1 200 Connection established\r\n\r\n"
DARK = None


class ConnectProxy:
    """Tunnels, and keeps what it was asked."""

    def __init__(self) -> None:
        self.port = 0
        self.heads: list[str] = []
        """Request line and headers of each CONNECT."""
        self.answer: Callable[[str], bytes | None] = lambda target: OK
        """What is said to `host:port`: OK makes a tunnel, DARK says nothing, b"" closes."""
        self.route: Callable[[str], int] = lambda target: int(target.rpartition(":")[2])
        """The port on 127.0.0.1 that a target is connected to."""
        self.open = 0

    @property
    def url(self) -> str:
        """As `network.proxy.url` has it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def asked(self) -> list[str]:
        """The targets of all CONNECTs."""
        return [head.split(" ")[1] for head in self.heads]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._tunnel(reader, writer)
        finally:
            self.open -= 1
            writer.close()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.heads.append(head)
        target = head.split(" ")[1]
        answer = self.answer(target)
        if answer is DARK:
            await reader.read()
            return
        if answer != OK:
            writer.write(answer)
            await writer.drain()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self.route(target))
        writer.write(answer)
        await asyncio.gather(_pump(reader, back), _pump(there, writer))


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    sink.close()


@asynccontextmanager
async def connect_proxy() -> AsyncIterator[ConnectProxy]:
    """One on loopback, until the block ends."""
    made = ConnectProxy()
    server = await asyncio.start_server(made._serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
