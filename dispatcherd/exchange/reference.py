"""The reference: the seam kept by aiohttp's ClientSession, a task for each request.

Invariant: as `Exchange`. It is what the fast exchange is held against, in the conformance tests
and in the bench. Leaves out: speed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import aiohttp

from dispatcherd.address import AddressGuard
from dispatcherd.config.model import NetworkConfig
from dispatcherd.delivery import Reason, Response
from dispatcherd.exchange.classify import failed
from dispatcherd.exchange.http11 import INTERRUPTED, TIMED_OUT
from dispatcherd.exchange.seam import Flight, Target
from dispatcherd.pool import connector, own_addresses
from dispatcherd.wheel import Wheel

_CONNECT_TIMED_OUT = "not connected by the deadline"
_FAILURES = (aiohttp.ClientError, OSError, ValueError, UnicodeError)


class ClientSessionExchange:
    """See `Exchange`."""

    def __init__(
        self,
        config: NetworkConfig,
        wheel: Wheel,
        clock: Callable[[], float],
        pool: aiohttp.TCPConnector | None = None,
    ) -> None:
        """`pool`: a connector made elsewhere (tests, with their own authority for TLS)."""
        self.on_fault: Callable[[BaseException], None] = _raise_in_loop
        self._wheel = wheel
        self._clock = clock
        self._max_body = config.max_response_body_bytes
        self._flights: dict[asyncio.Task[Response], Flight] = {}
        guard = AddressGuard(config.allowed_networks, own_addresses())
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_note_sent)
        self._session = aiohttp.ClientSession(
            connector=pool or connector(config, guard),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(
                total=None, connect=None, sock_connect=None, sock_read=None
            ),
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
            max_line_size=min(8_190, config.max_response_header_bytes),
            max_field_size=min(8_190, config.max_response_header_bytes),
            trace_configs=[trace],
        )

    def target(
        self, url: str, headers: Iterable[tuple[str, str]], tls: ssl.SSLContext | None = None
    ) -> Target:
        """See `Exchange`."""
        return Target(url, headers, [], tls)

    def post(
        self, target: Target, lines: bytes, body: bytes, deadline: float, flight: Flight
    ) -> None:
        """See `Exchange`."""
        task = asyncio.get_running_loop().create_task(self._fly(target, lines, body, deadline))
        self._flights[task] = flight
        task.add_done_callback(self._landed)

    def interrupt(self, flight: Flight | None = None) -> int:
        """See `Exchange`."""
        under_way = [t for t, f in self._flights.items() if flight is None or f is flight]
        for task in under_way:
            task.cancel()
            self._end(task, Response(0, Reason.INTERRUPTED, INTERRUPTED))
        return len(under_way)

    async def close(self) -> None:
        """See `Exchange`."""
        tasks = list(self._flights)
        self.interrupt()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close()

    def _landed(self, task: asyncio.Task[Response]) -> None:
        if task.cancelled():
            response = Response(0, Reason.INTERRUPTED, INTERRUPTED)
        elif (error := task.exception()) is not None:
            self.on_fault(error)
            return
        else:
            response = task.result()
        self._end(task, response)

    def _end(self, task: asyncio.Task[Response], response: Response) -> None:
        flight = self._flights.pop(task, None)
        if flight is None:
            return
        try:
            flight.ended(response)
        except BaseException as error:
            self.on_fault(error)

    async def _fly(self, target: Target, lines: bytes, body: bytes, deadline: float) -> Response:
        """A 2xx whose body breaks off is no success: the receiver may have failed while it
        answered; its status is kept beside the failure."""
        status = 0
        sent = SimpleNamespace(sent=False)
        try:
            async with asyncio.timeout(None) as scope:
                timer = self._wheel.schedule(deadline, _expire, scope)
                try:
                    async with self._session.post(
                        target.url,
                        data=body,
                        headers=[*target.headers, *_parsed(lines)],
                        allow_redirects=False,
                        ssl=target.tls or True,
                        trace_request_ctx=sent,
                    ) as answer:
                        status = answer.status
                        content = await self._read(answer)
                        retry_after = answer.headers.get("Retry-After")
                finally:
                    self._wheel.cancel(timer)
        except TimeoutError as error:
            if not scope.expired():
                return failed(error, status, sent.sent)
            if sent.sent:
                return Response(status, Reason.TIMEOUT, TIMED_OUT)
            return Response(0, Reason.CONNECT_TIMEOUT, _CONNECT_TIMED_OUT, sent=False)
        except _FAILURES as error:
            return failed(error, status, sent.sent)
        return Response(
            status,
            retry_after=None if retry_after is None else retry_after[:128],
            body=content,
        )

    async def _read(self, answer: aiohttp.ClientResponse) -> bytes:
        """The body up to the bound. A longer one is cut, and its connection closed."""
        limit = self._max_body
        content = bytearray()
        while True:
            chunk = await answer.content.read(limit - len(content) + 1)
            if not chunk:
                return bytes(content)
            content += chunk
            if len(content) > limit:
                answer.close()
                return bytes(content[:limit])


def _parsed(lines: bytes) -> list[tuple[str, str]]:
    split = (line.split(": ", 1) for line in lines.decode("latin-1").split("\r\n") if line)
    return [(name, value) for name, value in split]


async def _note_sent(_session: object, context: Any, _params: object) -> None:
    context.trace_request_ctx.sent = True


def _expire(scope: asyncio.Timeout) -> None:
    if not scope.expired():
        scope.reschedule(asyncio.get_running_loop().time())


def _raise_in_loop(error: BaseException) -> None:
    asyncio.get_running_loop().call_exception_handler(
        {"message": "a flight's end raised", "exception": error}
    )
