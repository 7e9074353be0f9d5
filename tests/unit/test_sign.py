"""Signatures: the published vector, and the reference implementation as the oracle."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from dispatcherd.keys import parse_key
from dispatcherd.receiver import NoMatchingSignature
from dispatcherd.receiver.verify import Verifier
from dispatcherd.sign import Signer

KEY = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
OTHER_KEY = b"n" * 24
PRIVATE = (
    "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
)
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
NOW = 1_800_000_000

_ids = st.from_regex(r"[A-Za-z0-9_:@/+=~-]{1,256}", fullmatch=True)
_keys = st.binary(min_size=24, max_size=64)
_texts = st.text(max_size=2_000)
"""The oracle decodes a body, so that it can only be asked about text."""


def now() -> int:
    """The oracle refuses a timestamp that is five minutes away from its own clock."""
    return int(time.time())


def oracle(key: bytes) -> Webhook:
    return Webhook(key)


def accepts(key: bytes, headers: list[tuple[str, str]], body: str) -> bool:
    try:
        oracle(key).verify(body, dict(headers), json_parse=False)
    except WebhookVerificationError:
        return False
    return True


def test_the_vector_of_the_specification() -> None:
    headers = Signer([KEY]).headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}'
    )
    assert headers == [
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ]


@given(id_=_ids, body=_texts, key=_keys, timestamp=st.integers(0, 4_000_000_000))
def test_the_reference_implementation_makes_the_same_signature(
    id_: str, body: str, key: bytes, timestamp: int
) -> None:
    headers = dict(Signer([key]).headers(id_, timestamp, body.encode()))
    theirs = oracle(key).sign(id_, datetime.fromtimestamp(timestamp, UTC), body)
    assert headers["webhook-signature"] == theirs
    assert headers["webhook-timestamp"] == str(timestamp)
    assert headers["webhook-id"] == id_


@given(id_=_ids, body=_texts, key=_keys)
def test_the_reference_implementation_accepts_what_we_sign_and_no_change_of_it(
    id_: str, body: str, key: bytes
) -> None:
    at = now()
    headers = Signer([key]).headers(id_, at, body.encode())
    assert accepts(key, headers, body)
    assert not accepts(key, headers, body + " ")
    assert not accepts(key + b"x", headers, body)
    assert not accepts(key, [("webhook-id", id_ + "2"), *headers[1:]], body)
    later = [headers[0], ("webhook-timestamp", str(at + 1)), headers[2]]
    assert not accepts(key, later, body)


@given(body=st.binary(max_size=2_000), id_=_ids)
def test_a_body_is_signed_as_its_bytes_whether_it_is_text_or_not(body: bytes, id_: str) -> None:
    signed = b"%s.%d.%s" % (id_.encode(), NOW, body)
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert dict(Signer([KEY]).headers(id_, NOW, body))["webhook-signature"] == f"v1,{expected}"


def test_a_signer_keeps_nothing_of_one_message_for_the_next() -> None:
    signer = Signer([KEY], hex_header="X-Signature")
    first = signer.headers("evt_1", NOW, b"one")
    signer.headers("evt_2", NOW, b"two")
    assert signer.headers("evt_1", NOW, b"one") == first


# --- rotation ------------------------------------------------------------------------------


def test_while_a_secret_is_rotated_the_old_and_the_new_one_both_verify() -> None:
    headers = Signer([KEY, OTHER_KEY]).headers("evt_1", now(), b"{}")
    signatures = dict(headers)["webhook-signature"].split(" ")
    assert len(set(signatures)) == 2
    assert all(signature.startswith("v1,") for signature in signatures)
    assert accepts(KEY, headers, "{}")
    assert accepts(OTHER_KEY, headers, "{}")
    assert not accepts(b"third" * 6, headers, "{}")


# --- Ed25519 ---------------------------------------------------------------------------------


def test_an_ed25519_key_makes_the_signature_of_svixs_vector() -> None:
    """The specification quotes this signature without its input; the input is that of Svix's own
    test (svix-webhooks, `test_asymmetric_key_signing`). Ed25519 has one signature per input."""
    headers = Signer([parse_key(PRIVATE)]).headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}'
    )
    assert headers[-1] == (
        "webhook-signature",
        "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==",
    )


@given(body=st.binary(max_size=300), id_=_ids, timestamp=st.integers(0, 2**33))
def test_a_receiver_with_the_public_key_takes_it_and_no_change_of_it(
    body: bytes, id_: str, timestamp: int
) -> None:
    headers = Signer([parse_key(PRIVATE)]).headers(id_, timestamp, body)
    verifier = Verifier([PUBLIC])
    assert verifier.verify(headers, body, timestamp).id == id_
    with pytest.raises(NoMatchingSignature):
        verifier.verify(headers, body + b" ", timestamp)


def test_hmac_and_ed25519_stand_beside_each_other_in_the_order_given() -> None:
    both = Signer([parse_key(PRIVATE), KEY, OTHER_KEY], hex_header="X-Sig")
    headers = both.headers("evt_1", NOW, b"{}")
    versions = [s.partition(",")[0] for s in dict(headers)["webhook-signature"].split(" ")]
    assert versions == ["v1a", "v1", "v1"]
    assert headers[-1] == ("X-Sig", hmac.new(KEY, b"{}", "sha256").hexdigest())
    for secret in (PUBLIC, KEY, OTHER_KEY):
        assert Verifier([secret]).verify(headers, b"{}", NOW).id == "evt_1"


def test_an_ed25519_key_alone_has_no_hex_form() -> None:
    headers = Signer([parse_key(PRIVATE)], standard=False, hex_header="X-Sig")
    assert [name for name, _ in headers.headers("evt_1", NOW, b"")] == [
        "webhook-id",
        "webhook-timestamp",
    ]


# --- the older hex form --------------------------------------------------------------------


def test_the_hex_form_is_the_digest_of_the_body_alone_by_the_first_key() -> None:
    signer = Signer([KEY, OTHER_KEY], hex_header="X-Webhook-Signature")
    headers = signer.headers("evt_1", now(), b"{}")
    assert headers[-1] == ("X-Webhook-Signature", hmac.new(KEY, b"{}", "sha256").hexdigest())
    assert accepts(KEY, headers, "{}")


def test_the_hex_form_can_stand_alone() -> None:
    headers = Signer([KEY], standard=False, hex_header="X-Sig").headers("evt_1", NOW, b"{}")
    assert [name for name, _ in headers] == ["webhook-id", "webhook-timestamp", "X-Sig"]


@pytest.mark.parametrize("hex_header", [None, "X-Sig"])
def test_without_a_key_nothing_is_signed_but_the_id_is_still_there(hex_header: str | None) -> None:
    headers = Signer([], hex_header=hex_header).headers("evt_1", NOW, b"{}")
    assert headers == [("webhook-id", "evt_1"), ("webhook-timestamp", str(NOW))]


def test_a_signer_shows_no_key() -> None:
    signer = Signer([b"topsecret" * 4])
    held = [getattr(signer, name) for name in dir(signer) if not name.startswith("__")]
    shown = repr(signer) + repr(held)
    assert "topsecret" not in shown
    assert base64.b64encode(b"topsecret" * 4).decode() not in shown
