"""Rules that a single key's type cannot state: between keys, inside texts.

Invariant: pure; says every problem at once; no problem shows what may be a secret. Leaves out: what
needs the network or the file system (secrets), and what concerns one endpoint (check_endpoint).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator
from urllib.parse import parse_qsl, urlsplit

from dispatcherd.address import AddressGuard
from dispatcherd.config.check_endpoint import check_endpoint
from dispatcherd.config.check_facts import check_facts
from dispatcherd.config.check_network import check_network
from dispatcherd.config.check_secret import check_secret
from dispatcherd.config.model import (
    Config,
    DecodeConfig,
    KafkaConfig,
    LimitsConfig,
    ProxyConfig,
)
from dispatcherd.config.show import has_password
from dispatcherd.errors import ConfigProblem

_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_HOST = re.compile(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::([0-9]+))?")
_DSN_REMEDY = "Write postgresql://user@host:5432/database"
_TAKEN_HEADERS = ("ce_type", "ce_id", "ce_time", "ce_version", "webhook-tenant")


def check(config: Config, from_environment: Collection[str] = ()) -> list[ConfigProblem]:
    """Every rule that spans keys. In the keys `from_environment` a secret may stand."""
    problems = [
        *_kafka(config.kafka),
        *_topics(config.kafka),
        *_postgres(config, from_environment),
        *_network(config),
        *_decode(config.decode),
        *_limits(config.limits, config.decode),
        *check_facts(config.facts),
    ]
    inline = config.allow_inline_secrets
    problems += check_secret("postgres.password", config.postgres.password, inline)
    if config.kafka.sasl is not None:
        problems += check_secret("kafka.sasl.password", config.kafka.sasl.password, inline)
    counts = Counter(endpoint.id for endpoint in config.endpoints)
    guard = None
    if not any(p.key.startswith("network.allowed_networks") for p in problems):
        guard = AddressGuard(config.network.allowed_networks)
    for index, endpoint in enumerate(config.endpoints):
        at = f"endpoints[{index}] ({endpoint.id})"
        if counts[endpoint.id] > 1:
            trouble = f"{counts[endpoint.id]} endpoints have this id"
            problems.append(ConfigProblem(f"{at}.id", repr(endpoint.id), trouble, "Rename one"))
        problems += check_endpoint(config, guard, at, endpoint)
    return problems


def check_runnable(config: Config) -> list[ConfigProblem]:
    """What `run` needs beyond a valid configuration."""
    if config.kafka.topics or config.kafka.topic_patterns:
        return []
    remedy = "Name a topic there, or a pattern in kafka.topic_patterns"
    return [ConfigProblem("kafka.topics", "[]", "there is nothing to consume", remedy)]


def _kafka(kafka: KafkaConfig) -> Iterator[ConfigProblem]:
    if not kafka.bootstrap_servers:
        yield ConfigProblem(
            "kafka.bootstrap_servers", "[]", "no broker is named", "Write [host:9092]"
        )
    for i, server in enumerate(kafka.bootstrap_servers):
        match = _SERVER.fullmatch(server)
        if match is None or not 0 < int(match[2]) < 65_536:
            yield ConfigProblem(
                f"kafka.bootstrap_servers[{i}]",
                repr(server[:80]),
                "not host:port",
                "Write host:9092, and each broker as an item of its own",
            )
    if kafka.heartbeat_interval_seconds * 3 > kafka.session_timeout_seconds:
        yield ConfigProblem(
            "kafka.heartbeat_interval_seconds",
            f"{kafka.heartbeat_interval_seconds:g}",
            "more than a third of kafka.session_timeout_seconds "
            f"({kafka.session_timeout_seconds:g}): one late heartbeat would cost the membership",
            f"Write {math.floor(kafka.session_timeout_seconds * 100 / 3) / 100:g} or less",
        )
    if kafka.request_timeout_seconds <= kafka.rebalance_timeout_seconds:
        yield ConfigProblem(
            "kafka.request_timeout_seconds",
            f"{kafka.request_timeout_seconds:g}",
            "not above kafka.rebalance_timeout_seconds "
            f"({kafka.rebalance_timeout_seconds:g}): joining would time out",
            f"Write {kafka.rebalance_timeout_seconds + 10:g}",
        )
    if kafka.fetch_max_bytes_per_partition > kafka.fetch_max_bytes:
        yield _above(
            "kafka.fetch_max_bytes_per_partition",
            kafka.fetch_max_bytes_per_partition,
            "kafka.fetch_max_bytes",
            kafka.fetch_max_bytes,
        )
    if kafka.tls is not None and (kafka.tls.cert_file is None) != (kafka.tls.key_file is None):
        lacking = "cert_file" if kafka.tls.cert_file is None else "key_file"
        yield ConfigProblem(
            f"kafka.tls.{lacking}",
            "(missing)",
            "certificate and key go together",
            "Give both cert_file and key_file, or neither",
        )


def _topics(kafka: KafkaConfig) -> Iterator[ConfigProblem]:
    for i, topic in enumerate(kafka.topics):
        if topic in (".", ".."):
            yield ConfigProblem(
                f"kafka.topics[{i}]", repr(topic), "no topic can have this name", "Write another"
            )
    broken = False
    for i, pattern in enumerate(kafka.topic_patterns):
        try:
            re.compile(f"^(?:{pattern})$")
            re.compile(pattern)
        except re.error as error:
            broken = True
            yield ConfigProblem(
                f"kafka.topic_patterns[{i}]",
                repr(pattern[:80]),
                f"not a regular expression: {error}",
                "Mend it (.* stands for any text); a plain name belongs into kafka.topics",
            )
    if broken:
        return
    try:
        re.compile("|".join(f"(?:{pattern})" for pattern in kafka.topic_patterns))
    except re.error as error:
        yield ConfigProblem(
            "kafka.topic_patterns",
            "(a list)",
            f"each is a regular expression, but together they are none: {error}",
            "Use a group's name in one pattern only",
        )


def _postgres(config: Config, from_environment: Collection[str]) -> Iterator[ConfigProblem]:
    postgres = config.postgres
    for name in ("dsn", "listen_dsn"):
        dsn, key = getattr(postgres, name), f"postgres.{name}"
        if dsn is None:
            continue
        trouble = _dsn_trouble(dsn)
        if trouble is not None:
            yield ConfigProblem(key, "***", trouble, _DSN_REMEDY)
        elif has_password(dsn) and key not in from_environment and not config.allow_inline_secrets:
            yield ConfigProblem(
                key,
                "***",
                "it holds a password, and secrets are not written into the configuration",
                "Use postgres.password: {file: /path}, or set the whole of it in "
                f"DISPATCHERD_POSTGRES__{name.upper()}",
            )
    schema = postgres.schema_name
    if schema.startswith("pg_") or schema == "information_schema":
        yield ConfigProblem(
            "postgres.schema_name", repr(schema), "Postgres keeps this name", "Write another"
        )


def _dsn_trouble(dsn: str) -> str | None:
    """Why asyncpg could not take a DSN, without a word of it; None if it can."""
    try:
        split = urlsplit(dsn)
        parse_qsl(split.query, strict_parsing=bool(split.query))
    except ValueError:
        return "not a URL that can be parsed"
    if split.scheme not in ("postgresql", "postgres") or not dsn.startswith(f"{split.scheme}://"):
        return "not a postgresql:// URL (the form `host=… user=…` is not taken)"
    if split.netloc.count("@") > 1 or "@" in split.path:
        return "a user name or password holds @ or /: write %40 or %2F there"
    for host in split.netloc.rpartition("@")[2].split(","):
        match = _HOST.fullmatch(host)
        if match is None or not 0 < int(match[1] or "1") < 65_536:
            return "a host or port in it is none; a / in the password is written %2F"
    return None


def _network(config: Config) -> Iterator[ConfigProblem]:
    for i, network in enumerate(config.network.allowed_networks):
        yield from check_network(f"network.allowed_networks[{i}]", network, "10.1.0.0/16")
    proxy = config.network.proxy
    if proxy is not None:
        yield from _proxy(config, proxy)
    limits = config.network
    if limits.max_connections_per_host > limits.max_connections:
        yield _above(
            "network.max_connections_per_host",
            limits.max_connections_per_host,
            "network.max_connections",
            limits.max_connections,
        )


def _proxy(config: Config, proxy: ProxyConfig) -> Iterator[ConfigProblem]:
    at, remedy = "network.proxy", "Write http://host:port"
    match = _SERVER.fullmatch(proxy.url.removeprefix("http://").rstrip("/"))
    if match is None or not 0 < int(match[2]) < 65_536:
        yield ConfigProblem(f"{at}.url", repr(proxy.url[:80]), "it names no host and port", remedy)
    if (proxy.username is None) != (proxy.password is None):
        lacking = "username" if proxy.username is None else "password"
        trouble = "name and password go together"
        yield ConfigProblem(f"{at}.{lacking}", "(missing)", trouble, "Give both, or neither")
    if proxy.username is not None and (":" in proxy.username or not proxy.username.isascii()):
        trouble = "Basic authentication (RFC 7617) cannot carry it"
        yield ConfigProblem(f"{at}.username", repr(proxy.username[:80]), trouble, "Use ASCII, no :")
    yield from check_secret(f"{at}.password", proxy.password, config.allow_inline_secrets)
    for index, endpoint in enumerate(config.endpoints):
        if endpoint.url.startswith("http://"):
            yield ConfigProblem(
                f"endpoints[{index}] ({endpoint.id}).url",
                repr(endpoint.url[:100]),
                "plain http does not go through network.proxy, which tunnels https only",
                "Write https://, or remove network.proxy",
            )


def _decode(decode: DecodeConfig) -> Iterator[ConfigProblem]:
    taken = dict.fromkeys(_TAKEN_HEADERS, "dispatcherd reads it for something else")
    for name in ("type_header", "id_header", "version_header"):
        header = getattr(decode, name).lower()
        if header in taken:
            yield ConfigProblem(
                f"decode.{name}", repr(header[:80]), taken[header], "Write another header's name"
            )
        taken[header] = f"the same as decode.{name}"


def _limits(limits: LimitsConfig, decode: DecodeConfig) -> Iterator[ConfigProblem]:
    if limits.batch_inflated_bytes < decode.max_event_bytes:
        yield ConfigProblem(
            "limits.batch_inflated_bytes",
            str(limits.batch_inflated_bytes),
            f"below decode.max_event_bytes ({decode.max_event_bytes}): such an event, compressed, "
            "could not be read",
            f"Write {4 * decode.max_event_bytes} or more",
        )
    for small, large in (
        ("lane_deliveries", "memory_deliveries"),
        ("lane_bytes", "memory_bytes"),
        ("window_deliveries", "memory_deliveries"),
        ("window_bytes", "memory_bytes"),
    ):
        low, high = getattr(limits, small), getattr(limits, large)
        if low > high:
            yield _above(f"limits.{small}", low, f"limits.{large}", high)


def _above(key: str, value: float, other: str, most: float) -> ConfigProblem:
    return ConfigProblem(
        key, str(value), f"above {other} ({most})", f"Write {most} or less, or raise {other}"
    )
