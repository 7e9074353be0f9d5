"""What is wrong with a request is named, and nothing else is."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcherd.receiver.signing import new_key_pair, new_secret, sign, sign_headers, sign_hex
from dispatcherd.tools import search
from dispatcherd.tools.diagnose import Diagnosis, Scheme, diagnose, explain_value
from dispatcherd.tools.message import Message

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KEY = base64.b64decode(SECRET.removeprefix("whsec_"))
PLAIN = "c2VjcmV0IHRoYXQgaXMgYmFzZTY0IHRvbw=="
"""A secret without whsec_ that happens to be base64."""
PRIVATE, PUBLIC = new_key_pair()
ID, STAMP = "evt_1", 1_800_000_000
BODY = b'{"id": "evt_9", "type":"order.created",  "data": {"name": "Z\xc3\xbcrich/1", "total": 42}}'
"""Spaced as no serialiser does it."""
COMPACT = json.dumps(json.loads(BODY), separators=(",", ":"), ensure_ascii=False).encode()


def mac(content: bytes, key: bytes = KEY, algorithm: str = "sha256") -> bytes:
    return hmac.digest(key, content, algorithm)


def v1(raw: bytes) -> str:
    return "v1," + base64.b64encode(raw).decode()


def content(body: bytes = BODY, id_: str = ID, stamp: int = STAMP) -> bytes:
    return f"{id_}.{stamp}.".encode() + body


def examine(
    signature: str | None, body: bytes = BODY, *secrets: str, now: float = STAMP, **headers: str
) -> Diagnosis:
    """With the headers of a genuine request but for the signature, and those given."""
    mine = {"webhook-id": ID, "webhook-timestamp": str(STAMP)}
    if signature is not None:
        mine["webhook-signature"] = signature
    mine |= {name.replace("_", "-"): value for name, value in headers.items()}
    message = Message(tuple((n, v) for n, v in mine.items() if v), body)
    return diagnose(message, secrets or (SECRET,), now, Scheme())


def codes(found: Diagnosis) -> list[str]:
    assert not found.ok
    return [finding.code for finding in found.findings]


GOOD = sign(SECRET, ID, STAMP, BODY)


def test_a_genuine_request_is_ok_and_nothing_is_found() -> None:
    found = examine(GOOD, now=STAMP + 12.5)
    assert found.ok and not found.findings
    assert (found.id, found.timestamp, found.age_seconds) == (ID, STAMP, 12.5)


@given(body=st.binary(max_size=200), secret=st.binary(min_size=24, max_size=64))
def test_whatever_a_receiver_takes_is_ok_here(body: bytes, secret: bytes) -> None:
    text = "whsec_" + base64.b64encode(secret).decode()
    message = Message(tuple(sign_headers([text], ID, STAMP, body).items()), body)
    assert diagnose(message, [text], STAMP, Scheme()).ok


# --- time and headers ------------------------------------------------------------------------


@pytest.mark.parametrize(("late", "code"), [(301, "stale"), (-301, "future")])
def test_a_time_outside_the_tolerance_is_the_only_finding_where_the_rest_is_right(
    late: int, code: str
) -> None:
    found = examine(GOOD, now=STAMP + late)
    assert codes(found) == [code] and "301 s" in found.findings[0].says
    assert found.notes == ["the signature itself is right"]


@pytest.mark.parametrize("stamp", ["1800000000000", "2027-01-15T08:00:00Z", "18e8"])
def test_a_timestamp_that_is_none_is_named(stamp: str) -> None:
    signature = v1(mac(f"{ID}.{stamp}.".encode() + BODY))
    found = examine(signature, webhook_timestamp=stamp)
    assert codes(found) == ["timestamp_malformed"]
    assert ("1000" in found.findings[0].remedy) is (stamp == "1800000000000")


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_named(name: str) -> None:
    headers = {**sign_headers([SECRET], ID, STAMP, BODY)}
    del headers[name]
    found = diagnose(Message(tuple(headers.items()), BODY), [SECRET], STAMP, Scheme())
    missing = [f for f in found.findings if f.code == "missing_header"]
    assert not found.ok and len(missing) == 1 and name in missing[0].says


@pytest.mark.parametrize(
    ("rename", "hint"),
    [
        (lambda n: n.replace("webhook", "svix"), "--prefix"),
        (lambda n: "HTTP_" + n.upper().replace("-", "_"), "write it webhook-id"),
        (lambda n: n.replace("-", "_"), "write it webhook-id"),
    ],
)
def test_headers_under_another_name_are_recognised(rename: Any, hint: str) -> None:
    pairs = sign_headers([SECRET], ID, STAMP, BODY).items()
    message = Message(tuple((rename(n), v) for n, v in pairs), BODY)
    found = diagnose(message, [SECRET], STAMP, Scheme())
    assert codes(found) == ["missing_header"] * 3
    assert hint in found.findings[0].remedy


def test_a_request_in_the_hex_form_is_recognised() -> None:
    headers = (("webhook-id", ID), ("x-webhook-signature", sign_hex(SECRET, BODY)))
    found = diagnose(Message(headers, BODY), [SECRET], STAMP, Scheme())
    assert any("--hex-header x-webhook-signature" in f.remedy for f in found.findings)
    scheme = Scheme(hex_header="X-Webhook-Signature")
    assert diagnose(Message(headers, BODY), [SECRET], STAMP, scheme).ok
    changed = diagnose(Message(headers, BODY + b"\n"), [SECRET], STAMP, scheme)
    assert codes(changed) == ["trailing_line_break"]


def test_a_header_that_occurs_twice_with_different_values_is_named() -> None:
    headers = (*sign_headers([SECRET], ID, STAMP, BODY).items(), ("Webhook-Id", "evt_2"))
    found = diagnose(Message(headers, BODY), [SECRET], STAMP, Scheme())
    assert codes(found) == ["duplicate_header"]


# --- the body --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        COMPACT,
        json.dumps(json.loads(BODY)).encode(),
        json.dumps(json.loads(BODY), indent=2).encode(),
        json.dumps(json.loads(BODY), indent=4, ensure_ascii=False).encode() + b"\n",
        json.dumps(json.loads(BODY), separators=(",", ":"), sort_keys=True).encode(),
        COMPACT.replace(b"/", b"\\/"),
    ],
)
def test_a_body_that_was_written_anew_is_recognised_whatever_was_signed(written: bytes) -> None:
    signature = sign(SECRET, ID, STAMP, written)
    assert codes(examine(signature, BODY)) == ["body_reserialised"]


@pytest.mark.parametrize(
    ("came", "signed", "code"),
    [
        (BODY + b"\n", BODY, "trailing_line_break"),
        (BODY + b"\r\n", BODY, "trailing_line_break"),
        (BODY, BODY + b"\n", "trailing_line_break"),
        (b"  " + BODY + b"\t", BODY, "white_space"),
        (b"", BODY, "wrong_secret"),
        (BODY, b"", "body_empty"),
        (b"\xef\xbb\xbf" + BODY, BODY, "byte_order_mark"),
        (b"a\r\nb", b"a\nb", "line_ends"),
        (b"a\nb", b"a\r\nb", "line_ends"),
        (BODY.decode().encode("latin-1"), BODY, "encoding"),
        (BODY.decode("latin-1").encode(), BODY, "encoding"),
        (base64.b64encode(BODY), BODY, "body_base64"),
        (json.dumps(BODY.decode()).encode(), BODY, "body_quoted"),
    ],
)
def test_a_body_that_was_changed_on_the_way_is_recognised(
    came: bytes, signed: bytes, code: str
) -> None:
    assert codes(examine(sign(SECRET, ID, STAMP, signed), came)) == [code]


# --- the secret ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "secret", "code"),
    [
        (SECRET.encode(), SECRET, "secret_undecoded"),
        (SECRET.removeprefix("whsec_").encode(), SECRET, "secret_undecoded"),
        (f"{SECRET}\n".encode(), SECRET, "secret_line_break"),
        (base64.b64decode(PLAIN), PLAIN, "secret_decoded"),
        (bytes(range(32)), bytes(range(32)).hex(), "secret_decoded"),
    ],
)
def test_a_key_made_of_the_secret_in_the_wrong_way_is_recognised(
    key: bytes, secret: str, code: str
) -> None:
    assert codes(examine(v1(mac(content(), key)), BODY, secret)) == [code]


def test_another_secret_is_the_finding_where_nothing_else_fits() -> None:
    assert codes(examine(sign(new_secret(), ID, STAMP, BODY))) == ["wrong_secret"]


@pytest.mark.parametrize(
    "secret", [SECRET + " ", f'"{SECRET}"', "whsec_%%%%", "whsec_AAAA", "short"]
)
def test_a_secret_that_is_none_is_named_and_not_shown(secret: str) -> None:
    found = examine(GOOD, BODY, secret)
    assert "secret_format" in codes(found) or secret.startswith('"')
    shown = json.dumps([f.says + f.remedy for f in found.findings])
    assert SECRET not in shown and "%%%%" not in shown


def test_while_a_secret_is_rotated_it_says_which_one_fits() -> None:
    signature = " ".join(sign(s, ID, STAMP, BODY) for s in (new_secret(), SECRET))
    found = examine(signature, BODY, new_secret(), SECRET)
    assert found.ok
    assert found.notes == ["secret 2 of 2 fits; the request has 2 signatures"]


# --- the signature ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        ("v1," + mac(content()).hex(), ["signature_hex"]),
        (mac(content()).hex(), ["signature_form", "signature_hex"]),
        (base64.b64encode(mac(content())).decode(), ["signature_form"]),
        ("v1=" + base64.b64encode(mac(content())).decode(), ["signature_form"]),
        ("v1," + base64.b64encode(mac(content()).hex().encode()).decode(), ["signature_hex"]),
        ("v1," + base64.urlsafe_b64encode(mac(content())).decode().rstrip("="),
         ["signature_base64"]),
        (v1(mac(content(), algorithm="sha512")), ["algorithm"]),
        (v1(mac(content(), algorithm="sha1")), ["algorithm"]),
        ("nothing at all", ["signature_form"]),
    ],
)  # fmt: skip
def test_a_signature_in_another_form_is_recognised(signature: str, expected: list[str]) -> None:
    assert codes(examine(signature)) == expected


@pytest.mark.parametrize(
    ("signed", "code"),
    [
        (BODY, "signed_body_only"),
        (f"{STAMP}.".encode() + BODY, "signed_without_id"),
        (f"{ID}.".encode() + BODY, "signed_without_timestamp"),
        (f"{ID}{STAMP}".encode() + BODY, "signed_without_dots"),
        (f"{STAMP}.{ID}.".encode() + BODY, "signed_in_another_order"),
        (content(stamp=STAMP * 1000), "signed_milliseconds"),
        (content(id_="evt_9"), "id_mismatch"),
        (content(stamp=STAMP - 5), "timestamp_mismatch"),
        (content(stamp=STAMP + 3_600), "timestamp_mismatch"),
    ],
)
def test_other_content_than_id_timestamp_and_body_is_recognised(signed: bytes, code: str) -> None:
    assert codes(examine(v1(mac(signed)))) == [code]


def test_the_right_way_is_tried_first_whatever_the_bodys_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "_MOST_HASHED_BYTES", 1_000)  # room for one way or two
    body = b'{"a": "' + b"x" * 500 + b'"}'
    found = examine(sign(SECRET, ID, STAMP, body), body, now=STAMP + 900)
    assert codes(found) == ["stale"] and found.notes == ["the signature itself is right"]


def test_mistakes_that_came_together_are_all_named() -> None:
    signature = mac(content(COMPACT), SECRET.encode()).hex()
    found = examine(f"v1,{signature}", BODY + b"\n", now=STAMP + 900)
    assert set(codes(found)) == {"stale", "signature_hex", "secret_undecoded", "body_reserialised"}


# --- Ed25519 ---------------------------------------------------------------------------------


def test_ed25519_is_diagnosed_too() -> None:
    good = sign(PRIVATE, ID, STAMP, BODY)
    assert examine(good, BODY, PUBLIC).ok
    with_private = examine(good, BODY, PRIVATE)
    assert with_private.ok and "needs only the public one" in with_private.notes[0]
    assert codes(examine(good, BODY, new_key_pair()[1])) == ["wrong_key"]
    assert codes(examine(good, BODY + b"\n", PUBLIC)) == ["trailing_line_break"]
    assert codes(examine(good, COMPACT, PUBLIC)) == ["wrong_key"]
    assert codes(examine(sign(PRIVATE, ID, STAMP, COMPACT), BODY, PUBLIC)) == ["body_reserialised"]
    assert codes(examine(sign(PRIVATE, ID, STAMP - 3, BODY), BODY, PUBLIC)) == [
        "timestamp_mismatch"
    ]
    assert codes(examine(good, BODY, SECRET)) == ["version_mismatch"]
    assert codes(examine(GOOD, BODY, PUBLIC)) == ["version_mismatch"]


# --- a value that somebody computed ----------------------------------------------------------


def test_a_computed_value_is_explained() -> None:
    message = Message(tuple(sign_headers([SECRET], ID, STAMP, BODY).items()), BODY)

    def explained(value: str) -> list[str]:
        found = explain_value(value, message, [SECRET], Scheme())
        assert found.ok is (not found.findings)
        return [finding.code for finding in found.findings]

    assert explained(GOOD) == []
    assert explained(mac(BODY, SECRET.encode()).hex()) == [
        "signature_form", "signature_hex", "secret_undecoded", "signed_body_only",
    ]  # fmt: skip
    assert explained("v1," + base64.b64encode(hashlib.sha256(BODY).digest()).decode()) == [
        "value_unknown"
    ]


@given(signature=st.text(max_size=80), body=st.binary(max_size=50), secret=st.text(max_size=40))
def test_any_input_at_all_is_diagnosed(signature: str, body: bytes, secret: str) -> None:
    found = examine(signature, body, secret or "x")
    assert found.ok or found.findings
