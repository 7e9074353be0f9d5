"""The seam: a POST out, one response (or failure) back, by a deadline.

Invariant: whatever a receiver, DNS, TLS or the network does comes back as a `Response`, once for
each post, never from inside `post` itself. A body is read to a bound and never inflated; redirects
are not followed. Nothing here needs a task, a future or a timer per request: the flight that is
told of the end is the caller's own object. Leaves out: what to send (sign, batch), who may send
now (HostSlots), and what the answer means (outcome).
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from yarl import URL

from dispatcherd.delivery import Response

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class Flight(Protocol):
    """A request under way, as whoever sent it sees it."""

    def ended(self, response: Response) -> None:
        """Called once, on the event loop, when the answer or the failure is known. The connection
        is free again: posting the next request from in here uses it. What this raises goes to the
        exchange's `on_fault`."""


class Idle(list[Any]):
    """The connections of one origin, under one TLS context, that are at rest; shared by the targets
    with both in common."""

    __slots__ = ("__weakref__",)


class Target:
    """Where requests of one endpoint go, and what is the same in each: prepared once.

    Made by `Exchange.target`, and good for that exchange only.
    """

    __slots__ = ("head", "headers", "idle", "origin", "tls", "url")

    def __init__(
        self,
        url: str,
        headers: Iterable[tuple[str, str]],
        idle: list[Any],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        # What was escaped stays as it is; only a URL in other letters is turned into ASCII.
        self.url = URL(url, encoded=url.isascii())
        self.headers = tuple(headers)
        self.origin = origin(self.url)
        """`scheme://host:port`: what counts as one host."""
        self.tls = tls
        """The endpoint's own TLS; None: that of all. Only targets of one origin with the same
        context share connections."""
        path = self.url.raw_path_qs or "/"
        self.head = b"POST %b HTTP/1.1\r\nhost: %b\r\n%b" % (
            path.encode("ascii"),
            (self.url.host_port_subcomponent or "").encode("ascii"),
            header_lines(self.headers),
        )
        """Request line, host and static headers, each line with its end."""
        self.idle = idle
        """The exchange's own: connections to the origin, under this TLS, that are at rest."""


class Exchange(Protocol):
    """What every exchange offers; the conformance tests run against each."""

    on_fault: Callable[[BaseException], None]
    """Told of what a flight's `ended` raised: a fault of ours, which should stop the daemon."""

    def target(
        self, url: str, headers: Iterable[tuple[str, str]], tls: ssl.SSLContext | None = None
    ) -> Target:
        """Prepare an endpoint. `url` has passed `AddressGuard.check_url`; `tls` (a verifying
        context) is for this endpoint instead of the one for all. Raises ValueError for a header
        that would break the request apart."""

    def post(
        self, target: Target, lines: bytes, body: bytes, deadline: float, flight: Flight
    ) -> None:
        """POST `body` with the target's head and `lines` (of this request; see `header_lines`);
        Content-Length is added. `flight.ended` is called when the answer is there, latest at
        `deadline` (monotonic seconds, to a tick of the wheel)."""

    def interrupt(self, flight: Flight | None = None) -> int:
        """End that flight, or all, with INTERRUPTED, before this returns; how many there were."""

    async def close(self) -> None:
        """Interrupt all flights and close every connection."""


def origin(url: URL) -> str:
    """`scheme://host:port`, the same for every spelling that reaches the same connections."""
    return f"{url.scheme}://{url.raw_host}:{url.port}"


def header_lines(headers: Iterable[tuple[str, str]]) -> bytes:
    """Headers as the bytes that go out, each with its line end. Raises ValueError for a name or
    value that RFC 9110, 5.1 and 5.5 forbid (a line end above all)."""
    lines = []
    for name, value in headers:
        if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise ValueError(f"header {name[:64]!r} is not fit to be sent")
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("latin-1")


class _Awaited:
    __slots__ = ("future",)

    def __init__(self) -> None:
        self.future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

    def ended(self, response: Response) -> None:
        if not self.future.done():
            self.future.set_result(response)


async def exchanged(
    exchange: Exchange, target: Target, lines: bytes, body: bytes, deadline: float
) -> Response:
    """`post`, and wait for the end. Cancelled, it interrupts the flight."""
    flight = _Awaited()
    exchange.post(target, lines, body, deadline, flight)
    try:
        return await flight.future
    finally:
        if flight.future.cancelled():
            exchange.interrupt(flight)
