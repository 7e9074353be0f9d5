"""The reader of answers: however the bytes are cut, and whatever they are."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcherd.delivery import Response
from dispatcherd.exchange.answer import AnswerReader, BadAnswer

_MAX_HEAD = 1_024
_MAX_BODY = 512


@dataclass
class Answer:
    """As a receiver meant it."""

    data: bytes
    status: int
    body: bytes
    retry_after: str | None


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """A whole answer after which the connection goes on."""
    status = draw(st.sampled_from([200, 201, 204, 304, 400, 410, 429, 500, 503, 599]))
    bodiless = status in (204, 304)
    body = b"" if bodiless else draw(st.binary(max_size=_MAX_BODY))
    retry_after = draw(st.sampled_from([None, "5", "Fri, 31 Dec 1999 23:59:59 GMT", "soon"]))
    interim = b"HTTP/1.1 103 X\r\nRetry-After: 1\r\n\r\n" * draw(st.integers(0, 3))
    headers = draw(st.sampled_from([b"", b"Date: x\r\n", b"x-long: %b\r\n" % (b"y" * 300)]))
    if retry_after is not None:
        headers += b"retry-after: %b\r\n" % retry_after.encode()
    head = b"%bHTTP/1.1 %d Reason\r\n%b" % (interim, status, headers)
    if bodiless:
        return Answer(head + b"\r\n", status, body, retry_after)
    if draw(st.booleans()):
        length = b"Content-Length: %d\r\n\r\n" % len(body)
        return Answer(head + length + body, status, body, retry_after)
    size = draw(st.integers(1, 200))
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(chunk), chunk)
        for chunk in (body[i : i + size] for i in range(0, len(body), size))
    )
    framed = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    return Answer(framed, status, body, retry_after)


def cut(data: bytes, draw: st.DrawFn) -> list[bytes]:
    """The same bytes in pieces."""
    places = sorted(draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=12)))
    edges = [0, *[place for place in places if place < len(data)], len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@settings(max_examples=300)
@given(st.data(), st.lists(answers(), min_size=1, max_size=5))
def test_answers_are_read_as_they_were_meant_however_they_are_cut(
    data: st.DataObject, meant: list[Answer]
) -> None:
    reader = AnswerReader(_MAX_HEAD, _MAX_BODY)
    for one in meant:
        pieces = cut(one.data, data.draw)
        for piece in pieces[:-1]:
            assert reader.feed(piece) is None
            assert reader.begun
        response = reader.feed(pieces[-1])
        assert response == Response(one.status, retry_after=one.retry_after, body=one.body)
        assert reader.reusable
        assert not reader.begun
        assert reader.status == 0


@settings(max_examples=300)
@given(st.data(), answers(), st.binary(min_size=1, max_size=40))
def test_what_follows_an_answer_ends_the_connection(
    data: st.DataObject, meant: Answer, more: bytes
) -> None:
    """Line ends alone are let pass (RFC 9112, 2.2), as long as nothing follows them."""
    reader = AnswerReader(_MAX_HEAD, _MAX_BODY)
    response = reader.feed(meant.data + more)
    assert response == Response(meant.status, retry_after=meant.retry_after, body=meant.body)
    assert reader.reusable == (more.strip(b"\r\n") == b"")


@settings(max_examples=500)
@given(st.lists(st.binary(min_size=1, max_size=300), max_size=20), st.binary(max_size=60))
def test_any_bytes_give_an_answer_or_a_bad_one_and_stay_within_bounds(
    pieces: list[bytes], start: bytes
) -> None:
    reader = AnswerReader(_MAX_HEAD, _MAX_BODY)
    for piece in [b"HTTP/1.1 200 OK\r\n" + start, *pieces]:
        try:
            response = reader.feed(piece)
        except BadAnswer:
            return
        if response is not None:
            assert len(response.body) <= _MAX_BODY
            if not reader.reusable:
                return


@pytest.mark.parametrize("step", [1, 13, 5_000])
def test_a_head_is_read_to_its_bound_and_no_further(step: int) -> None:
    def head(size: int) -> bytes:
        shell = len(b"HTTP/1.1 204 X\r\nA: \r\n\r\n")
        return b"HTTP/1.1 204 X\r\nA: %b\r\n\r\n" % (b"a" * (size - shell))

    def read(data: bytes) -> Response | None:
        reader = AnswerReader(_MAX_HEAD, _MAX_BODY)
        last = None
        for start in range(0, len(data), step):
            last = reader.feed(data[start : start + step])
        return last

    assert read(head(_MAX_HEAD)) == Response(204)
    with pytest.raises(BadAnswer, match="larger than 1024 bytes"):
        read(head(_MAX_HEAD + 1))


def test_a_head_at_its_bound_does_not_cost_its_body() -> None:
    shell = len(b"HTTP/1.1 200 X\r\nContent-Length: 500\r\nA: \r\n\r\n")
    head = b"HTTP/1.1 200 X\r\nContent-Length: 500\r\nA: %b\r\n\r\n" % (b"a" * (_MAX_HEAD - shell))
    reader = AnswerReader(_MAX_HEAD, _MAX_BODY)
    assert reader.feed(head + b"b" * 500) == Response(200, body=b"b" * 500)
    assert reader.reusable


def test_interim_answers_are_counted() -> None:
    reader = AnswerReader(1 << 20, _MAX_BODY)
    assert reader.feed(b"HTTP/1.1 100 X\r\n\r\n" * 32) is None
    with pytest.raises(BadAnswer, match="more than 32 interim"):
        reader.feed(b"HTTP/1.1 100 X\r\n\r\n")


def test_the_end_completes_only_a_body_that_has_no_other_end() -> None:
    def ended(data: bytes) -> Response | None:
        reader = AnswerReader(_MAX_HEAD, _MAX_BODY)
        if data:
            assert reader.feed(data) is None
        return reader.end()

    head = b"HTTP/1.1 200 X\r\n"
    assert ended(head + b"\r\nabc") == Response(200, body=b"abc")
    assert ended(head + b"\r\n") == Response(200)
    assert ended(head + b"Transfer-Encoding: gzip\r\n\r\nabc") == Response(200, body=b"abc")
    assert ended(head + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n") is None
    assert ended(head + b"Content-Length: 4\r\n\r\nabc") is None
    assert ended(head) is None
    assert ended(b"") is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"timeout=5", 5), (b"max=9, timeout = 30", 30), (b"Timeout=0", 0), (b"timeout", None),
     (b"", None), (b"timeout=9999999999999", 999999999)],
)  # fmt: skip
def test_the_receivers_keep_alive_is_read(value: bytes, seconds: float | None) -> None:
    reader = AnswerReader(_MAX_HEAD, _MAX_BODY)
    reader.feed(b"HTTP/1.1 204 X\r\nKeep-Alive: %b\r\n\r\n" % value)
    assert reader.keep_seconds == seconds
