"""Rules that a single key's type cannot state: between keys, inside texts.

Invariant: pure; says every problem at once. Leaves out: what needs the network or the file system.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_network

from dispatcherd.address import AddressGuard
from dispatcherd.config.model import (
    Config,
    EndpointConfig,
    FilterCondition,
    LimitsConfig,
    SecretSource,
)
from dispatcherd.errors import AddressForbidden, ConfigProblem

_TYPE_PATTERN = re.compile(r"!?(\*|[A-Za-z0-9_:/-]+(\.[A-Za-z0-9_:/-]+)*(\.\*)?)")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = {
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "webhook-attempt",
    "x-webhook-version",
    "content-type",
    "content-length",
    "host",
    "transfer-encoding",
    "connection",
    "user-agent",
}
_OPERATORS = (
    "equals",
    "not_equals",
    "one_of",
    "prefix",
    "greater_than",
    "less_than",
    "exists",
)


def check(config: Config) -> list[ConfigProblem]:
    """Every rule that spans keys."""
    problems = [*_kafka(config), *_network(config), *_limits(config.limits)]
    problems += _secret_source(config, "postgres.password", config.postgres.password)
    if config.kafka.sasl is not None:
        problems += _secret_source(config, "kafka.sasl.password", config.kafka.sasl.password)
    counts = Counter(endpoint.id for endpoint in config.endpoints)
    guard = None
    if not any(p.key.startswith("network.allowed_networks") for p in problems):
        guard = AddressGuard(config.network.allowed_networks)
    for index, endpoint in enumerate(config.endpoints):
        at = f"endpoints[{index}] ({endpoint.id})"
        if counts[endpoint.id] > 1:
            problems.append(
                ConfigProblem(
                    f"{at}.id", repr(endpoint.id), "two endpoints have this id", "Rename one"
                )
            )
        problems += _endpoint(config, guard, at, endpoint)
    return problems


def check_runnable(config: Config) -> list[ConfigProblem]:
    """What `run` needs beyond a valid configuration."""
    if config.kafka.topics or config.kafka.topic_patterns:
        return []
    return [
        ConfigProblem(
            "kafka.topics", "[]", "there is nothing to consume", "Name a topic, or a topic_patterns"
        )
    ]


def _kafka(config: Config) -> Iterator[ConfigProblem]:
    kafka = config.kafka
    for i, pattern in enumerate(kafka.topic_patterns):
        try:
            re.compile(pattern)
        except re.error as error:
            yield ConfigProblem(
                f"kafka.topic_patterns[{i}]",
                repr(pattern),
                f"not a regular expression: {error}",
                "Mend it; a plain name belongs into kafka.topics",
            )
    for i, server in enumerate(kafka.bootstrap_servers):
        host, _, port = server.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65_536:
            yield ConfigProblem(
                f"kafka.bootstrap_servers[{i}]", repr(server), "not host:port", "Write host:9092"
            )
    if not kafka.bootstrap_servers:
        yield ConfigProblem(
            "kafka.bootstrap_servers", "[]", "no broker is named", "Write [host:9092]"
        )
    if kafka.heartbeat_interval_seconds * 3 > kafka.session_timeout_seconds:
        yield ConfigProblem(
            "kafka.heartbeat_interval_seconds",
            str(kafka.heartbeat_interval_seconds),
            "more than a third of kafka.session_timeout_seconds "
            f"({kafka.session_timeout_seconds}): one late heartbeat would cost the membership",
            f"Write {kafka.session_timeout_seconds / 3:g} or less",
        )
    if kafka.request_timeout_seconds <= kafka.rebalance_timeout_seconds:
        yield ConfigProblem(
            "kafka.request_timeout_seconds",
            str(kafka.request_timeout_seconds),
            "not above kafka.rebalance_timeout_seconds "
            f"({kafka.rebalance_timeout_seconds}): joining would time out",
            f"Write {kafka.rebalance_timeout_seconds + 10:g}",
        )
    if kafka.tls is not None and (kafka.tls.cert_file is None) != (kafka.tls.key_file is None):
        yield ConfigProblem(
            "kafka.tls.cert_file",
            repr(kafka.tls.cert_file),
            "certificate and key go together",
            "Give both cert_file and key_file, or neither",
        )


def _network(config: Config) -> Iterator[ConfigProblem]:
    for i, network in enumerate(config.network.allowed_networks):
        try:
            ip_network(network)
        except ValueError as error:
            try:
                remedy = f"Write {ip_network(network, strict=False)}"
            except ValueError:
                remedy = "Write a network such as 10.1.0.0/16"
            yield ConfigProblem(f"network.allowed_networks[{i}]", repr(network), str(error), remedy)
    limits = config.network
    if limits.max_connections_per_host > limits.max_connections:
        yield ConfigProblem(
            "network.max_connections_per_host",
            str(limits.max_connections_per_host),
            f"above network.max_connections ({limits.max_connections})",
            f"Write {limits.max_connections} or less",
        )


def _limits(limits: LimitsConfig) -> Iterator[ConfigProblem]:
    for small, large in (
        ("lane_deliveries", "memory_deliveries"),
        ("lane_bytes", "memory_bytes"),
        ("window_deliveries", "memory_deliveries"),
        ("window_bytes", "memory_bytes"),
    ):
        low, high = getattr(limits, small), getattr(limits, large)
        if low > high:
            yield ConfigProblem(
                f"limits.{small}",
                str(low),
                f"above limits.{large} ({high})",
                f"Write {high} or less, or raise limits.{large}",
            )


def _secret_source(
    config: Config, key: str, source: SecretSource | None
) -> Iterator[ConfigProblem]:
    if source is None:
        return
    given = [k for k in ("file", "credential", "env", "inline") if getattr(source, k) is not None]
    if len(given) != 1:
        yield ConfigProblem(
            key,
            "{" + ", ".join(given) + "}",
            "a secret has exactly one source",
            "Give one of file, credential, env (or inline)",
        )
    elif given == ["inline"] and not config.allow_inline_secrets:
        yield ConfigProblem(
            f"{key}.inline",
            "***",
            "secrets are not written into the configuration",
            "Use file, credential or env; for a try-out set allow_inline_secrets: true",
        )


def _endpoint(
    config: Config, guard: AddressGuard | None, at: str, endpoint: EndpointConfig
) -> Iterator[ConfigProblem]:
    if guard is not None:
        try:
            guard.check_url(endpoint.url, config.network.allow_http)
        except AddressForbidden as error:
            trouble, _, remedy = str(error).partition("; ")
            remedy = remedy[:1].upper() + remedy[1:] if remedy else "Write https://host/path"
            yield ConfigProblem(f"{at}.url", repr(endpoint.url[:100]), trouble, remedy)
    for i, pattern in enumerate(endpoint.event_types):
        if _TYPE_PATTERN.fullmatch(pattern) is None:
            yield ConfigProblem(
                f"{at}.event_types[{i}]",
                repr(pattern[:100]),
                "not an event type pattern",
                "Write order.created, order.*, * or !order.deleted",
            )
    if not endpoint.event_types:
        yield ConfigProblem(
            f"{at}.event_types", "[]", "it would get no event", 'Write ["*"] for all'
        )
    yield from _headers(at, endpoint)
    yield from _secrets(config, at, endpoint)
    if endpoint.filter is not None:
        for group in ("all", "any", "none"):
            for i, condition in enumerate(getattr(endpoint.filter, group)):
                yield from _condition(f"{at}.filter.{group}[{i}]", condition)


def _headers(at: str, endpoint: EndpointConfig) -> Iterator[ConfigProblem]:
    names = [(f"{at}.headers.{name}", name) for name in endpoint.headers]
    if endpoint.sign.hex_header is not None:
        names.append((f"{at}.sign.hex_header", endpoint.sign.hex_header))
    for key, name in names:
        if _HEADER_NAME.fullmatch(name) is None:
            yield ConfigProblem(key, repr(name), "not a header name", "Use letters, digits and -")
        elif name.lower() in _OURS:
            yield ConfigProblem(key, repr(name), "dispatcherd sets this header itself", "Remove it")
    for name, value in endpoint.headers.items():
        if not value.isprintable() or not value.isascii():
            yield ConfigProblem(
                f"{at}.headers.{name}",
                "***",
                "the value holds a line break or a character outside ASCII",
                "Write one line of printable ASCII",
            )


def _secrets(config: Config, at: str, endpoint: EndpointConfig) -> Iterator[ConfigProblem]:
    signed = endpoint.sign.standard or endpoint.sign.hex_header is not None
    given = endpoint.secret is not None or bool(endpoint.secrets)
    if signed and not given:
        yield ConfigProblem(
            f"{at}.secret",
            "(missing)",
            "requests are signed, and there is no secret to sign with",
            "Add `secret: {file: /path}`; to send unsigned on purpose: sign: {standard: false}",
        )
    if given and not signed:
        yield ConfigProblem(
            f"{at}.sign",
            "standard: false",
            "there is a secret, and nothing that uses it",
            "Set sign.standard: true or sign.hex_header",
        )
    if endpoint.secret is not None:
        yield from _secret_source(config, f"{at}.secret", endpoint.secret)
    for i, source in enumerate(endpoint.secrets):
        yield from _secret_source(config, f"{at}.secrets[{i}]", source)


def _condition(at: str, condition: FilterCondition) -> Iterator[ConfigProblem]:
    if (condition.header is None) == (condition.field is None):
        yield ConfigProblem(
            at,
            f"header: {condition.header}, field: {condition.field}",
            "a condition looks at a header or at a field",
            "Give exactly one of header and field",
        )
    given = [name for name in _OPERATORS if getattr(condition, name) is not None]
    if len(given) != 1:
        yield ConfigProblem(
            at,
            ", ".join(given) or "(no test)",
            "a condition makes exactly one test",
            f"Give one of {', '.join(_OPERATORS)}",
        )
