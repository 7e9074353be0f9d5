"""Header lookup in whatever a framework hands over.

Invariant: names compare without regard to case, bytes and str alike; a header that occurs twice
with different values is no header but an ambiguity, because two readers could pick different ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from dispatcherd.receiver.errors import MalformedHeader, MissingHeader

Headers: TypeAlias = Mapping[Any, Any] | Iterable[tuple[Any, Any]]
"""A mapping of any framework, or (name, value) pairs; names and values are str or bytes."""

_MAX_CHARACTERS = 8_192


class Fields(dict[str, list[str]]):
    """Headers once read: lower-case name → its values, in order."""


def read(headers: Headers) -> Fields:
    """The headers with names and values as str; what was read already is itself."""
    if isinstance(headers, Fields):
        return headers
    fields = Fields()
    for name, value in headers.items() if isinstance(headers, Mapping) else headers:
        fields.setdefault(_text(name).lower(), []).append(_text(value))
    return fields


def find_all(headers: Headers, name: str) -> list[str]:
    """Every value of that header, in order."""
    return read(headers).get(name.lower(), [])


def find(headers: Headers, name: str) -> str | None:
    """The header's value, None where it is absent. Raises MalformedHeader."""
    values = find_all(headers, name)
    if not values:
        return None
    if any(value != values[0] for value in values):
        raise MalformedHeader(name, f"occurs {len(values)} times with different values")
    if len(values[0]) > _MAX_CHARACTERS:
        raise MalformedHeader(name, f"has more than {_MAX_CHARACTERS} characters")
    return values[0].strip()


def need(headers: Headers, name: str) -> str:
    """The header's value, which must be there and not empty. Raises MissingHeader."""
    value = find(headers, name)
    if not value:
        raise MissingHeader(name)
    return value


def _text(value: object) -> str:
    """HTTP/1.1 bytes are latin-1 on the wire (RFC 9110, 5.5)."""
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
