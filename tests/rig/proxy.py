"""A TCP proxy in a thread of its own, before a loopback port, with faults to switch on."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from tests.rig.waiting import free_port

T = TypeVar("T")


class Proxy:
    """Passes bytes to 127.0.0.1:`target` until told otherwise."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.target = target
        self._mode = "pass"
        self._cut_after: bytes | None = None
        self.cuts = 0
        """How often `cut_answer_to` struck."""
        self.answered_bytes = 0
        """What the target has answered and was passed on, over all connections."""
        self._writers: set[asyncio.StreamWriter] = set()
        self._flow = asyncio.Event()
        self._flow.set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._call(self._listen())

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if self._mode == "cut":
            self._reset(writer)
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            self._reset(writer)
            return
        self._writers.add(back)
        state = {"doomed": False}
        await asyncio.gather(
            self._pump(reader, back, writer, state, asked=True),
            self._pump(there, writer, back, state, asked=False),
        )

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        other: asyncio.StreamWriter,
        state: dict[str, bool],
        asked: bool,
    ) -> None:
        try:
            while data := await source.read(65_536):
                await self._flow.wait()
                if asked and self._cut_after is not None and self._cut_after in data:
                    self._cut_after = None
                    state["doomed"] = True
                if not asked and state["doomed"]:
                    self.cuts += 1
                    break
                if not asked:
                    self.answered_bytes += len(data)
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        self._reset(sink)
        self._reset(other)

    def _reset(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        made = writer.get_extra_info("socket")
        if made is not None and not writer.is_closing():
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()

    def go_dark(self) -> None:
        """Hold every byte; reset nothing."""
        self._loop.call_soon_threadsafe(self._flow.clear)

    def cut(self) -> None:
        """Reset what is open, refuse what comes."""
        self._mode = "cut"

        async def cut() -> None:
            for writer in list(self._writers):
                self._reset(writer)

        self._call(cut())

    def heal(self) -> None:
        """Pass again."""
        self._mode = "pass"
        self._loop.call_soon_threadsafe(self._flow.set)

    def cut_answer_to(self, text: bytes | None) -> None:
        """Once: pass on a request that holds `text`, and reset instead of passing on its answer.
        None: no more, if it has not happened yet."""
        self._cut_after = text

    def stop(self) -> None:
        """Close everything."""
        self.cut()
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
