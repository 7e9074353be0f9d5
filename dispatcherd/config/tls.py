"""An endpoint's own TLS: its files read once, tried, and made a context for its connections.

Invariant: the receiver is verified, and there is nothing here that could turn that off; the same
contents make the same context, so that a reload keeps connections where nothing was renewed, and
endpoints share connections only where they are the same towards the receiver. No problem shows a
word of a key. Leaves out: where the key is kept (secrets), and connections (exchange).
"""

from __future__ import annotations

import hashlib
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from dispatcherd.errors import ConfigProblem

_MOST_BYTES = 4 * 1024 * 1024
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_PRIVATE_KEY = re.compile(rb"-----BEGIN ((?:[A-Z]+ )*)PRIVATE KEY-----")
_made: WeakValueDictionary[bytes, ssl.SSLContext] = WeakValueDictionary()
"""By what went into it, as long as somebody uses it."""


class Unusable(Exception):
    """(trouble, remedy)"""


def read_certificates(path: str) -> bytes:
    """The certificates in a file, at least one; raises Unusable."""
    pem = _read(path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        trouble = "no certificate can be read from it"
        raise Unusable(trouble, "Name a PEM file with -----BEGIN CERTIFICATE-----") from error
    return pem


def check_key(pem: bytes) -> None:
    """Raises Unusable where a text is no private key, or one with a passphrase."""
    found = _PRIVATE_KEY.search(pem)
    if found is None:
        trouble = "it is no private key in PEM form"
        raise Unusable(trouble, "Name a file with -----BEGIN PRIVATE KEY-----")
    if b"ENCRYPTED" in found[1] or b"\nProc-Type: 4,ENCRYPTED" in pem:
        remedy = "Take it off: openssl pkey -in old.key -out new.key"
        raise Unusable("it has a passphrase, and there is nobody to ask for it", remedy)


def context(
    authorities: bytes | None,
    certificate: bytes | None,
    key: bytes | None,
    minimum_version: str,
) -> ssl.SSLContext:
    """The context for these contents; raises Unusable where the key is not the certificate's."""
    parts = [authorities, certificate, key, minimum_version.encode()]
    name = hashlib.sha256(b"".join(b"%d:%b" % (len(p or b""), p or b"") for p in parts)).digest()
    made = _made.get(name)
    if made is None:
        made = ssl.create_default_context(
            cadata=None if authorities is None else authorities.decode("ascii")
        )
        made.minimum_version = _VERSIONS[minimum_version]
        if certificate is not None and key is not None:
            _load(made, certificate, key)
        _made[name] = made
    return made


def _load(made: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    # `ssl` takes them by path only. What was read and tried is what must be loaded, and it may
    # have come from a variable: a file that exists in memory alone.
    with _in_memory(certificate) as one, _in_memory(key) as other:
        try:
            made.load_cert_chain(one, other, password=lambda: b"")
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                trouble = "it is not the key of that certificate"
                raise Unusable(trouble, "Name the key that the certificate was made for") from error
            trouble = f"TLS cannot use it with that certificate ({error.reason})"
            raise Unusable(trouble, "Make both anew, with RSA or elliptic curves") from error


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        remedy = "Create the file, readable by the service"
        raise Unusable(f"cannot read it: {error.strerror}", remedy) from error
    if len(content) > _MOST_BYTES:
        raise Unusable("it is larger than 4 MiB", "Name a file of certificates alone")
    return content


def problem(key: str, value: str, error: Unusable) -> ConfigProblem:
    """The error at a key of the configuration."""
    return ConfigProblem(key, value, error.args[0], error.args[1])
