"""The nouns of the catalogue: event types, their versions, and an event made from an example.

Invariant: what is in a `Catalogue` has a valid JSON Schema. Leaves out: reading files (files).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from dispatcherd.errors import UnknownEvent

Schema = dict[str, Any]
"""A JSON Schema (2020-12) as parsed; its references point into itself only."""


@dataclass(frozen=True, slots=True)
class EventVersion:
    """One version of an event type: what `data` looks like."""

    type: str
    version: str
    schema: Schema
    """Of the event's `data`, an object."""
    example: dict[str, Any]
    """A `data` as it would be published."""
    deprecated: str | None = None
    """Since when, and what to use instead."""
    changes: str | None = None
    """What is different from the version before, for people."""


@dataclass(frozen=True, slots=True)
class EventType:
    """One event type with all its versions."""

    type: str
    description: str
    versions: dict[str, EventVersion]
    """In the order of the file: the oldest first."""
    file: str
    """The name of the file that it came from."""

    @property
    def current(self) -> EventVersion:
        """The newest version that is not deprecated; of none, the newest."""
        alive = [v for v in self.versions.values() if v.deprecated is None]
        return (alive or list(self.versions.values()))[-1]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every event type that there is."""

    types: dict[str, EventType]
    """By name, sorted."""

    def event(self, type: str, version: str | None = None) -> EventVersion:
        """A version of a type, the current one by default. Raises UnknownEvent."""
        found = self.types.get(type)
        if found is None:
            raise UnknownEvent(
                f"the catalogue has no event type {type!r}. {_near(type, list(self.types))}"
            )
        if version is None:
            return found.current
        if version not in found.versions:
            raise UnknownEvent(
                f"{type} has no version {version!r} in the catalogue. "
                f"It has: {', '.join(found.versions)}"
            )
        return found.versions[version]


def envelope(event: EventVersion, id: str, timestamp: str) -> dict[str, Any]:
    """A whole event as it would be published, with the example as its data.

    `timestamp` is RFC 3339 in UTC.
    """
    return {
        "id": id,
        "type": event.type,
        "version": event.version,
        "timestamp": timestamp,
        "data": event.example,
    }


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    if near:
        return f"Did you mean {near[0]}?"
    return f"It has: {', '.join(known[:20])}{' …' if len(known) > 20 else ''}"
