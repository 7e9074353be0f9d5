"""A request as somebody has it at hand: headers pasted from anywhere, a body from a file.

Headers are lines `Name: value` (also behind `-H`, `>` or quotes, as curl shows and takes them), a
JSON object, or JSON pairs; a whole request is HTTP as text, or a JSON object with `headers` and
`body` or `body_base64` (the form that `dispatcherd receive --save` writes). Invariant: the body is
never decoded. Leaves out: what is wrong with it (diagnose).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any

from dispatcherd.errors import DispatcherdError

_is_line = re.compile(
    r"""^\s*(?:[>*]\s+)?(?:-H\s*|--header\s+)?["']?([A-Za-z0-9_-]+)\s*:\s?(.*)$"""
)
_is_request_line = re.compile(r"[A-Z]+ \S+ HTTP/[0-9.]+$")


class MessageError(DispatcherdError):
    """What was pasted cannot be read as headers or as a request."""


@dataclass(frozen=True, slots=True)
class Message:
    """One request."""

    headers: tuple[tuple[str, str], ...]
    body: bytes


def read_headers(text: str) -> tuple[tuple[str, str], ...]:
    """The headers in a pasted text. Raises MessageError naming the line."""
    stripped = text.strip()
    if stripped[:1] in ("{", "["):
        return _pairs(_parsed(stripped))
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip().lstrip("> ")
        if not bare or _is_request_line.match(bare):
            continue
        match = _is_line.match(line)
        if match is None:
            raise MessageError(f"line {number} of the headers is not `Name: value`: {line[:60]!r}")
        found.append((match[1], _value(line, match[2])))
    return tuple(found)


def read_request(content: bytes) -> Message:
    """A whole request. Raises MessageError."""
    if content.lstrip()[:1] == b"{":
        return _from_json(_parsed(content.decode("utf-8", "replace")))
    head, blank, body = content.partition(b"\r\n\r\n")
    if not blank or b"\n\n" in head:
        head, blank, body = content.partition(b"\n\n")
    if not blank:
        raise MessageError(
            "the request has no empty line between headers and body. Give the body with --body"
        )
    return Message(read_headers(head.decode("latin-1")), body)


def _value(line: str, value: str) -> str:
    """Without the quote that closes what curl was given, and its line continuation."""
    value = value.rstrip().removesuffix("\\").rstrip()
    for quote in ("'", '"'):
        if line.split(":", 1)[0].count(quote) % 2 and value.endswith(quote):
            return value[:-1]
    return value.strip()


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"it begins like JSON and is none: {error}") from error


def _pairs(document: Any) -> tuple[tuple[str, str], ...]:
    if isinstance(document, dict):
        pairs = [
            (name, each)
            for name, value in document.items()
            for each in (value if isinstance(value, list) else [value])
        ]
    elif isinstance(document, list) and all(
        isinstance(pair, list) and len(pair) == 2 for pair in document
    ):
        pairs = [(pair[0], pair[1]) for pair in document]
    else:
        raise MessageError("the headers in JSON are neither an object nor a list of pairs")
    return tuple((str(name), str(value)) for name, value in pairs)


def _from_json(document: Any) -> Message:
    if "headers" not in document:
        raise MessageError('the request in JSON has no "headers"')
    body = document.get("body", "")
    try:
        if "body_base64" in document:
            content = base64.b64decode(document["body_base64"], validate=True)
        elif isinstance(body, str):
            content = body.encode("utf-8")
        else:
            raise MessageError(
                '"body" is parsed JSON, and a signature is over bytes: give the body as a text, or '
                'in "body_base64"'
            )
    except (binascii.Error, TypeError, UnicodeEncodeError) as error:
        raise MessageError('"body" or "body_base64" cannot be turned into bytes') from error
    return Message(_pairs(document["headers"]), content)
