"""What else may have been signed, or with what: the usual mistakes, each with its name and words.

Invariant: pure; the right way comes first in each list, so that a mistake is named only where the
right way does not fit. Leaves out: trying them (diagnose).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any

from dispatcherd.keys import PRIVATE_PREFIX, PUBLIC_PREFIX, SECRET_PREFIX, parse_key
from dispatcherd.receiver.errors import SecretFormatError
from dispatcherd.receiver.keys import decode

_MOST_JSON_BYTES = 1_048_576


@dataclass(frozen=True, slots=True)
class Guess:
    """One way to come to the bytes; `code` is empty for the right way."""

    value: bytes
    code: str = ""
    says: str = ""
    remedy: str = ""


def keys_of(secret: str) -> list[Guess]:
    """The HMAC keys that somebody might have made of a secret; none for keys of Ed25519."""
    if secret.startswith((PRIVATE_PREFIX, PUBLIC_PREFIX)):
        return []
    found = []
    with suppress(ValueError):  # no good secret: somebody may have used its text all the same
        key = parse_key(secret)
        if isinstance(key, bytes):
            found.append(Guess(key))
    remedy = "Remove whsec_ and base64-decode the rest: those bytes are the key"
    bare = secret.strip().removeprefix(SECRET_PREFIX)
    if secret.startswith(SECRET_PREFIX):
        found += [
            Guess(
                secret.encode(),
                "secret_undecoded",
                "the key was the text of the secret, whsec_ and all",
                remedy,
            ),
            Guess(
                bare.encode(),
                "secret_undecoded",
                "the key was the text after whsec_, not base64-decoded",
                remedy,
            ),
        ]
    else:
        remedy = (
            "A secret without whsec_ is the key as it stands. Sender and receiver must agree: best "
            "is a secret that begins with whsec_ (`dispatcherd keys new`)"
        )
        found += [
            Guess(
                raw,
                "secret_decoded",
                f"the secret has no whsec_, and the key was its {form}-decoded bytes",
                remedy,
            )
            for form, raw in _decodings(bare)
        ]
    for ending in ("\n", "\r\n"):
        found.append(
            Guess(
                (secret + ending).encode(),
                "secret_line_break",
                "the key was the secret's text with the line break of its file",
                "Strip the line break after reading the file",
            )
        )
    return found


def _decodings(text: str) -> Iterator[tuple[str, bytes]]:
    with suppress(SecretFormatError):  # not base64: no guess
        yield "base64", decode(text, "", "the secret")
    with suppress(ValueError):  # not hex: no guess
        yield "hex", bytes.fromhex(text)


_BODY_REMEDY = (
    "Verify the bytes that arrived, before anything parses or changes them (a framework's raw body)"
)
_LAYOUTS: dict[str, dict[str, Any]] = {
    "compact": {"separators": (",", ":")},
    "with spaces after `,` and `:`": {},
    "indented by 2": {"indent": 2},
    "indented by 4": {"indent": 4},
    "indented by tabs": {"indent": "\t"},
}


def bodies_of(body: bytes) -> Iterator[Guess]:
    """The body, then what it may have been before somebody changed it, cheapest first."""
    yield Guess(body)
    line = "Send and verify the same bytes: editors, echo and here-documents add a line break"
    for ending in (b"\r\n", b"\n"):
        if body.endswith(ending):
            yield Guess(
                body.removesuffix(ending),
                "trailing_line_break",
                "the body has a line break at its end that was not signed",
                line,
            )
    for ending in (b"\n", b"\r\n"):
        yield Guess(
            body + ending,
            "trailing_line_break",
            "a line break was signed at the body's end that is not there now",
            line,
        )
    if body != body.strip():
        yield Guess(
            body.strip(), "white_space", "white space around the body was not signed", _BODY_REMEDY
        )
    if body:
        yield Guess(
            b"",
            "body_empty",
            "an empty body was signed",
            "Something had read the body already: keep its bytes and verify those",
        )
    yield from _texts(body)
    yield from _wrapped(body)
    if len(body) <= _MOST_JSON_BYTES:
        yield from _written_anew(body)


def _texts(body: bytes) -> Iterator[Guess]:
    if body.startswith(b"\xef\xbb\xbf"):
        yield Guess(
            body[3:],
            "byte_order_mark",
            "a byte order mark stands before the body",
            "Save and send it without one",
        )
    if b"\r\n" in body:
        yield Guess(
            body.replace(b"\r\n", b"\n"),
            "line_ends",
            "its line ends are CRLF, and LF was signed",
            _BODY_REMEDY,
        )
    elif b"\n" in body:
        yield Guess(
            body.replace(b"\n", b"\r\n"),
            "line_ends",
            "its line ends are LF, and CRLF was signed",
            _BODY_REMEDY,
        )
    if not body.isascii():
        for of, to in (
            ("utf-8", "latin-1"),
            ("latin-1", "utf-8"),
            ("utf-8", "cp1252"),
            ("cp1252", "utf-8"),
        ):
            try:
                changed = body.decode(of).encode(to)
            except UnicodeError:
                continue  # it cannot have been that
            yield Guess(
                changed,
                "encoding",
                f"the body was decoded and encoded again (it is {to} read as {of})",
                _BODY_REMEDY,
            )


def _wrapped(body: bytes) -> Iterator[Guess]:
    with suppress(binascii.Error, ValueError):  # not base64: no guess
        yield Guess(
            base64.b64decode(body.strip(), validate=True),
            "body_base64",
            "the body is base64 of what was signed",
            "Decode it first (AWS: when isBase64Encoded is true)",
        )
    if body.lstrip()[:1] == b'"':
        document = _parsed(body)
        if isinstance(document, str):
            yield Guess(
                document.encode("utf-8", "replace"),
                "body_quoted",
                "the body is a JSON string that holds what was signed",
                "It was serialised twice: use the bytes as they came",
            )


def _written_anew(body: bytes) -> Iterator[Guess]:
    document = _parsed(body)
    if document is None:
        return
    seen = {body}
    for layout, options in _LAYOUTS.items():
        for plain, by_key, slashes in product((True, False), (False, True), (False, True)):
            text = json.dumps(document, ensure_ascii=not plain, sort_keys=by_key, **options)
            if slashes:
                text = text.replace("/", "\\/")
            more = ("", ", non-ASCII escaped")[not plain] + ("", ", keys sorted")[by_key]
            for ending in ("", "\n"):
                guess = (text + ending).encode("utf-8", "replace")
                if guess in seen:
                    continue
                seen.add(guess)
                words = f"{layout}{more}{', slashes escaped' if slashes else ''}"
                yield Guess(
                    guess,
                    "body_reserialised",
                    f"the body is JSON written anew; what was signed is {words}"
                    + (", with a line break" if ending else ""),
                    _BODY_REMEDY,
                )


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def ids_of(webhook_id: str, headers: dict[str, list[str]], body: bytes) -> Iterator[str]:
    """Other ids that the request holds."""
    for name, values in headers.items():
        if name.endswith("-id"):
            yield from values
    document = _parsed(body) if len(body) <= _MOST_JSON_BYTES else None
    for member in document if isinstance(document, list) else [document]:
        if isinstance(member, dict) and isinstance(member.get("id"), str | int):
            yield str(member["id"])
    yield from (webhook_id.lower(), webhook_id.strip('"'))
