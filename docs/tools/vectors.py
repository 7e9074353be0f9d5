"""Makes docs/vectors.json, the signature test vectors: `python -m docs.tools.vectors`.

Independent on purpose: HMAC from the standard library and Ed25519 from `cryptography`, and nothing
of dispatcherd, so that the vectors can prove dispatcherd wrong. Ed25519 and HMAC are deterministic,
so the file is the same on each run. Leaves out: checking it (tests/unit/test_vectors.py).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FILE = Path(__file__).parents[1] / "vectors.json"

# The example of the Standard Webhooks specification's own libraries.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP = 1614265330
BODY = '{"test": 2432232314}'

NEW_SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER_SECRET = "whsec_" + base64.b64encode(b"not the secret of this endpoint.").decode()
TEXT_SECRET = "a secret that is plain text, taken as it is"
LONG_SECRET = "whsec_" + base64.b64encode(bytes(range(64))).decode()
NO_PADDING = "whsec_" + base64.b64encode(bytes(range(25))).decode().rstrip("=")
# The seed and the public key, as `whsk_` holds them; published in Svix's tests of its server.
PRIVATE = (
    "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
)
HEX_HEADER = "X-Webhook-Signature"
NO_MATCH, MALFORMED = "NoMatchingSignature", "MalformedHeader"


def key_of(secret: str) -> bytes:
    """The HMAC key of a secret."""
    if not secret.startswith("whsec_"):
        return secret.encode()
    encoded = secret.removeprefix("whsec_")
    return base64.b64decode(encoded + "=" * (-len(encoded) % 4))


def public_of(private: str) -> str:
    """The `whpk_` of a `whsk_`."""
    both = base64.b64decode(private.removeprefix("whsk_"))
    key = Ed25519PrivateKey.from_private_bytes(both[:32]).public_key().public_bytes_raw()
    assert key == both[32:]
    return "whpk_" + base64.b64encode(key).decode()


def signed(secret: str, webhook_id: str, timestamp: int, body: str) -> str:
    """`v1,…`, or `v1a,…` with a `whsk_` key."""
    content = f"{webhook_id}.{timestamp}.{body}".encode()
    if secret.startswith("whsk_"):
        seed = base64.b64decode(secret.removeprefix("whsk_"))[:32]
        signature = Ed25519PrivateKey.from_private_bytes(seed).sign(content)
        return "v1a," + base64.b64encode(signature).decode()
    mac = hmac.new(key_of(secret), content, hashlib.sha256)
    return "v1," + base64.b64encode(mac.digest()).decode()


def in_hex(secret: str, body: str) -> str:
    """The hex form: over the body alone."""
    return hmac.new(key_of(secret), body.encode(), hashlib.sha256).hexdigest()


def headers(*secrets: str, body: str = BODY) -> dict[str, str]:
    """The three headers of a request, with a signature for each secret."""
    return {
        "webhook-id": ID,
        "webhook-timestamp": str(TIMESTAMP),
        "webhook-signature": " ".join(signed(s, ID, TIMESTAMP, body) for s in secrets),
    }


def signing() -> list[dict[str, Any]]:
    """What a sender must produce."""
    bodies = {
        "the example of Standard Webhooks": BODY,
        "spaces and a line break are part of the body": '{ "id" : "evt_1",\n  "n": 1.0 }\n',
        "letters outside ASCII, as UTF-8": '{"name":"Žofie Grüße 🎉","sum":"12 €"}',
        "a batch": '[{"id":"evt_1","type":"order.created"},{"id":"evt_2","type":"order.paid"}]',
        "an empty object": "{}",
    }
    cases: list[dict[str, Any]] = [
        {"name": name, "scheme": "v1", "secrets": [SECRET], "body": body}
        for name, body in bodies.items()
    ]
    unicode = bodies["letters outside ASCII, as UTF-8"]
    for name, scheme, secrets, body in (
        ("a secret of 64 bytes", "v1", [LONG_SECRET], BODY),
        ("base64 without its padding", "v1", [NO_PADDING], BODY),
        ("a secret that is text", "v1", [TEXT_SECRET], BODY),
        ("two secrets while one is rotated", "v1", [NEW_SECRET, SECRET], BODY),
        ("Ed25519", "v1a", [PRIVATE], BODY),
        ("Ed25519, letters outside ASCII", "v1a", [PRIVATE], unicode),
    ):
        cases.append({"name": name, "scheme": scheme, "secrets": secrets, "body": body})
    for case in cases:
        case["id"], case["timestamp"] = ID, TIMESTAMP
        case["signature"] = headers(*case["secrets"], body=case["body"])["webhook-signature"]
    cases += [
        {"name": "the hex form", "scheme": "hex", "secrets": [SECRET], "body": BODY},
        {"name": "the hex form, the example of GitHub", "scheme": "hex",
         "secrets": ["It's a Secret to Everybody"], "body": "Hello, World!"},
    ]  # fmt: skip
    for case in cases[-2:]:
        case["signature"] = in_hex(case["secrets"][0], case["body"])
    return cases


GOOD = headers(SECRET)
"""A genuine request of `BODY`."""


def case(
    name: str,
    accept: bool,
    sent: dict[str, str] = GOOD,
    secrets: tuple[str, ...] = (SECRET,),
    body: str = BODY,
    now: int = TIMESTAMP,
    error: str = "",
    **more: str,
) -> dict[str, Any]:
    """One request, and what becomes of it at a receiver with these secrets."""
    return {
        "name": name, "accept": accept, "secrets": list(secrets), "headers": sent,
        "body": body, "now": now, **({"error": error} if error else {}), **more,
    }  # fmt: skip


def with_(**other: str) -> dict[str, str]:
    """The genuine request's headers, some of them changed."""
    return {**GOOD, **{f"webhook-{name}": value for name, value in other.items()}}


