"""Secrets: read from a file, a systemd credential or the environment, never shown.

Invariant: no message of this module holds a secret's content, and no file is read without a bound.
Leaves out: signing, and what is wrong with a source before it is read (check_secret).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dispatcherd.config import tls
from dispatcherd.config.model import Config, EndpointConfig, KafkaTls, SecretSource, TlsConfig
from dispatcherd.errors import ConfigError, ConfigProblem
from dispatcherd.keys import SigningKey, parse_key

_MOST_BYTES = 65_536
_MAKE_ONE = "Make one: dispatcherd keys new"


@dataclass(frozen=True, slots=True)
class Access:
    """What a receiver asks of whoever calls, beside a signature."""

    headers: tuple[tuple[str, str], ...] = ()
    """The static headers, with those that were read from elsewhere."""
    tls: ssl.SSLContext | None = None
    """None: as for all."""

    def __repr__(self) -> str:
        return f"<Access with {len(self.headers)} headers>"


@dataclass(frozen=True, slots=True)
class Secrets:
    """Everything secret that a configuration points to."""

    endpoint_keys: dict[str, tuple[SigningKey, ...]] = field(default_factory=dict)
    """Endpoint id → signing keys, in the order given."""
    postgres_password: str | None = None
    sasl_password: str | None = None
    access: dict[str, Access] = field(default_factory=dict)
    """By endpoint id, of those that have headers of their own or a TLS of their own."""
    proxy_password: str | None = None

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
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
        if len(raw) > _MOST_BYTES:
            raise _Unreadable("it is larger than 64 KiB", "Name the file of one secret")
        return raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        remedy = "Create the file, readable by the service"
        if source.credential is not None:
            remedy = f"Add LoadCredential={source.credential}:/path to the unit"
        raise _Unreadable(f"cannot read it: {why}", remedy) from error


def load_secrets(
    config: Config, environ: Mapping[str, str], *, credentials: bool = True
) -> Secrets:
    """Read every secret a configuration points to, and try its TLS files; raises ConfigError
    naming each that fails.

    Without `credentials`, those from systemd are left out: ExecReload= is run without them.
    """
    reading = _Reading(environ, credentials)
    keys = {
        endpoint.id: reading.keys(f"endpoints[{index}] ({endpoint.id})", endpoint)
        for index, endpoint in enumerate(config.endpoints)
    }
    access = {
        endpoint.id: reading.access(f"endpoints[{index}] ({endpoint.id})", endpoint)
        for index, endpoint in enumerate(config.endpoints)
        if endpoint.headers or endpoint.tls is not None
    }
    postgres = reading.password("postgres.password", config.postgres.password)
    sasl = None
    if config.kafka.sasl is not None:
        sasl = reading.password("kafka.sasl.password", config.kafka.sasl.password)
    proxy = None
    if config.network.proxy is not None:
        proxy = reading.password("network.proxy.password", config.network.proxy.password)
    if config.kafka.tls is not None:
        _try_tls(config.kafka.tls, reading.problems)
    if reading.problems:
        raise ConfigError(reading.problems)
    return Secrets(keys, postgres, sasl, access, proxy)


def postgres_password(config: Config, environ: Mapping[str, str]) -> str | None:
    """What a command on the database needs, and no more; raises ConfigError."""
    reading = _Reading(environ)
    password = reading.password("postgres.password", config.postgres.password)
    if reading.problems:
        raise ConfigError(reading.problems)
    return password


def kafka_password(config: Config, environ: Mapping[str, str]) -> str | None:
    """What a command on Kafka needs, its TLS files tried; raises ConfigError."""
    return load_secrets(Config(kafka=config.kafka), environ).sasl_password


class _Reading:
    """One pass over the secrets, and what went wrong in it."""

    def __init__(self, environ: Mapping[str, str], credentials: bool = True) -> None:
        self.problems: list[ConfigProblem] = []
        self._environ = environ
        self._credentials = credentials

    def text(self, key: str, source: SecretSource | None) -> str | None:
        if source is None or (source.credential is not None and not self._credentials):
            return None
        try:
            return read_secret(source, self._environ)
        except _Unreadable as error:
            self.problems.append(ConfigProblem(key, shown(source), error.args[0], error.args[1]))
            return None

    def password(self, key: str, source: SecretSource | None) -> str | None:
        text = self.text(key, source)
        if text == "" and source is not None:
            self.problems.append(
                ConfigProblem(key, shown(source), "it is empty", "Write the password")
            )
        return text

    def keys(self, at: str, endpoint: EndpointConfig) -> tuple[SigningKey, ...]:
        found = []
        given = sources(endpoint)
        for where, source in given:
            text = self.text(f"{at}.{where}", source)
            if text is None:
                continue
            try:
                found.append(parse_key(text))
            except ValueError as error:
                self.problems.append(
                    ConfigProblem(f"{at}.{where}", shown(source), str(error), _MAKE_ONE)
                )
        hex_header = endpoint.sign.hex_header
        if (
            hex_header is not None
            and len(found) == len(given) > 0
            and not any(isinstance(key, bytes) for key in found)
        ):
            trouble = "the hex form is HMAC, and there are Ed25519 keys (whsk_) only"
            remedy = "Add a whsec_ secret, or remove hex_header"
            self.problems.append(
                ConfigProblem(f"{at}.sign.hex_header", repr(hex_header), trouble, remedy)
            )
        return tuple(found)

    def access(self, at: str, endpoint: EndpointConfig) -> Access:
        headers = []
        for name, value in endpoint.headers.items():
            text = value if isinstance(value, str) else self.header(f"{at}.headers.{name}", value)
            if text is not None:
                headers.append((name, text))
        own = None if endpoint.tls is None else self.tls(f"{at}.tls", endpoint.tls)
        return Access(tuple(headers), own)

    def header(self, key: str, source: SecretSource) -> str | None:
        text = self.text(key, source)
        if text is not None and (not text or not text.isascii() or not text.isprintable()):
            trouble = "it holds a line break or a character outside ASCII"
            remedy = "Write one line of printable ASCII"
            self.problems.append(
                ConfigProblem(key, shown(source), trouble if text else "it is empty", remedy)
            )
        return text

    def tls(self, at: str, config: TlsConfig) -> ssl.SSLContext | None:
        authorities = self.pem(f"{at}.ca_file", config.ca_file, tls.read_certificates)
        certificate = self.pem(
            f"{at}.client_certificate_file", config.client_certificate_file, tls.read_certificates
        )
        source, key = config.client_key, None
        try:
            text = self.text(f"{at}.client_key", source)
            if text is not None:
                key = text.encode()
                tls.check_key(key)
            if (config.ca_file is None) != (authorities is None):
                return None
            return tls.context(authorities, certificate, key, config.minimum_version)
        except tls.Unusable as error:
            where = "" if source is None else shown(source)
            self.problems.append(tls.problem(f"{at}.client_key", where, error))
            return None

    def pem(self, key: str, path: str | None, read: Callable[[str], bytes]) -> bytes | None:
        if path is None:
            return None
        try:
            return read(path)
        except tls.Unusable as error:
            self.problems.append(tls.problem(key, repr(path[:80]), error))
            return None


def _try_tls(tls: KafkaTls, problems: list[ConfigProblem]) -> None:
    """Load each file as the client will, so that a mistake is one of the configuration."""
    if tls.ca_file is not None:
        try:
            ssl.create_default_context(cafile=tls.ca_file)
        except OSError as error:
            trouble = "no CA certificate can be read from it" + _why(error)
            remedy = "Name a PEM file that the service can read"
            problems.append(ConfigProblem("kafka.tls.ca_file", tls.ca_file, trouble, remedy))
    if tls.cert_file is not None and tls.key_file is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:  # without a password callback OpenSSL would ask the terminal for one
            context.load_cert_chain(tls.cert_file, tls.key_file, password=lambda: b"")
        except OSError as error:
            trouble = f"it and {tls.key_file} are no certificate with its key" + _why(error)
            remedy = "Name PEM files that belong together, the key without a passphrase"
            problems.append(ConfigProblem("kafka.tls.cert_file", tls.cert_file, trouble, remedy))


def _why(error: OSError) -> str:
    return f": {error.strerror}" if error.strerror and not isinstance(error, ssl.SSLError) else ""


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
