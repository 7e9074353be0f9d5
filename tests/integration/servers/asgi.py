"""The contract of test_exchange_servers.py as an ASGI application, for uvicorn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_Answer = tuple[int, list[tuple[bytes, bytes]], list[bytes]]


def _answer(path: str, length: int, port: int) -> _Answer:
    whole = b"%d %d" % (length, port)
    answers: dict[str, _Answer] = {
        "/count": (200, [(b"content-length", b"%d" % len(whole))], [whole]),
        "/chunked": (200, [], [b"part one, ", b"part two"]),
        "/busy": (503, [(b"retry-after", b"7"), (b"content-length", b"0")], [b""]),
        "/none": (204, [], [b""]),
        "/gone": (410, [(b"content-length", b"4")], [b"gone"]),
        "/moved": (302, [(b"location", b"/count"), (b"content-length", b"0")], [b""]),
        "/close": (200, [(b"connection", b"close"), (b"content-length", b"3")], [b"bye"]),
        "/broken": (200, [(b"content-length", b"100")], [b"not a hundred"]),
    }
    return answers[path]


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """The application."""
    if scope["type"] != "http":
        return
    length = 0
    while True:
        message = await receive()
        length += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    status, headers, parts = _answer(scope["path"], length, scope["client"][1])
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for number, part in enumerate(parts):
        more = number + 1 < len(parts)
        await send({"type": "http.response.body", "body": part, "more_body": more})
