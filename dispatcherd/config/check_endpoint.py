"""Rules for one endpoint: its URL, what it wants, its headers, what it signs with.

Invariant: pure; no problem shows what may be a secret (a header's value, what stands before the @
of a URL). Leaves out: rules between endpoints (check).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from dispatcherd.address import AddressGuard
from dispatcherd.config.check_secret import check_secret
from dispatcherd.config.model import OPERATORS, Config, EndpointConfig, FilterCondition
from dispatcherd.errors import AddressForbidden, ConfigProblem

_TYPE_PATTERN = re.compile(r"!?(\*|[A-Za-z0-9_:/-]+(\.[A-Za-z0-9_:/-]+)*(\.\*)?)")
_LONGEST_TYPE = 128
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_USERINFO = re.compile(r"//.*@")
_URL_AGAIN = re.compile(r"""^(?:URL )?(['"]).*?\1: """)
_OURS = {
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "webhook-attempt",
    "x-webhook-version",
    "x-webhook-type",
    "content-type",
    "user-agent",
}
_HTTPS_OWN = {
    # They say how a message is framed (RFC 9110, 9112), and a fixed text would be a lie.
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
_INT64 = 2**63


def check_endpoint(
    config: Config, guard: AddressGuard | None, at: str, endpoint: EndpointConfig
) -> Iterator[ConfigProblem]:
    """The mistakes in one endpoint; `at` is how its keys begin."""
    if guard is not None:
        try:
            guard.check_url(endpoint.url, config.network.allow_http)
        except AddressForbidden as error:
            trouble, _, remedy = _URL_AGAIN.sub("", str(error)).partition("; ")
            url = repr(_USERINFO.sub("//***@", endpoint.url)[:100])
            remedy = remedy[:1].upper() + remedy[1:] or "Write https://host/path"
            yield ConfigProblem(f"{at}.url", url, trouble, remedy)
    yield from _event_types(at, endpoint)
    yield from _headers(at, endpoint)
    yield from _secrets(config, at, endpoint)
    yield from _tls(config, at, endpoint)
    if endpoint.filter is not None:
        for group in ("all", "any", "none"):
            for i, condition in enumerate(getattr(endpoint.filter, group)):
                yield from _condition(f"{at}.filter.{group}[{i}]", condition)
    limits = config.limits
    for size, cap in (("max_events", "lane_deliveries"), ("max_bytes", "lane_bytes")):
        value, most = getattr(endpoint.batch, size), getattr(limits, cap)
        if value > most:
            yield ConfigProblem(
                f"{at}.batch.{size}",
                str(value),
                f"above limits.{cap} ({most}): no batch would ever be full",
                f"Write {most} or less, or raise limits.{cap}",
            )


def check_form(at: str, condition: FilterCondition) -> Iterator[ConfigProblem]:
    """Whether a condition of a filter looks at one thing and tests something."""
    if (condition.header is None) == (condition.field is None):
        yield ConfigProblem(
            at,
            "(neither)" if condition.field is None else "(both header and field)",
            "a condition looks at a header or at a field",
            "Give `header: <name>` or `field: <dotted path>`",
        )
    if all(getattr(condition, name) is None for name in OPERATORS):
        yield ConfigProblem(
            at, "(no test)", "a condition tests something", f"Give one of {', '.join(OPERATORS)}"
        )


def _condition(at: str, condition: FilterCondition) -> Iterator[ConfigProblem]:
    yield from check_form(at, condition)
    for name in ("header", "field"):
        value = getattr(condition, name)
        if value == "":
            yield ConfigProblem(f"{at}.{name}", "''", f"no {name} has this name", "Name one")
        elif name == "field" and value is not None and value.startswith("$."):
            yield ConfigProblem(
                f"{at}.field", repr(value[:80]), "not a dotted path", f"Write {value[2:82]}"
            )
    if condition.one_of == []:
        yield ConfigProblem(f"{at}.one_of", "[]", "nothing is one of no values", "Write some")
    low, high = condition.greater_than, condition.less_than
    if low is not None and high is not None and low >= high:
        yield ConfigProblem(
            f"{at}.greater_than",
            f"{low:g}",
            f"not below less_than ({high:g}): no number is between the two",
            "Each test of a condition must hold; for either of them write two conditions in `any`",
        )
    for name, member in _compared(condition):
        if isinstance(member, int) and not -_INT64 <= member < _INT64:
            trouble = "a whole number of more than 64 bits"
            remedy = "Use greater_than or less_than, or a text"
            yield ConfigProblem(f"{at}.{name}", str(member)[:40], trouble, remedy)
        elif isinstance(member, float) and not math.isfinite(member):
            trouble = "no JSON number is infinite or not a number"
            yield ConfigProblem(f"{at}.{name}", str(member), trouble, "Write a number")


def _compared(condition: FilterCondition) -> Iterator[tuple[str, object]]:
    for name in ("equals", "not_equals", "greater_than", "less_than"):
        yield name, getattr(condition, name)
    for member in condition.one_of or ():
        yield "one_of", member


def _event_types(at: str, endpoint: EndpointConfig) -> Iterator[ConfigProblem]:
    for i, pattern in enumerate(endpoint.event_types):
        if _TYPE_PATTERN.fullmatch(pattern) is None or len(pattern) > _LONGEST_TYPE + 1:
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
    elif "!*" in endpoint.event_types:
        yield ConfigProblem(
            f"{at}.event_types",
            "'!*'",
            "it takes every event away, whatever else is named",
            "Remove it; to end deliveries remove the endpoint",
        )


def _headers(at: str, endpoint: EndpointConfig) -> Iterator[ConfigProblem]:
    names = [(f"{at}.headers.{name}", name) for name in endpoint.headers]
    if endpoint.sign.hex_header is not None:
        names.append((f"{at}.sign.hex_header", endpoint.sign.hex_header))
    seen = set()
    for key, name in names:
        lower = name.lower()
        if _HEADER_NAME.fullmatch(name) is None:
            yield ConfigProblem(
                key, repr(name[:80]), "not a header name", "Use letters, digits and -"
            )
        elif lower in _OURS:
            yield ConfigProblem(key, repr(name), "dispatcherd sets this header itself", "Remove it")
        elif lower in _HTTPS_OWN:
            yield ConfigProblem(key, repr(name), "HTTP itself needs this header", "Remove it")
        elif lower in seen:
            yield ConfigProblem(key, repr(name), "it stands twice", "Keep one of the two")
        seen.add(lower)
    for name, value in endpoint.headers.items():
        if isinstance(value, str) and (not value.isprintable() or not value.isascii()):
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
            f"{at}.sign.standard",
            "false",
            "there is a secret, and nothing that uses it",
            "Remove the secret, or write sign.standard: true or sign.hex_header",
        )
    yield from check_secret(f"{at}.secret", endpoint.secret, config.allow_inline_secrets)
    for i, source in enumerate(endpoint.secrets):
        yield from check_secret(f"{at}.secrets[{i}]", source, config.allow_inline_secrets)
    for name, value in endpoint.headers.items():
        if not isinstance(value, str):
            yield from check_secret(f"{at}.headers.{name}", value, config.allow_inline_secrets)


def _tls(config: Config, at: str, endpoint: EndpointConfig) -> Iterator[ConfigProblem]:
    tls = endpoint.tls
    if tls is None:
        return
    if endpoint.url.startswith("http:"):
        trouble = "its URL is http://, which has no TLS"
        yield ConfigProblem(f"{at}.tls", "(a mapping)", trouble, "Write https://, or remove tls")
    if (tls.client_certificate_file is None) != (tls.client_key is None):
        lacking = "client_certificate_file" if tls.client_key else "client_key"
        yield ConfigProblem(
            f"{at}.tls.{lacking}",
            "(missing)",
            "certificate and key go together",
            "Give both client_certificate_file and client_key, or neither",
        )
    yield from check_secret(f"{at}.tls.client_key", tls.client_key, config.allow_inline_secrets)
