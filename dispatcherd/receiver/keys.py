"""Secrets, and what each of them can check.

Sources: Standard Webhooks 1.0: `whsec_` + base64 of 24-64 bytes for HMAC-SHA256 (`v1`), `whpk_` +
base64 of a 32-byte Ed25519 public key (`v1a`). Any other text of at least 16 bytes is an HMAC key
taken as it is, by the sender's own rule. Invariant: no message and no repr holds key material.
Leaves out: which headers are signed (verify).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from typing import Protocol

from dispatcherd.receiver.errors import MissingDependency, SecretFormatError

SECRET_PREFIX = "whsec_"
PUBLIC_PREFIX = "whpk_"
PRIVATE_PREFIX = "whsk_"
_is_base64 = re.compile(r"[A-Za-z0-9+/]+={0,2}").fullmatch


class Key(Protocol):
    """One secret or public key."""

    version: str
    """The signature version it checks: `v1` or `v1a`."""

    def checker(self, content: bytes) -> Checker:
        """What decides whether a signature is this key's over `content`."""


class Checker(Protocol):
    def __call__(self, signature: str) -> bool:
        """Whether this base64 text is the signature."""


def decode(text: str, prefix: str, what: str) -> bytes:
    """The bytes of a prefixed base64 text, with or without padding. Raises SecretFormatError."""
    encoded = text.removeprefix(prefix)
    try:
        if not _is_base64(encoded):
            raise ValueError
        padded = encoded.rstrip("=")
        return base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise SecretFormatError(f"{what}: what follows {prefix} is not base64") from None


class HmacKey:
    """HMAC-SHA256 with a shared secret (`v1`, and the hex form)."""

    version = "v1"

    def __init__(self, key: bytes) -> None:
        # Keyed once: copying a prepared HMAC is cheaper than keying it for each request.
        self._prepared = hmac.new(key, digestmod="sha256")

    def __repr__(self) -> str:
        return "<HmacKey>"

    def digest(self, content: bytes) -> bytes:
        """HMAC-SHA256 of `content`."""
        mac = self._prepared.copy()
        mac.update(content)
        return mac.digest()

    def checker(self, content: bytes) -> Checker:
        """Compares in constant time, and as text: base64 has several spellings of one value."""
        expected = base64.b64encode(self.digest(content))
        return lambda signature: hmac.compare_digest(expected, signature.encode("ascii", "replace"))


class Ed25519Key:
    """An Ed25519 public key (`v1a`). Needs the package `cryptography`."""

    version = "v1a"

    def __init__(self, raw: bytes) -> None:
        try:
            from cryptography.exceptions import InvalidSignature
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        except ImportError as error:
            raise MissingDependency(
                f"a {PUBLIC_PREFIX} key needs the package cryptography:"
                " pip install 'dispatcherd-receiver[ed25519]'"
            ) from error
        self._key = Ed25519PublicKey.from_public_bytes(raw)
        self._invalid = InvalidSignature

    def __repr__(self) -> str:
        return "<Ed25519Key>"

    def checker(self, content: bytes) -> Checker:
        """Nothing here is secret, so nothing has to take constant time."""
        return lambda signature: self._verify(signature, content)

    def _verify(self, signature: str, content: bytes) -> bool:
        try:
            self._key.verify(base64.b64decode(signature, validate=True), content)
        except (binascii.Error, ValueError, self._invalid):
            return False
        return True


def parse_key(secret: str | bytes, place: int = 0) -> Key:
    """The key that a secret stands for; `place` names it in errors. Raises SecretFormatError.

    Bytes are an HMAC key as they are.
    """
    what = f"secrets[{place}]"
    if isinstance(secret, bytes):
        return HmacKey(_long_enough(secret, what))
    if not isinstance(secret, str):
        raise SecretFormatError(f"{what} is a {type(secret).__name__}; give str or bytes")
    if secret != secret.strip():
        raise SecretFormatError(f"{what} begins or ends with white space; strip it")
    if secret.startswith(PRIVATE_PREFIX):
        raise SecretFormatError(
            f"{what} is the sender's private key ({PRIVATE_PREFIX}); a receiver needs the public"
            f" one ({PUBLIC_PREFIX}). Whoever sent you the private key must replace it"
        )
    if secret.startswith(PUBLIC_PREFIX):
        raw = decode(secret, PUBLIC_PREFIX, what)
        if len(raw) != 32:
            raise SecretFormatError(f"{what} decodes to {len(raw)} bytes; an Ed25519 key has 32")
        return Ed25519Key(raw)
    if secret.startswith(SECRET_PREFIX):
        raw = decode(secret, SECRET_PREFIX, what)
        if not 24 <= len(raw) <= 64:
            raise SecretFormatError(f"{what} decodes to {len(raw)} bytes; 24 to 64 are allowed")
        return HmacKey(raw)
    return HmacKey(_long_enough(secret.encode("utf-8"), what))


def _long_enough(key: bytes, what: str) -> bytes:
    if len(key) < 16:
        raise SecretFormatError(
            f"{what} has {len(key)} bytes; 16 are the least. Is the environment variable set?"
        )
    return key
