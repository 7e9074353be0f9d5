"""Bytes of one connection in, final answers out: HTTP/1.1 as receivers speak it (RFC 9112).

The grammar is llhttp's, by way of httptools. Invariant: how the bytes are cut into pieces changes
nothing; what is kept of one answer is bounded (head, body, framing, interim answers), whatever
arrives. As lenient as aiohttp's parser with bare line feeds and with spaces behind a chunk's size;
strict with everything by which two readers could disagree where an answer ends. Leaves out: the
connection, and time (http11).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

import httptools

from dispatcherd.delivery import Response

_MOST_INTERIM: Final = 32
_MOST_RETRY_AFTER: Final = 128
_FRAMING_PER_BODY_BYTE: Final = 16
"""A chunk of one byte is framed by five; whatever frames by more than this is up to no good."""
_SHARED_BODY: Final = 64
_TIMEOUT: Final = re.compile(rb"timeout\s*=\s*(\d{1,9})", re.IGNORECASE)


class BadAnswer(Exception):
    """What arrived is no HTTP answer, or more of it than is allowed."""


@lru_cache(maxsize=1_024)
def _plain(status: int, body: bytes) -> Response:
    return Response(status, body=body)


class AnswerReader:
    """Reads one answer after another; asked for the next only when the last was `reusable`."""

    __slots__ = (
        "_body",
        "_body_bytes",
        "_framed",
        "_head_done",
        "_interim",
        "_interims",
        "_max_body",
        "_max_head",
        "_parser",
        "_received",
        "_retry_after",
        "_status",
        "keep_seconds",
        "response",
        "reusable",
    )

    def __init__(self, max_head_bytes: int, max_body_bytes: int) -> None:
        self._max_head = max_head_bytes
        self._max_body = max_body_bytes
        self._parser: Any = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(
            lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self.keep_seconds: float | None = None
        """For how long the receiver says that it keeps the connection when idle (Keep-Alive)."""
        self._reset()

    def _reset(self) -> None:
        self.response: Response | None = None
        """The answer, once it is there."""
        self.reusable = False
        """The connection may serve another request: HTTP says so, and nothing came after."""
        self._status = 0
        self._received = 0
        self._head_done = False
        self._interim = False
        self._interims = 0
        self._framed = False
        self._retry_after: bytes | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0

    @property
    def begun(self) -> bool:
        """Some of an answer has arrived, and not all."""
        return self._received > 0 and self.response is None

    @property
    def status(self) -> int:
        """The final status of the answer that is being read; 0 while its head is not there, and
        between two answers."""
        return 0 if self.response is not None else self._status

    def feed(self, data: bytes) -> Response | None:
        """Take in what arrived; the answer when it is whole (or its body is over the bound).
        Raises BadAnswer; after that, and after an answer that is not `reusable`, no more."""
        if self.response is not None:
            self._reset()
        if not self._head_done:
            room = self._max_head - self._received
            if len(data) > room:
                # The parser gets no more of a head than is allowed, however it was cut.
                self._parse(data[:room])
                if not self._head_done:
                    raise BadAnswer(f"the head is larger than {self._max_head} bytes")
                data = data[room:]
        self._parse(data)
        return self.response

    def end(self) -> Response | None:
        """The peer has closed in good order: the answer, if that is what ends its body."""
        if self.response is None and self._head_done and not self._framed:
            return self._complete(reusable=False)
        return None

    def close(self) -> None:
        """No more is fed. Parser and reader hold each other: this lets both go at once, without
        waiting for a garbage collection."""
        self._parser = None

    def _parse(self, data: bytes) -> None:
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.reusable = False
        except httptools.HttpParserCallbackError as error:
            raise error.__context__ or error from None
        except httptools.HttpParserError as error:
            self.reusable = False
            if self.response is None:
                raise BadAnswer(str(error)) from error
        if self._head_done and self.response is None:
            framing = self._received - self._body_bytes
            if framing > 2 * self._max_head + _FRAMING_PER_BODY_BYTE * self._body_bytes:
                raise BadAnswer("the body is framed by far more bytes than it has")

    def _complete(self, reusable: bool) -> Response:
        body = b"".join(self._body)
        if len(body) > self._max_body:
            body = body[: self._max_body]
        self.reusable = reusable
        if self._retry_after is not None:
            text = self._retry_after.strip()[:_MOST_RETRY_AFTER].decode("latin-1")
            response = Response(self._status, retry_after=text, body=body)
        elif len(body) <= _SHARED_BODY:
            response = _plain(self._status, body)
        else:
            response = Response(self._status, body=body)
        self.response = response
        return response

    # --- called by httptools -----------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.response is not None:
            self.reusable = False  # something follows that nobody asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_done:
            return  # a trailer: RFC 9110, 6.5.1 forbids all that is looked at here
        name = name.lower()
        if name == b"content-length":
            self._framed = True
        elif name == b"transfer-encoding":
            self._framed = value.lower().rstrip().endswith(b"chunked")
        elif name == b"retry-after":
            if self._retry_after is None:
                self._retry_after = value
        elif name == b"keep-alive":
            hint = _TIMEOUT.search(value)
            self.keep_seconds = float(hint[1]) if hint else None

    def on_headers_complete(self) -> None:
        if self.response is not None:
            return
        status: int = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            self._interim = True
            return
        self._status = status
        self._head_done = True

    def on_body(self, data: bytes) -> None:
        if self.response is not None:
            return
        self._body.append(data)
        self._body_bytes += len(data)
        if self._body_bytes > self._max_body:
            self._complete(reusable=False)

    def on_message_complete(self) -> None:
        if self.response is not None:
            return
        if not self._interim:
            self._complete(self._parser.should_keep_alive() and self._status >= 200)
            return
        self._interim = False
        self._retry_after = None
        self._interims += 1
        if self._interims > _MOST_INTERIM:
            raise BadAnswer(f"more than {_MOST_INTERIM} interim (1xx) answers")
