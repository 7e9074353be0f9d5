"""Whether a request verifies, and if not, exactly what is wrong with it.

Whether it verifies is the word of `dispatcherd.receiver.verify`, which receivers use; the rest
explains it. Invariant: pure, `now` is an argument; no finding shows a secret or a signature that
would be right. Leaves out: reading the request (message), trying the ways (search).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from dispatcherd.keys import PRIVATE_PREFIX, PUBLIC_PREFIX, public_key
from dispatcherd.receiver.errors import SecretFormatError, VerificationError
from dispatcherd.receiver.headers import Fields, find_all, read
from dispatcherd.receiver.keys import decode, parse_key
from dispatcherd.receiver.verify import DEFAULT_TOLERANCE_SECONDS, Verifier
from dispatcherd.tools.guesses import ids_of, keys_of
from dispatcherd.tools.message import Message
from dispatcherd.tools.search import (
    Match,
    Signature,
    Signed,
    find_ed25519,
    find_hmac,
    read_signatures,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    code: str
    """A word for programs."""
    says: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Scheme:
    """What the receiver expects."""

    tolerance_seconds: float = DEFAULT_TOLERANCE_SECONDS
    prefix: str = "webhook"
    hex_header: str | None = None


@dataclass(slots=True)
class Diagnosis:
    """What became of it."""

    ok: bool = False
    id: str | None = None
    timestamp: int | None = None
    age_seconds: float | None = None
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def diagnose(message: Message, secrets: Sequence[str], now: float, scheme: Scheme) -> Diagnosis:
    """Verify a request with any of the secrets, at `now` in Unix seconds."""
    found = Diagnosis()
    usable = _usable(secrets, found)
    headers = read(message.headers)
    ids = find_all(headers, f"{scheme.prefix}-id")
    stamps = find_all(headers, f"{scheme.prefix}-timestamp")
    found.id = ids[0].strip() if ids else None
    refusal: VerificationError | None = None
    if usable:
        try:
            verifier = Verifier(
                usable,
                tolerance_seconds=scheme.tolerance_seconds,
                prefix=scheme.prefix,
                hex_header=scheme.hex_header,
            )
            verified = verifier.verify(message.headers, message.body, now)
        except VerificationError as error:
            refusal = error
        except SecretFormatError as error:
            found.findings.append(Finding("secret_format", str(error), "Give another secret"))
            return found
        else:
            found.ok, found.timestamp = True, verified.timestamp
            found.age_seconds = None if verified.timestamp is None else now - verified.timestamp
            found.findings.clear()
    if not found.ok:
        _check_headers(headers, scheme, found)
        if scheme.hex_header is None and stamps:
            _check_timestamp(stamps[0].strip(), now, scheme, found)
    _check_signatures(headers, message.body, secrets, scheme, found)
    if refusal is not None and not found.findings:
        found.findings.append(Finding(refusal.cause, str(refusal), "See the words before"))
    return found


def explain_value(
    value: str, message: Message, secrets: Sequence[str], scheme: Scheme
) -> Diagnosis:
    """How a value that somebody's code computed for this request came about."""
    headers = read(message.headers)
    signed = _signed(headers, message.body, scheme)
    match = _search(read_signatures(value), secrets, signed)
    found = Diagnosis(id=signed.id or None)
    if match is None:
        found.findings.append(
            Finding(
                "value_unknown",
                "the computed value is none that this secret gives over this request, right or "
                "with a known mistake",
                "Check that id, timestamp and body are those of the request, and the secret",
            )
        )
    found.findings += [Finding(m.code, m.says, m.remedy) for m in match.mistakes] if match else []
    found.ok = match is not None and not match.mistakes
    return found


def _usable(secrets: Sequence[str], found: Diagnosis) -> list[str]:
    """The secrets that a receiver could be given; what is wrong with the others is a finding."""
    usable = []
    for place, secret in enumerate(secrets):
        if secret.startswith(PRIVATE_PREFIX):
            try:
                usable.append(public_key(secret))
                found.notes.append(
                    "the sender's private key was given; a receiver needs only the public one"
                )
            except ValueError as error:
                found.findings.append(Finding("secret_format", str(error), "Give the whpk_ key"))
            continue
        try:
            parse_key(secret, place)
            usable.append(secret)
        except SecretFormatError as error:
            says = str(error)
            remedy = "Give the secret as the sender shows it: whsec_ and base64, without a space"
            if secret != secret.strip().strip("\"'"):
                remedy = "Remove the white space or quotes around it"
            found.findings.append(Finding("secret_format", says, remedy))
    return usable


