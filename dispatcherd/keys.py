"""What a secret's text stands for: the key that signs.

Sources: Standard Webhooks 1.0: `whsec_` + base64 of 24-64 bytes for HMAC-SHA256 (`v1`), `whsk_` +
base64 of an Ed25519 private key (`v1a`). The specification leaves the private key's form open; the
one in use elsewhere (Svix, `dispatcherd.receiver`) is the 32-byte seed followed by the 32-byte
public key, and the seed alone is taken too. Invariant: no error text and no repr holds key
material. Leaves out: where secrets are read from (config.secrets), signing (sign).
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Protocol, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SECRET_PREFIX = "whsec_"
PRIVATE_PREFIX = "whsk_"
PUBLIC_PREFIX = "whpk_"


class PublicKey(Protocol):
    """An Ed25519 public key, such as that of `cryptography`."""

    def public_bytes_raw(self) -> bytes:
        """Its 32 bytes."""


class PrivateKey(Protocol):
    """An Ed25519 private key, such as that of `cryptography`."""

    def sign(self, data: bytes, /) -> bytes:
        """The 64 bytes of the signature."""

    def public_key(self) -> PublicKey:
        """The key that verifies."""


SigningKey: TypeAlias = bytes | PrivateKey
"""Bytes: a key of HMAC-SHA256."""


def parse_key(text: str) -> SigningKey:
    """The key of a secret: `whsec_…`, `whsk_…`, or any other text of at least 16 bytes, taken as an
    HMAC key as it is. Raises ValueError without the content."""
    if text.startswith(PRIVATE_PREFIX):
        return _private_key(_decoded(text, PRIVATE_PREFIX))
    if text.startswith(PUBLIC_PREFIX):
        raise ValueError("it is a public key (whpk_), which only verifies; sign with the whsk_ key")
    if not text.startswith(SECRET_PREFIX):
        key = text.encode()
        if len(key) < 16:
            raise ValueError(f"it has {len(key)} bytes; 16 are the least")
        return key
    key = _decoded(text, SECRET_PREFIX)
    if not 24 <= len(key) <= 64:
        raise ValueError(f"it decodes to {len(key)} bytes; 24 to 64 are allowed")
    return key


def public_key(text: str) -> str:
    """The `whpk_…` that belongs to a `whsk_…`. Raises ValueError without the content."""
    if not text.startswith(PRIVATE_PREFIX):
        raise ValueError("it is no Ed25519 private key (whsk_…): only such a key has a public one")
    raw = _public_bytes(_decoded(text, PRIVATE_PREFIX))
    return PUBLIC_PREFIX + base64.b64encode(raw).decode()


def check_public_key(text: str) -> None:
    """Raises ValueError where a text is no `whpk_…`; never with the content, for it may be the
    private key."""
    if text.startswith(PRIVATE_PREFIX):
        raise ValueError("it is the private key (whsk_), which nobody else may have")
    if not text.startswith(PUBLIC_PREFIX):
        raise ValueError("it does not begin with whpk_")
    if (size := len(_decoded(text, PUBLIC_PREFIX))) != 32:
        raise ValueError(f"it decodes to {size} bytes; an Ed25519 public key has 32")


def _private_key(raw: bytes) -> PrivateKey:
    _public_bytes(raw)
    return Ed25519PrivateKey.from_private_bytes(raw[:32])


def _public_bytes(raw: bytes) -> bytes:
    if len(raw) not in (32, 64):
        raise ValueError(f"it decodes to {len(raw)} bytes; an Ed25519 private key has 64 (or 32)")
    public = Ed25519PrivateKey.from_private_bytes(raw[:32]).public_key().public_bytes_raw()
    if raw[32:] not in (b"", public):
        raise ValueError("its two halves (seed and public key) do not belong together")
    return public


def _decoded(text: str, prefix: str) -> bytes:
    encoded = text.removeprefix(prefix)
    try:
        if not re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", encoded):
            raise ValueError
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"what follows {prefix} is not base64") from None
