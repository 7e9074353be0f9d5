"""The signature as bytes: the same headers, ready to go out."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcherd.exchange import header_lines
from dispatcherd.keys import SigningKey, parse_key
from dispatcherd.receiver.signing import new_key_pair
from dispatcherd.sign import Signer

_IDS = st.from_regex(re.compile(r"[A-Za-z0-9_:@/+=~-]{1,256}", re.ASCII), fullmatch=True)

ED25519 = parse_key(new_key_pair()[0])


@given(
    st.lists(st.binary(min_size=1, max_size=64) | st.just(ED25519), max_size=3),
    st.booleans(),
    st.sampled_from([None, "X-Webhook-Signature"]),
    _IDS,
    st.integers(0, 2**33),
    st.binary(max_size=100),
)
def test_lines_are_the_headers_as_they_go_out(
    keys: list[SigningKey],
    standard: bool,
    hex_header: str | None,
    identity: str,
    at: int,
    body: bytes,
) -> None:
    signer = Signer(keys, standard, hex_header)
    assert signer.lines(identity, at, body) == header_lines(signer.headers(identity, at, body))


def test_lines_carry_the_signature_of_the_published_vector() -> None:
    """Standard Webhooks 1.0, the vector of its reference libraries."""
    signer = Signer([base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")])
    lines = signer.lines("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert b"webhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=\r\n" in lines


@pytest.mark.parametrize("text", ["ключ", "a\u2028b"])
def test_an_id_outside_ascii_is_refused(text: str) -> None:
    with pytest.raises(UnicodeEncodeError):
        Signer([b"k"]).lines(text, 1, b"")