def _check_headers(headers: Fields, scheme: Scheme, found: Diagnosis) -> None:
    names = [f"{scheme.prefix}-id"]
    if scheme.hex_header is None:
        names += [f"{scheme.prefix}-timestamp", f"{scheme.prefix}-signature"]
    else:
        names.append(scheme.hex_header.lower())
    for name in names:
        values = find_all(headers, name)
        if not any(value.strip() for value in values):
            found.findings.append(
                Finding("missing_header", f"the header {name} is missing", _near(headers, name))
            )
        elif len(set(values)) > 1:
            found.findings.append(
                Finding(
                    "duplicate_header",
                    f"the header {name} occurs {len(values)} times with different values",
                    "Remove what adds the second one (a proxy?)",
                )
            )


def _near(headers: Fields, name: str) -> str:
    """What the missing header may have become."""
    tail = name.rpartition("-")[2]
    plain = name.replace("-", "_")
    for other in headers:
        if other in (plain, f"http_{plain}") or (other != name and other.replace("_", "-") == name):
            return f"There is {other}: write it {name} (a server's own form of the name)"
        if other.endswith(f"-{tail}") and find_all(headers, f"{other[: -len(tail)]}signature"):
            prefix = other[: -len(tail) - 1]
            if prefix not in ("x-webhook", "x") and prefix != name.rpartition("-")[0]:
                return f"There is {other}: the sender's headers begin with {prefix} (--prefix)"
    for other, values in headers.items():
        if "signature" in other and re.fullmatch(r"(sha256=)?[0-9a-fA-F]{64}", values[0].strip()):
            return f"There is {other} in hex: the older form is checked with --hex-header {other}"
    return "Copy all headers as they arrived; a proxy or framework may drop some"


def _check_timestamp(stamp: str, now: float, scheme: Scheme, found: Diagnosis) -> None:
    if not re.fullmatch(r"[0-9]{1,12}", stamp):
        says, remedy = "is not a whole number of Unix seconds", "Write seconds since 1970"
        if re.fullmatch(r"[0-9]{13,}", stamp):
            says, remedy = "is not in seconds (milliseconds?)", "Divide by 1000"
        found.findings.append(
            Finding("timestamp_malformed", f"the timestamp {stamp[:40]!r} {says}", remedy)
        )
        return
    found.timestamp = int(stamp)
    found.age_seconds = age = now - found.timestamp
    when = datetime.fromtimestamp(found.timestamp, UTC).isoformat().replace("+00:00", "Z")
    most = f"{scheme.tolerance_seconds:.0f} s are tolerated"
    if age > scheme.tolerance_seconds:
        remedy = (
            "An old capture: verify with --at request. Live: a replay, or a clock that is wrong"
        )
        found.findings.append(Finding("stale", f"signed {age:.0f} s ago, {when}; {most}", remedy))
    elif -age > scheme.tolerance_seconds:
        remedy = "Set the clock of this machine, or the sender's"
        says = f"signed {-age:.0f} s in the future, {when}; {most}"
        found.findings.append(Finding("future", says, remedy))


def _signed(headers: Fields, body: bytes, scheme: Scheme) -> Signed:
    def first(name: str) -> str:
        return next((value.strip() for value in find_all(headers, name)), "")

    webhook_id = first(f"{scheme.prefix}-id")
    others = ids_of(webhook_id, headers, body)
    return Signed(webhook_id, first(f"{scheme.prefix}-timestamp"), body, tuple(others))


