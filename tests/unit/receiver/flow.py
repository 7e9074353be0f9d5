"""Both receivers behind one way of asking, so that one test holds for both."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

from dispatcherd.receiver import Answer, AsyncReceiver, Event, Receiver, Request
from dispatcherd.receiver.testing import SignedRequest

Either = Receiver | AsyncReceiver


def request_of(signed: SignedRequest, **more: Any) -> Request:
    return Request(signed.headers, signed.body, "127.0.0.1", **more)


def recording(receiver: Either, *types: str) -> list[Event]:
    """Register a handler that keeps what it gets; the list it keeps it in."""
    seen: list[Event] = []
    receiver.on(*types or ("*",))(seen.append)
    return seen


async def ask(receiver: Either, signed: SignedRequest, **more: Any) -> Answer:
    """The answer of either kind of receiver."""
    if isinstance(receiver, AsyncReceiver):
        return await receiver.handle(request_of(signed, **more))
    return await asyncio.to_thread(receiver.handle, request_of(signed, **more))


async def start(receiver: Either) -> None:
    """Start the workers of either kind of receiver."""
    if isinstance(receiver, AsyncReceiver):
        await receiver.start()
    else:
        receiver.start()


async def close(receiver: Either, timeout_seconds: float = 10.0) -> int:
    """Drain either kind of receiver."""
    if isinstance(receiver, AsyncReceiver):
        return await receiver.close(timeout_seconds)
    return await asyncio.to_thread(receiver.close, timeout_seconds)


async def until(condition: Callable[[], Any], timeout_seconds: float = 20.0) -> Any:
    """Wait for a condition; its value."""
    deadline = asyncio.get_running_loop().time() + timeout_seconds
    while not (value := condition()):
        assert asyncio.get_running_loop().time() < deadline, "the condition did not come true"
        await asyncio.sleep(0.01)
    return value


def said(answer: Answer) -> tuple[int, Any]:
    return answer.status, json.loads(answer.body)


class Gate:
    """A handler that stays until it is let go, however it is called."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.inside = 0
        self.most = 0
        self.ended: list[str] = []
        self._open = threading.Event()
        self._lock = threading.Lock()

    def open(self) -> None:
        self._open.set()

    def _enter(self) -> None:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)

    def _leave(self, how: str) -> None:
        with self._lock:
            self.inside -= 1
            self.ended.append(how)

    def blocking(self, _event: Any) -> None:
        self._enter()
        self._open.wait(30)
        self._leave("done")

    async def cooperative(self, _event: Any) -> None:
        self._enter()
        try:
            await until(self._open.is_set, 30)
        except asyncio.CancelledError:
            self._leave("cancelled")
            raise
        self._leave("done")
