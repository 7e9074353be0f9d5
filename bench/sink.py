"""Starts the sink: the C one where gcc is, else the same in Python (slower than it, and said so).

`Sink()` is a process that answers every POST with 200 and counts; see bench/sink.c. The C programs
are compiled on demand into bench/.build and kept while their source stays the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
_BUILD = _HERE / ".build"


def compiled(name: str) -> Path | None:
    """The binary of bench/NAME.c; None where there is no gcc."""
    gcc = shutil.which("gcc") or shutil.which("cc")
    if gcc is None:
        return None
    source = _HERE / f"{name}.c"
    binary = _BUILD / f"{name}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    if not binary.exists():
        _BUILD.mkdir(exist_ok=True)
        fresh = binary.with_suffix(".new")
        subprocess.run([gcc, "-O2", "-o", str(fresh), str(source)], check=True)
        fresh.rename(binary)
    return binary


class Sink:
    """The process; `port` is where it listens, on 127.0.0.1 and the `hosts` - 1 addresses after
    it; `kind` is `c` or `python`."""

    def __init__(self, vary: bool = False, hosts: int = 1) -> None:
        binary = compiled("sink")
        self.kind = "python" if binary is None else "c"
        command = [sys.executable, __file__] if binary is None else [str(binary)]
        self._process = subprocess.Popen(
            [*command, *(["--vary"] if vary else []), "--hosts", str(hosts), "0"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def count(self) -> int:
        """POSTs that have arrived so far."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/count")
            return int(connection.getresponse().read())
        finally:
            connection.close()

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait(10)


class _PythonSink(asyncio.Protocol):
    posts = 0
    vary = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        import httptools

        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        body, more = b"ok", b""
        if self._parser.get_method() == b"GET":
            body = b"%d" % _PythonSink.posts
        else:
            _PythonSink.posts += 1
            more = b"X-Request-Id: %016x\r\n" % _PythonSink.posts if self.vary else b""
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
            b"Content-Type: text/plain\r\n%bContent-Length: %d\r\n\r\n%b" % (more, len(body), body)
        )


async def _serve() -> None:
    _PythonSink.vary = "--vary" in sys.argv
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_PythonSink, "127.0.0.1", 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    for number in range(2, int(sys.argv[sys.argv.index("--hosts") + 1]) + 1):
        await loop.create_server(_PythonSink, f"127.0.0.{number}", port, backlog=4096)
    print(port, flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve())
