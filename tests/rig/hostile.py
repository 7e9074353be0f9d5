"""Receivers by hand: a script in the test says, byte for byte, what each connection is told.

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")

    async with hostile(script) as server:
        ... server.url, server.peers, server.requests

The script runs once for each connection; when it returns, the connection is closed in good order.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

_ENDS = (ConnectionError, asyncio.IncompleteReadError, TimeoutError, ssl.SSLError)


class Request:
    """One request as it arrived."""

    def __init__(self, head: bytes, body: bytes, peer: Peer) -> None:
        self.line, *rest = head.decode("latin-1").split("\r\n")
        self.headers = [tuple(line.split(": ", 1)) for line in rest if line]
        self.body = body
        self.peer = peer

    def header(self, name: str) -> str:
        """The only value of a header; fails when there is none, or more than one."""
        (value,) = [v for n, v in self.headers if n.lower() == name]
        return value


class Peer:
    """One connection, from the receiver's side."""

    def __init__(
        self, server: Hostile, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.server = server
        self.number = len(server.peers)
        """0 for the first connection."""
        self.reader = reader
        self.writer = writer
        self.ended = asyncio.Event()
        """The other side has closed (or we have)."""

    async def head(self) -> bytes:
        """Read a request's head, and leave its body where it is."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def request(self) -> Request:
        """Read one whole request."""
        head = await self.head()
        (length,) = [
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        ]
        request = Request(head, await self.reader.readexactly(length), self)
        self.server.requests.append(request)
        return request

    async def send(self, data: bytes) -> None:
        """Write, and wait until the kernel has it; ConnectionError when the other side left."""
        if self.writer.transport.is_closing():
            raise ConnectionResetError("the other side has closed")
        self.writer.write(data)
        await self.writer.drain()

    async def pause(self) -> None:
        """Let the other side read what was sent, so that what follows comes by itself. Nothing on
        this side shows when it has: a time."""
        await asyncio.sleep(0.02)

    async def closed(self) -> None:
        """Wait until the other side closes; what it still says is read and dropped."""
        while await self.reader.read(65_536):
            pass

    def reset(self) -> None:
        """Close with a RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


class Hostile:
    """A listening socket on loopback with a script behind it."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None) -> None:
        self.script = script
        self.tls = tls
        self.port = 0
        self.peers: list[Peer] = []
        self.requests: list[Request] = []
        self.faults: list[BaseException] = []

    @property
    def url(self) -> str:
        """Of this server, with its root path."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/"

    @property
    def open(self) -> int:
        """Connections that neither side has closed."""
        return sum(not peer.ended.is_set() for peer in self.peers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(self, reader, writer)
        self.peers.append(peer)
        try:
            await self.script(peer)
        except _ENDS:
            pass
        except Exception as error:  # a mistake in the test's script: reported when it ends
            self.faults.append(error)
        finally:
            peer.ended.set()
            writer.close()


@asynccontextmanager
async def hostile(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Hostile]:
    """Serve until the block ends; what a script raised is raised here."""
    made = Hostile(script, tls)
    server = await asyncio.start_server(made._serve, "127.0.0.1", 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for peer in made.peers:
            peer.writer.transport.abort()
    if made.faults:
        raise made.faults[0]


def answering(*answers: bytes) -> Script:
    """Each connection answers its requests with these, in turn, and the last one again and
    again."""

    async def script(peer: Peer) -> None:
        number = 0
        while True:
            await peer.request()
            await peer.send(answers[min(number, len(answers) - 1)])
            number += 1

    return script


def answer(
    status: int = 200, body: bytes = b"", headers: bytes = b"", version: bytes = b"1.1"
) -> bytes:
    """An answer with a Content-Length; `headers` is lines with their ends."""
    return b"HTTP/%b %03d X\r\n%bContent-Length: %d\r\n\r\n%b" % (
        version,
        status,
        headers,
        len(body),
        body,
    )
