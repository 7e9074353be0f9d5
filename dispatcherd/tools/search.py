"""Which way of signing gives the signature that is there: the right one, or which mistakes.

Invariant: pure; ways with fewer mistakes are tried first; what is hashed altogether is bounded,
whatever the body's size. Leaves out: the words around a finding (diagnose).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from dispatcherd.receiver.keys import Ed25519Key
from dispatcherd.tools.guesses import Guess, bodies_of

_MOST_HASHED_BYTES = 256 * 1_048_576
_MOST_MISTAKES = 3
_CLOCK_SECONDS = 3_600
_CLOCK_SECONDS_ED25519 = 60
"""Timestamps that far around the header's are tried; checking Ed25519 costs more."""
_ALGORITHMS = {20: "sha1", 32: "sha256", 48: "sha384", 64: "sha512"}
_is_hex = re.compile(r"[0-9a-fA-F]+").fullmatch


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature as it stands in the header: its bytes, and how the text strays from
    `version,base64`."""

    version: str
    raw: bytes
    strays: tuple[Guess, ...] = ()


def read_signatures(header: str) -> list[Signature]:
    """Everything in a signature header that may be a signature."""
    found = []
    for token in re.split(r"[ ]+|,(?=v\d)", header.strip().strip("\"'")):
        version, comma, text = token.partition(",")
        strays: list[Guess] = []
        if not comma:
            version, text = "v1", token
            match = re.match(r"(v1a?|sha256|sha1|sha512)[=:](?=.)", token)
            text = token[match.end() :] if match else token
            if match and match[1].startswith("v1"):
                version = match[1]
            strays.append(
                Guess(b"", "signature_form", "it is not written `v1,<base64>`",
                      "Write the version, a comma, and the base64: v1,<base64>"))  # fmt: skip
        found += [
            Signature(version, raw, (*strays, *more))
            for raw, more in _decoded(text)
            if len(raw) in _ALGORITHMS
        ]
    return found


def _decoded(text: str) -> Iterator[tuple[bytes, tuple[Guess, ...]]]:
    if _is_hex(text) and len(text) in (40, 64, 96, 128):
        yield bytes.fromhex(text), (
            Guess(b"", "signature_hex", "the signature is hex, not base64",
                  "Encode the digest's bytes as base64. (The older hex form is a header of its "
                  "own: --hex-header)"),
        )  # fmt: skip
        return
    with suppress(binascii.Error, ValueError):  # it is none: then perhaps the next
        raw = base64.b64decode(text, validate=True)
        as_text = raw.decode("ascii", "replace")
        if _is_hex(as_text) and len(raw) in (40, 64, 128):
            yield bytes.fromhex(as_text), (
                Guess(b"", "signature_hex", "the signature is base64 of the hex text",
                      "Encode the digest's bytes as base64, not its hex text"),
            )  # fmt: skip
        else:
            yield raw, ()
        return
    with suppress(binascii.Error, ValueError):  # it is none: there is nothing to compare
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        yield raw, (
            Guess(b"", "signature_base64", "the signature is base64url or lacks its padding",
                  "Use the standard alphabet (+ and /) with padding"),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Match:
    """A way that gives one of the signatures; `mistakes` is empty for the right way."""

    secret: int
    """Which of the secrets, from 0."""
    mistakes: tuple[Guess, ...]


@dataclass(frozen=True, slots=True)
class Signed:
    """What is known of a request that somebody signed."""

    id: str
    stamp: str
    body: bytes
    other_ids: Sequence[str] = ()


def contents_of(signed: Signed) -> list[Guess]:
    """What stands before the body in what is signed, the right way first."""
    identity, stamp = signed.id, signed.stamp
    remedy = "Sign `id.timestamp.body`, with the values of the headers"
    ways = [
        Guess(f"{identity}.{stamp}.".encode()),
        Guess(b"", "signed_body_only", "the body alone was signed", remedy),
        Guess(f"{stamp}.".encode(), "signed_without_id", "`timestamp.body` was signed", remedy),
        Guess(f"{identity}.".encode(), "signed_without_timestamp", "`id.body` was signed", remedy),
        Guess(f"{identity}{stamp}".encode(), "signed_without_dots",
              "id, timestamp and body were signed without dots between them", remedy),
        Guess(f"{stamp}.{identity}.".encode(), "signed_in_another_order",
              "`timestamp.id.body` was signed", remedy),
    ]  # fmt: skip
    ways += [
        Guess(f"{other}.{stamp}.".encode(), "id_mismatch",
              f"the signature is for the id {other}, and the header says {identity}",
              "Take the id from the webhook-id header of the same request")
        for other in dict.fromkeys(signed.other_ids)
        if other != identity
    ]  # fmt: skip
    if stamp.isdigit():
        ways.append(
            Guess(f"{identity}.{int(stamp) * 1000}.".encode(), "signed_milliseconds",
                  "the timestamp was signed in milliseconds", "Sign whole seconds"))  # fmt: skip
    return ways


def _moments(signed: Signed, most: int) -> Iterator[Guess]:
    if not signed.stamp.isdigit() or len(signed.stamp) > 12:
        return
    stamp = int(signed.stamp)
    for distance in range(1, most + 1):
        for other in (stamp - distance, stamp + distance):
            yield Guess(
                f"{signed.id}.{other}.".encode(), "timestamp_mismatch",
                f"the signature is for the timestamp {other}, and the header says {stamp}",
                "Take the timestamp from the webhook-timestamp header of the same request",
            )  # fmt: skip


def _ways(signed: Signed, keys: Sequence[Guess]) -> Iterator[tuple[Guess, Guess, Guess]]:
    """(key, content, body), those with fewer mistakes first; hashing is bounded."""
    bodies = list(bodies_of(signed.body))
    contents = contents_of(signed)
    hashed = 0
    for most in range(_MOST_MISTAKES + 1):
        for key in keys:
            for content in contents:
                for body in bodies:
                    if sum(bool(g.code) for g in (key, content, body)) == most:
                        hashed += len(body.value) + 200
                        if hashed > _MOST_HASHED_BYTES:
                            return
                        yield key, content, body


def find_hmac(
    signatures: Sequence[Signature], secret: int, keys: Sequence[Guess], signed: Signed
) -> Match | None:
    """How one of the signatures was made with a key of that secret, if it was."""
    wanted = {signature.raw: signature for signature in signatures if signature.version != "v1a"}
    sizes = {len(raw) for raw in wanted} & set(_ALGORITHMS)
    right = [key for key in keys if not key.code]

    def found(key: Guess, content: Guess, body: Guess) -> Match | None:
        for size in sizes:
            digest = hmac.digest(key.value, content.value + body.value, _ALGORITHMS[size])
            if digest in wanted:
                mistakes = [*wanted[digest].strays, key, content, body]
                if size != 32:
                    mistakes.append(
                        Guess(b"", "algorithm", f"it is HMAC with {_ALGORITHMS[size].upper()}",
                              "Use HMAC with SHA-256"))  # fmt: skip
                return Match(secret, tuple(guess for guess in mistakes if guess.code))
        return None

    for way in _ways(signed, keys):
        if (match := found(*way)) is not None:
            return match
    budget = _MOST_HASHED_BYTES // (2 * (len(signed.body) + 200) * max(len(right), 1))
    for moment in _moments(signed, min(_CLOCK_SECONDS, budget)):
        for key in right:
            if (match := found(key, moment, Guess(signed.body))) is not None:
                return match
    return None


def find_ed25519(
    signatures: Sequence[Signature], secret: int, public: bytes, signed: Signed
) -> Match | None:
    """How one of the signatures was made with the private key of that public one, if it was."""
    key = Ed25519Key(public)
    wanted = [signature for signature in signatures if len(signature.raw) == 64]
    if not wanted:
        return None
    ways = [(content, body) for _, content, body in _ways(signed, [Guess(b"")])]
    ways += [(moment, Guess(signed.body)) for moment in _moments(signed, _CLOCK_SECONDS_ED25519)]
    for content, body in ways:
        verifies = key.checker(content.value + body.value)
        for signature in wanted:
            if verifies(base64.b64encode(signature.raw).decode()):
                mistakes = [*signature.strays, content, body]
                return Match(secret, tuple(guess for guess in mistakes if guess.code))
    return None