def verifying() -> list[dict[str, Any]]:
    """What a receiver must accept and refuse."""
    return [*_accepted(), *_changed(), *_signed_by_key(), *_out_of_time_or_form(), *_hex_form()]


def _accepted() -> list[dict[str, Any]]:
    public, signature = public_of(PRIVATE), GOOD["webhook-signature"]
    both = headers(NEW_SECRET, SECRET)
    return [
        case("as it was sent", True),
        case("299 seconds later", True, now=TIMESTAMP + 299),
        case("the receiver's clock 299 seconds behind", True, now=TIMESTAMP - 299),
        case("rotation: the receiver has the old secret only", True, both),
        case("rotation: the receiver has the new secret only", True, both, (NEW_SECRET,)),
        case("rotation: the receiver has both, the sender one", True, GOOD, (NEW_SECRET, SECRET)),
        case("an unknown version beside a good one", True, with_(signature=f"v9,eHl6 {signature}")),
        case("v1a beside v1, checked by the secret", True, headers(PRIVATE, SECRET)),
        case("v1a beside v1, checked by the public key", True, headers(PRIVATE, SECRET), (public,)),
        case("v1a", True, headers(PRIVATE), (public,)),
    ]


def _changed() -> list[dict[str, Any]]:
    """What was signed is not what came, or the signature is none of it."""
    signature = GOOD["webhook-signature"]
    digest = base64.b64decode(signature.removeprefix("v1,"))
    of_the_body_alone = base64.b64encode(bytes.fromhex(in_hex(SECRET, BODY))).decode()
    bodies = {
        "one byte of the body changed": BODY.replace("4", "5", 1),
        "a line break added to the body": BODY + "\n",
        "the body parsed and written again": json.dumps(json.loads(BODY), separators=(",", ":")),
    }
    signatures = {
        "the secret's text used as the key": _with_text_as_key(),
        "hex in place of base64": f"v1,{digest.hex()}",
        "a digest over the body alone": f"v1,{of_the_body_alone}",
        "the signature cut short": signature[:-8],
        "v1 called v1a": "v1a," + signature.removeprefix("v1,"),
    }
    return [
        *(case(name, False, body=body, error=NO_MATCH) for name, body in bodies.items()),
        *(
            case(name, False, with_(signature=text), error=NO_MATCH)
            for name, text in signatures.items()
        ),
        case("another id", False, with_(id="msg_another"), error=NO_MATCH),
        case("another timestamp", False, with_(timestamp=str(TIMESTAMP + 1)), error=NO_MATCH),
        case("another secret", False, secrets=(OTHER_SECRET,), error=NO_MATCH),
    ]


def _signed_by_key() -> list[dict[str, Any]]:
    public, by_key = (public_of(PRIVATE),), headers(PRIVATE)
    return [
        case("v1a, the body changed", False, by_key, public, BODY + " ", error=NO_MATCH),
        case("v1a, the id changed", False, {**by_key, "webhook-id": "x"}, public, error=NO_MATCH),
        case("v1a, and the receiver has a secret only", False, by_key, error=NO_MATCH),
    ]


def _out_of_time_or_form() -> list[dict[str, Any]]:
    no_version = with_(signature=GOOD["webhook-signature"].removeprefix("v1,"))
    no_number = with_(timestamp="yesterday")
    return [
        case("301 seconds old", False, now=TIMESTAMP + 301, error="StaleTimestamp"),
        case("301 seconds ahead", False, now=TIMESTAMP - 301, error="FutureTimestamp"),
        case("a timestamp that is no number", False, no_number, error=MALFORMED),
        case("no version before the signature", False, no_version, error=MALFORMED),
        *(
            case(f"no {missing}", False, {k: v for k, v in GOOD.items() if k != missing},
                 error="MissingHeader")
            for missing in GOOD
        ),
    ]  # fmt: skip


def _hex_form() -> list[dict[str, Any]]:
    hexed = {"webhook-id": ID, HEX_HEADER: in_hex(SECRET, BODY)}
    named = {"hex_header": HEX_HEADER}
    return [
        case("hex form: as it was sent", True, hexed, **named),
        case("hex form: the body changed", False, hexed, body=BODY + " ", error=NO_MATCH, **named),
    ]


def _with_text_as_key() -> str:
    """What a sender makes that forgets to decode the secret."""
    mac = hmac.new(SECRET.encode(), f"{ID}.{TIMESTAMP}.{BODY}".encode(), hashlib.sha256)
    return "v1," + base64.b64encode(mac.digest()).decode()


def document() -> str:
    """The file."""
    content = {
        "about": "Test vectors of the signatures that dispatcherd makes. Bodies are text, to be "
        "encoded as UTF-8. signing: what a sender must produce. verifying: what a receiver with "
        "these secrets must do at the Unix time `now`, with a tolerance of 300 seconds; `error` is "
        "the name that dispatcherd.receiver gives the refusal.",
        "public_key": public_of(PRIVATE),
        "signing": signing(),
        "verifying": verifying(),
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(document())