def _search(
    signatures: Sequence[Signature], secrets: Sequence[str], signed: Signed
) -> Match | None:
    """The way with the fewest mistakes, over all secrets."""
    matches = []
    for place, secret in enumerate(secrets):
        if secret.startswith((PUBLIC_PREFIX, PRIVATE_PREFIX)):
            try:
                public = public_key(secret) if secret.startswith(PRIVATE_PREFIX) else secret
                raw = decode(public, PUBLIC_PREFIX, "the public key")
            except (ValueError, SecretFormatError):
                continue  # a finding says so
            match = find_ed25519(signatures, place, raw, signed) if len(raw) == 32 else None
        else:
            match = find_hmac(signatures, place, keys_of(secret), signed)
        if match is not None:
            matches.append(match)
    return min(matches, key=lambda match: len(match.mistakes), default=None)


def _check_signatures(
    headers: Fields, body: bytes, secrets: Sequence[str], scheme: Scheme, found: Diagnosis
) -> None:
    name = scheme.hex_header or f"{scheme.prefix}-signature"
    header = " ".join(value.strip() for value in find_all(headers, name))
    if not header:
        return
    if scheme.hex_header is not None:
        _check_hex(header, body, secrets, found)
        return
    signatures = read_signatures(header)
    if found.ok:
        _note_match(signatures, secrets, _signed(headers, body, scheme), found)
        return
    match = _search(signatures, secrets, _signed(headers, body, scheme))
    if match is None:
        found.findings.append(_no_match(header, signatures, secrets))
    elif match.mistakes:
        found.findings += [Finding(m.code, m.says, m.remedy) for m in match.mistakes]
    else:
        found.notes.append("the signature itself is right")


def _note_match(
    signatures: Sequence[Signature], secrets: Sequence[str], signed: Signed, found: Diagnosis
) -> None:
    if len(secrets) < 2 and len(signatures) < 2:
        return
    match = _search(signatures, secrets, signed)
    if match is not None:
        found.notes.append(
            f"secret {match.secret + 1} of {len(secrets)} fits; the request has "
            f"{len(signatures)} signature{'' if len(signatures) == 1 else 's'}"
        )


def _check_hex(header: str, body: bytes, secrets: Sequence[str], found: Diagnosis) -> None:
    if found.ok:
        return
    value = header.removeprefix("sha256=")
    if not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        found.findings.append(
            Finding("signature_form", "the hex signature is not 64 hexadecimal digits",
                    "Send hex(HMAC-SHA256(body))"))  # fmt: skip
        return
    signatures = [Signature("v1", bytes.fromhex(value))]
    # In this form the body alone is right, and what is right elsewhere is a mistake.
    match = _search(signatures, secrets, Signed("", "", body))
    mistakes = [m for m in match.mistakes if m.code != "signed_body_only"] if match else []
    if match is None:
        found.findings.append(_no_match(header, signatures, secrets))
    found.findings += [Finding(m.code, m.says, m.remedy) for m in mistakes]


def _no_match(header: str, signatures: Sequence[Signature], secrets: Sequence[str]) -> Finding:
    if not signatures:
        return Finding(
            "signature_form",
            f"the signature header holds nothing that could be a signature: {header[:60]!r}",
            "It must be v1,<base64> (or v1a,<base64>), several separated by spaces",
        )
    asymmetric = [s.startswith((PUBLIC_PREFIX, PRIVATE_PREFIX)) for s in secrets]
    versions = {signature.version for signature in signatures}
    if versions == {"v1a"} and not any(asymmetric):
        return Finding(
            "version_mismatch",
            "the request is signed with Ed25519 (v1a), and the secret is for HMAC (v1)",
            "Use the sender's public key (whpk_…)",
        )
    if "v1a" not in versions and all(asymmetric):
        return Finding(
            "version_mismatch",
            "the request is signed with HMAC (v1), and the key is for Ed25519 (v1a)",
            "Use the secret (whsec_…)",
        )
    if all(asymmetric):
        return Finding(
            "wrong_key",
            "no v1a signature was made with the private key of this public key over these bytes",
            "Take the key from the sender's published facts; else the body was changed",
        )
    return Finding(
        "wrong_secret",
        "no signature was made with this secret over these bytes, nor over any usual change of "
        "them (JSON written anew, line breaks, encodings, another id or time)",
        "Most likely another endpoint's secret, or one that has been rotated; else the body was "
        "changed in a way that cannot be undone",
    )
