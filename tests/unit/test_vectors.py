"""docs/vectors.json against everything that signs or verifies: it was made without dispatcherd.

The oracle beside it is the `standardwebhooks` package, for the cases that it knows (v1).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import pytest
import standardwebhooks.webhooks
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from dispatcherd.config.secrets import parse_key
from dispatcherd.receiver import errors, signing
from dispatcherd.receiver.verify import Verifier
from dispatcherd.sign import Signer
from docs.tools import vectors

VECTORS = json.loads(vectors.FILE.read_text())
PUBLISHED = {
    "the example of Standard Webhooks": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    "Ed25519": "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5Bdqz"
    "CInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==",
    "the hex form, the example of GitHub": "757107ea0eb2509fc211221cce984b8a"
    "37570b6d7586c22c46f4379c8b043e17",
}
"""What others publish for the same input: the specification's libraries, Svix's server, GitHub."""


def named(cases: list[dict[str, Any]]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[case["name"] for case in cases])


def signed_with(*schemes: str) -> list[dict[str, Any]]:
    return [case for case in VECTORS["signing"] if case["scheme"] in schemes]


def test_the_file_is_what_its_script_makes() -> None:
    assert vectors.FILE.read_text() == vectors.document()


def test_the_vectors_agree_with_what_others_have_published() -> None:
    made = {case["name"]: case["signature"] for case in VECTORS["signing"]}
    assert {name: made[name] for name in PUBLISHED} == PUBLISHED


@named(signed_with("v1"))
def test_the_daemon_signs_as_the_vectors_say(case: dict[str, Any]) -> None:
    signer = Signer([parse_key(secret) for secret in case["secrets"]])
    body = case["body"].encode()
    assert dict(signer.headers(case["id"], case["timestamp"], body)) == {
        "webhook-id": case["id"],
        "webhook-timestamp": str(case["timestamp"]),
        "webhook-signature": case["signature"],
    }
    lines = signer.lines(case["id"], case["timestamp"], body)
    assert f"webhook-signature: {case['signature']}\r\n".encode() in lines


@named(signed_with("hex"))
def test_the_daemon_makes_the_hex_form_as_the_vectors_say(case: dict[str, Any]) -> None:
    signer = Signer([parse_key(case["secrets"][0])], standard=False, hex_header="X-Signature")
    assert dict(signer.headers("i", 1, case["body"].encode()))["X-Signature"] == case["signature"]


@named(VECTORS["signing"])
def test_the_receivers_test_factory_signs_as_the_vectors_say(case: dict[str, Any]) -> None:
    body = case["body"].encode()
    if case["scheme"] == "hex":
        assert signing.sign_hex(case["secrets"][0], body) == case["signature"]
        return
    made = signing.sign_headers(case["secrets"], case["id"], case["timestamp"], body)
    assert made["webhook-signature"] == case["signature"]


@named([case for case in signed_with("v1") if case["secrets"] != [vectors.TEXT_SECRET]])
def test_the_reference_library_signs_as_the_vectors_say(case: dict[str, Any]) -> None:
    moment = datetime.fromtimestamp(case["timestamp"], UTC)
    made = [Webhook(s).sign(case["id"], moment, case["body"]) for s in case["secrets"]]
    assert " ".join(made) == case["signature"]


@named(VECTORS["verifying"])
def test_the_receiver_decides_as_the_vectors_say(case: dict[str, Any]) -> None:
    verifier = Verifier(case["secrets"], hex_header=case.get("hex_header"))
    body = case["body"].encode()
    if case["accept"]:
        assert verifier.verify(case["headers"], body, case["now"]).id == vectors.ID
        return
    with pytest.raises(getattr(errors, case["error"])) as raised:
        verifier.verify(case["headers"], body, case["now"])
    assert type(raised.value).__name__ == case["error"]


class Clock(datetime):
    """What the reference library takes the time from, standing still."""

    at = 0

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return datetime.fromtimestamp(cls.at, tz)


@named(
    [
        case
        for case in VECTORS["verifying"]
        if "hex_header" not in case and len(case["secrets"]) == 1
        and not case["secrets"][0].startswith("whpk_")
    ]
)  # fmt: skip
def test_the_reference_library_decides_as_the_vectors_say(case: dict[str, Any]) -> None:
    clock = type("Stopped", (Clock,), {"at": case["now"]})
    webhook = Webhook(case["secrets"][0])
    with patch.object(standardwebhooks.webhooks, "datetime", clock):
        if case["accept"]:
            webhook.verify(case["body"], case["headers"], json_parse=False)
        else:
            # Of a header it cannot read it raises what Python raises.
            with pytest.raises((WebhookVerificationError, ValueError)):
                webhook.verify(case["body"], case["headers"], json_parse=False)


def test_the_vectors_hold_every_kind_of_refusal_that_a_signature_can_earn() -> None:
    found = {case["error"] for case in VECTORS["verifying"] if not case["accept"]}
    assert found == {"NoMatchingSignature", "StaleTimestamp", "FutureTimestamp", "MalformedHeader",
                     "MissingHeader"}  # fmt: skip
