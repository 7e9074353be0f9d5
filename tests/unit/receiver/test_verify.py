"""A request passes if it is the sender's and recent, and nothing else does; each cause has a name.

The oracle is the package `standardwebhooks`.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from standardwebhooks.webhooks import Webhook
from starlette.datastructures import Headers as StarletteHeaders

from dispatcherd.receiver import (
    BodyNotRaw,
    FutureTimestamp,
    MalformedHeader,
    MissingHeader,
    NoMatchingSignature,
    Receiver,
    SecretFormatError,
    StaleTimestamp,
    VerificationError,
)
from dispatcherd.receiver.signing import new_key_pair, new_secret, sign, sign_headers, sign_hex
from dispatcherd.receiver.verify import Verifier
from dispatcherd.sign import Signer

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
STAMP = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
HEADERS = {
    "webhook-id": ID,
    "webhook-timestamp": str(STAMP),
    "webhook-signature": SIGNATURE,
}

secrets_ = st.binary(min_size=24, max_size=64).map(
    lambda b: "whsec_" + base64.b64encode(b).decode()
)
ids = st.from_regex(r"[A-Za-z0-9_:@/+=~-]{1,64}", fullmatch=True)
bodies = st.binary(max_size=300)
stamps = st.integers(1, 4_000_000_000)


def check(headers: Any, body: Any = BODY, now: float = STAMP, **options: Any) -> Any:
    return Verifier(options.pop("secrets", [SECRET]), **options).verify(headers, body, now)


def test_the_vector_of_the_specification_passes() -> None:
    verified = check(HEADERS)
    assert (verified.id, verified.timestamp) == (ID, STAMP)
    assert sign(SECRET, ID, STAMP, BODY) == SIGNATURE


@given(secret=secrets_, id_=ids, body=st.text(max_size=200), stamp=stamps)
def test_what_the_reference_library_signs_passes(
    secret: str, id_: str, body: str, stamp: int
) -> None:
    moment = datetime.fromtimestamp(stamp, UTC)
    headers = {
        "webhook-id": id_,
        "webhook-timestamp": str(stamp),
        "webhook-signature": Webhook(secret).sign(id_, moment, body),
    }
    assert check(headers, body.encode(), stamp, secrets=[secret]).id == id_


@given(secret=secrets_, id_=ids, body=st.text(max_size=200))
def test_what_is_signed_here_passes_the_reference_library(secret: str, id_: str, body: str) -> None:
    headers = sign_headers([secret], id_, int(time.time()), body.encode())
    Webhook(secret).verify(body, headers, json_parse=False)


@given(secret=secrets_, id_=ids, body=bodies, stamp=stamps)
def test_what_the_daemon_signs_passes(secret: str, id_: str, body: bytes, stamp: int) -> None:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    headers = Signer([key], hex_header="x-webhook-signature").headers(id_, stamp, body)
    check(headers, body, stamp, secrets=[secret])
    check(headers, body, stamp, secrets=[secret], hex_header="X-Webhook-Signature")


@given(secret=secrets_, body=st.binary(min_size=1, max_size=100), data=st.data())
def test_one_changed_bit_anywhere_is_refused(secret: str, body: bytes, data: st.DataObject) -> None:
    headers = sign_headers([secret], "msg_1", STAMP, body)
    part = data.draw(st.sampled_from(["body", "webhook-id", "webhook-timestamp", "signature"]))
    if part == "body":
        place = data.draw(st.integers(0, len(body) * 8 - 1))
        changed = bytearray(body)
        changed[place // 8] ^= 1 << place % 8
        body = bytes(changed)
    elif part == "webhook-id":
        headers["webhook-id"] = "msg_2"
    elif part == "webhook-timestamp":
        headers["webhook-timestamp"] = str(STAMP + 1)
    else:
        raw = bytearray(base64.b64decode(headers["webhook-signature"][3:]))
        place = data.draw(st.integers(0, 255))
        raw[place // 8] ^= 1 << place % 8
        headers["webhook-signature"] = "v1," + base64.b64encode(raw).decode()
    with pytest.raises(NoMatchingSignature):
        check(headers, body, secrets=[secret])


def test_an_id_cannot_borrow_from_timestamp_or_body() -> None:
    # `a.1` + `2` + body and `a` + `1.2` …: the second timestamp is no number.
    headers = sign_headers([SECRET], "a.1", STAMP, BODY)
    headers |= {"webhook-id": "a", "webhook-timestamp": f"1.{STAMP}"}
    with pytest.raises(MalformedHeader):
        check(headers)


@pytest.mark.parametrize("signed_with", [["old"], ["new"], ["old", "new"], ["other", "new"]])
def test_during_a_rotation_either_secret_passes(signed_with: list[str]) -> None:
    known = {"old": new_secret(), "new": new_secret(), "other": new_secret()}
    headers = sign_headers([known[name] for name in signed_with], ID, STAMP, BODY)
    check(headers, secrets=[known["new"], known["old"]])
    with pytest.raises(NoMatchingSignature):
        check(headers, secrets=[new_secret()])


@pytest.mark.parametrize("late", [-300, -1, 0, 1, 300])
def test_within_the_tolerance_it_passes(late: int) -> None:
    check(HEADERS, now=STAMP + late)


def test_a_stale_request_says_how_old_it_is() -> None:
    with pytest.raises(StaleTimestamp, match=r"signed 301 s ago; 300 s are tolerated") as caught:
        check(HEADERS, now=STAMP + 301)
    assert caught.value.age_seconds == 301
    with pytest.raises(StaleTimestamp):
        check(HEADERS, now=STAMP + 11, tolerance_seconds=10)


def test_a_future_request_says_how_far() -> None:
    with pytest.raises(FutureTimestamp, match="signed 301 s in the future"):
        check(HEADERS, now=STAMP - 301)


@pytest.mark.parametrize("name", list(HEADERS))
def test_a_missing_header_is_named(name: str) -> None:
    for headers in (
        {key: value for key, value in HEADERS.items() if key != name},
        {**HEADERS, name: ""},
    ):
        with pytest.raises(MissingHeader, match=name):
            check(headers)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("webhook-timestamp", "yesterday", "whole number"),
        ("webhook-timestamp", "1614265330.5", "whole number"),
        ("webhook-timestamp", "-1614265330", "whole number"),
        ("webhook-timestamp", "١٦١٤٢٦٥٣٣٠", "whole number"),
        ("webhook-timestamp", "1" * 400, "whole number"),
        ("webhook-signature", "g0hM9SsE", "v1,<base64>"),
        ("webhook-signature", "v1,", "v1,<base64>"),
        ("webhook-signature", " ".join(["v1,AAAA"] * 33), "33 signatures"),
        ("webhook-id", "a b", "printable ASCII"),
        ("webhook-id", "a\x00", "printable ASCII"),
        ("webhook-id", "a" * 513, "printable ASCII"),
        ("webhook-id", "\udcff", "printable ASCII"),
        ("webhook-id", "a" * 9000, "8192 characters"),
    ],
)
def test_a_malformed_header_is_named(name: str, value: str, why: str) -> None:
    with pytest.raises(MalformedHeader, match=why) as caught:
        check({**HEADERS, name: value})
    assert caught.value.name == name


def test_two_different_values_of_one_header_are_refused() -> None:
    pairs = [*HEADERS.items(), ("Webhook-Id", "other")]
    with pytest.raises(MalformedHeader, match="2 times"):
        check(pairs)
    check([*HEADERS.items(), ("Webhook-Id", ID)])


@pytest.mark.parametrize(
    "make",
    [
        dict,
        lambda h: {k.upper(): v for k, v in h.items()},
        lambda h: {k.encode(): v.encode() for k, v in h.items()},
        lambda h: [(k.title().encode(), v) for k, v in h.items()],
        CIMultiDict,
        StarletteHeaders,
        lambda h: iter(h.items()),
    ],
)
def test_headers_of_any_framework_are_read(make: Callable[[dict[str, str]], Any]) -> None:
    check(make(HEADERS))


@pytest.mark.parametrize("body", [BODY.decode(), {"test": 2432232314}, None, [BODY]])
def test_a_body_that_is_not_raw_bytes_is_a_fault_of_the_caller(body: Any) -> None:
    with pytest.raises(BodyNotRaw, match="raw bytes"):
        check(HEADERS, body)


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_other_kinds_of_bytes_are_bytes(kind: Callable[[bytes], Any]) -> None:
    check(HEADERS, kind(BODY))


def test_signatures_of_unknown_versions_are_passed_over() -> None:
    check({**HEADERS, "webhook-signature": f"v2,AAAA v1a,AAAA {SIGNATURE}"})


def test_another_spelling_of_the_same_base64_is_not_the_signature() -> None:
    assert SIGNATURE.endswith("E=")
    with pytest.raises(NoMatchingSignature):
        check({**HEADERS, "webhook-signature": SIGNATURE.replace("OE=", "OF=")})


def test_svix_headers_are_read_with_their_prefix() -> None:
    headers = {name.replace("webhook", "svix"): value for name, value in HEADERS.items()}
    check(headers, prefix="svix")
    with pytest.raises(MissingHeader, match="webhook-id"):
        check(headers)


# --- v1a -------------------------------------------------------------------------------------


@given(body=bodies, stamp=stamps)
def test_an_ed25519_signature_passes_and_a_changed_body_does_not(body: bytes, stamp: int) -> None:
    private, public = new_key_pair()
    headers = sign_headers([private], ID, stamp, body)
    assert headers["webhook-signature"].startswith("v1a,")
    check(headers, body, stamp, secrets=[public])
    with pytest.raises(NoMatchingSignature):
        check(headers, body + b" ", stamp, secrets=[public])
    with pytest.raises(NoMatchingSignature):
        check(headers, body, stamp, secrets=[new_key_pair()[1]])


def test_keys_in_the_form_that_svix_documents_belong_together() -> None:
    private = (
        "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6"
        "Kvg=="
    )
    headers = sign_headers([private], ID, STAMP, BODY)
    check(headers, secrets=["whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="])


def test_both_kinds_of_key_may_be_given_and_either_suffices() -> None:
    private, public = new_key_pair()
    for signers in ([private], [SECRET], [new_secret(), private]):
        check(sign_headers(signers, ID, STAMP, BODY), secrets=[SECRET, public])


def test_the_wrong_kind_of_key_is_named() -> None:
    private, public = new_key_pair()
    with pytest.raises(NoMatchingSignature, match="signed as v1a and the secrets check v1;"):
        check(sign_headers([private], ID, STAMP, BODY))
    with pytest.raises(NoMatchingSignature, match="signed as v1 and the secrets check v1a;"):
        check(HEADERS, secrets=[public])


# --- the hex form ----------------------------------------------------------------------------


def test_the_hex_form_passes_and_knows_no_time() -> None:
    for value in (sign_hex(SECRET, BODY), sign_hex(SECRET, BODY).upper()):
        headers = {"webhook-id": ID, "X-Webhook-Signature": value}
        verified = check(headers, now=STAMP * 2, hex_header="x-webhook-signature")
        assert (verified.id, verified.timestamp) == (ID, None)
    headers = {"webhook-id": ID, "X-Hub-Signature-256": "sha256=" + sign_hex(SECRET, BODY)}
    check(headers, hex_header="X-Hub-Signature-256")


def test_the_hex_form_is_refused_unless_it_is_asked_for() -> None:
    headers = {**HEADERS, "webhook-signature": sign_hex(SECRET, BODY)}
    with pytest.raises(MalformedHeader, match="hex_header"):
        check(headers)


def test_in_the_hex_form_a_standard_signature_does_not_count() -> None:
    with pytest.raises(MissingHeader, match="x-sig"):
        check(HEADERS, hex_header="x-sig")
    with pytest.raises(MalformedHeader, match="64 hexadecimal"):
        check({**HEADERS, "x-sig": SIGNATURE}, hex_header="x-sig")
    with pytest.raises(NoMatchingSignature):
        check({**HEADERS, "x-sig": "0" * 64}, hex_header="x-sig")


# --- secrets ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secrets", "why"),
    [
        ([], "empty"),
        (SECRET, "give a list"),
        ([SECRET, ""], r"secrets\[1\] has 0 bytes"),
        ([SECRET, "short"], r"secrets\[1\] has 5 bytes; 16 are the least"),
        ([None], "NoneType"),
        ([SECRET + "\n"], "white space"),
        (["whsec_not base64!"], "not base64"),
        (["whsec_A"], "not base64"),
        (["whsec_" + base64.b64encode(b"x" * 23).decode()], "23 bytes; 24 to 64"),
        (["whsec_" + base64.b64encode(b"x" * 65).decode()], "65 bytes; 24 to 64"),
        (["whpk_" + base64.b64encode(b"x" * 31).decode()], "31 bytes; an Ed25519 key has 32"),
        (["whpk_!"], "not base64"),
        (["whsk_" + base64.b64encode(b"x" * 64).decode()], "private key"),
    ],
)
def test_a_secret_that_cannot_be_one_is_refused_at_the_start(secrets: Any, why: str) -> None:
    with pytest.raises(SecretFormatError, match=why):
        Receiver(secrets)


@pytest.mark.parametrize(
    "secret", [SECRET, SECRET.rstrip("="), "any text of 16 or more", b"\x00" * 16]
)
def test_the_forms_that_the_daemon_takes_are_taken(secret: Any) -> None:
    Receiver([secret])


def test_no_error_and_no_repr_shows_a_secret() -> None:
    texts = []
    for bad in ("whsec_QUJDREVGRw==", "whsk_QUJDREVGRw==", "whpk_QUJDREVGRw==", "QUJDREVGRw=="):
        with pytest.raises(SecretFormatError) as caught:
            Receiver([bad])
        texts.append(str(caught.value))
    with pytest.raises(NoMatchingSignature) as refused:
        check(HEADERS, b"{}")
    verifier = Verifier([SECRET])
    texts += [str(refused.value), repr(verifier), repr(verifier._keys)]
    shown = " ".join(texts)
    assert "QUJDREVGRw" not in shown and SECRET[6:] not in shown and "g0hM9" not in shown


# --- anything at all -------------------------------------------------------------------------

header_values = st.one_of(
    st.text(max_size=40),
    st.binary(max_size=40),
    st.sampled_from([SIGNATURE, ID, str(STAMP), "v1,\udcff", "v1a,ÿ", "é,é", " ", "v1,\x00"]),
)


@given(
    headers=st.dictionaries(st.sampled_from(list(HEADERS)), header_values),
    body=bodies,
    hex_header=st.sampled_from([None, "webhook-signature"]),
)
def test_any_request_passes_or_is_refused_by_name(
    headers: dict[str, Any], body: bytes, hex_header: str | None
) -> None:
    secrets = [SECRET] if hex_header else [SECRET, new_key_pair()[1]]
    try:
        check(headers, body, secrets=secrets, hex_header=hex_header)
    except VerificationError as error:
        assert error.cause and error.status in (400, 401)
    else:
        pytest.fail("nobody signed this")
