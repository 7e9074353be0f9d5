"""Signing as the sender does, so that tests can make genuine requests.

Source: Standard Webhooks 1.0. Invariant: what is signed here, `verify` accepts with the same
secrets. Leaves out: sending. The daemon does not use this.
"""

from __future__ import annotations

import base64
import secrets as random_source
from collections.abc import Sequence

from dispatcherd.receiver.errors import SecretFormatError
from dispatcherd.receiver.keys import (
    PRIVATE_PREFIX,
    PUBLIC_PREFIX,
    SECRET_PREFIX,
    HmacKey,
    decode,
    parse_key,
)


def new_secret() -> str:
    """A fresh `whsec_…` of 32 random bytes."""
    return SECRET_PREFIX + base64.b64encode(random_source.token_bytes(32)).decode()


def new_key_pair() -> tuple[str, str]:
    """A fresh (`whsk_…`, `whpk_…`). Needs `cryptography`."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    both = private.private_bytes_raw() + public
    return (
        PRIVATE_PREFIX + base64.b64encode(both).decode(),
        PUBLIC_PREFIX + base64.b64encode(public).decode(),
    )


def sign(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """One signature, such as `v1,…`, or `v1a,…` for a `whsk_` key. Raises SecretFormatError."""
    content = f"{webhook_id}.{timestamp}.".encode() + body
    if secret.startswith(PRIVATE_PREFIX):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        raw = decode(secret, PRIVATE_PREFIX, "the private key")
        if len(raw) != 64:
            raise SecretFormatError(f"the private key decodes to {len(raw)} bytes; 64 are right")
        signature = Ed25519PrivateKey.from_private_bytes(raw[:32]).sign(content)
        return "v1a," + base64.b64encode(signature).decode()
    return "v1," + base64.b64encode(_hmac(secret).digest(content)).decode()


def sign_headers(
    secrets: Sequence[str], webhook_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """The three headers, with one signature per secret."""
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(sign(s, webhook_id, timestamp, body) for s in secrets),
    }


def sign_hex(secret: str, body: bytes) -> str:
    """The hex form: HMAC-SHA256 of the body alone."""
    return _hmac(secret).digest(body).hex()


def _hmac(secret: str) -> HmacKey:
    key = parse_key(secret)
    if not isinstance(key, HmacKey):
        raise SecretFormatError(f"{PUBLIC_PREFIX} keys only verify; sign with the {PRIVATE_PREFIX}")
    return key
