"""Secrets: read from a file, a systemd credential or the environment, never shown.

Invariant: no message of this module holds a secret's content. Leaves out: signing.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dispatcherd.config.model import Config, EndpointConfig, SecretSource
from dispatcherd.errors import ConfigError, ConfigProblem

_PREFIX = "whsec_"


@dataclass(frozen=True, slots=True)
class Secrets:
    """Everything secret that a configuration points to."""

    endpoint_keys: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    """Endpoint id → signing keys, in the order given."""
    postgres_password: str | None = None
    sasl_password: str | None = None

    def __repr__(self) -> str:
        return f"<Secrets of {len(self.endpoint_keys)} endpoints>"


class _Unreadable(Exception):
    """(trouble, remedy)"""


def read_secret(source: SecretSource, environ: Mapping[str, str]) -> str:
    """The secret's text, without the newline that ends a file."""
    if source.inline is not None:
        return source.inline.get_secret_value()
    if source.env is not None:
        if source.env not in environ:
            raise _Unreadable("that environment variable is not set", f"Set {source.env}")
        return environ[source.env]
    if source.credential is not None:
        directory = environ.get("CREDENTIALS_DIRECTORY")
        if directory is None:
            raise _Unreadable(
                "there is no CREDENTIALS_DIRECTORY here",
                f"Add LoadCredential={source.credential}:/path to the unit, or use `file`",
            )
        path = Path(directory) / source.credential
    else:
        path = Path(source.file or "")
    try:
        return path.read_text("utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise _Unreadable(
            f"cannot read it: {why}", "Create the file, readable by the service"
        ) from error


def parse_key(text: str) -> bytes:
    """The signing key of a secret: `whsec_` + base64 of 24-64 bytes (Standard Webhooks 1.0), or any
    other text of at least 16 bytes, taken as it is. Raises ValueError without the content."""
    if not text.startswith(_PREFIX):
        key = text.encode()
        if len(key) < 16:
            raise ValueError(f"it has {len(key)} bytes; 16 are the least")
        return key
    encoded = text.removeprefix(_PREFIX)
    if not re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", encoded):
        raise ValueError("what follows whsec_ is not base64")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError("what follows whsec_ is not base64") from error
    if not 24 <= len(key) <= 64:
        raise ValueError(f"it decodes to {len(key)} bytes; 24 to 64 are allowed")
    return key


def load_secrets(
    config: Config, environ: Mapping[str, str], *, credentials: bool = True
) -> Secrets:
    """Read every secret a configuration points to; raises ConfigError naming each that fails.

    Without `credentials`, those from systemd are left out: ExecReload= is run without them.
    """
    problems: list[ConfigProblem] = []

    def read(key: str, source: SecretSource | None) -> str | None:
        if source is None or (source.credential is not None and not credentials):
            return None
        try:
            return read_secret(source, environ)
        except _Unreadable as error:
            problems.append(ConfigProblem(key, shown(source), error.args[0], error.args[1]))
            return None

    keys: dict[str, tuple[bytes, ...]] = {}
    for index, endpoint in enumerate(config.endpoints):
        found = []
        for where, source in sources(endpoint):
            key = f"endpoints[{index}] ({endpoint.id}).{where}"
            text = read(key, source)
            if text is None:
                continue
            try:
                found.append(parse_key(text))
            except ValueError as error:
                remedy = "Make one: python3 -c \"import base64,os;print('whsec_'+base64."
                remedy += 'b64encode(os.urandom(32)).decode())"'
                problems.append(ConfigProblem(key, shown(source), str(error), remedy))
        keys[endpoint.id] = tuple(found)
    sasl = config.kafka.sasl
    postgres_password = read("postgres.password", config.postgres.password)
    sasl_password = read("kafka.sasl.password", sasl.password if sasl else None)
    if problems:
        raise ConfigError(problems)
    return Secrets(keys, postgres_password, sasl_password)


def sources(endpoint: EndpointConfig) -> list[tuple[str, SecretSource]]:
    """(key, source) of each secret of an endpoint, in order."""
    found = [("secret", endpoint.secret)] if endpoint.secret is not None else []
    found += [(f"secrets[{i}]", source) for i, source in enumerate(endpoint.secrets)]
    return [(key, source) for key, source in found if source is not None]


def shown(source: SecretSource) -> str:
    """Where a secret comes from, never what it is."""
    for kind in ("file", "credential", "env"):
        value = getattr(source, kind)
        if value is not None:
            return f"{{{kind}: {value}}}"
    return "{inline: ***}"
