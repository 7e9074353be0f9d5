"""Which handler an event goes to, by its type and version.

Invariant: the most exact registration wins: the type with that version, the type with any version,
the longest `order.*`, then `*`; what nobody handles is accepted and logged, or refused, as the
policy says, and never lost silently. Leaves out: running the handler (running).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal, TypeAlias, TypeVar

from dispatcherd.receiver.event import Event

Handler: TypeAlias = Callable[[Event], Any] | Callable[[Event], Awaitable[Any]]
H = TypeVar("H", bound=Handler)
UnknownPolicy: TypeAlias = Literal["accept", "refuse"]

OTHER = "(other)"
_is_pattern = re.compile(r"\*|[A-Za-z0-9_.:/-]{1,128}(?<!\.)(\.\*)?").fullmatch


class Handlers:
    """The registrations of one receiver. Register at start; then read from any thread."""

    def __init__(self, unknown: UnknownPolicy = "accept") -> None:
        if unknown not in ("accept", "refuse"):
            raise ValueError(f"unknown={unknown!r}; it is 'accept' or 'refuse'")
        self.unknown = unknown
        self._exact: dict[tuple[str, str | None], Handler] = {}
        self._prefixes: dict[tuple[str, str | None], Handler] = {}
        self._types: set[str] = set()

    def add(self, pattern: str, handler: Handler, versions: Iterable[str | None]) -> None:
        """`order.created`, `order.*` (any type below it) or `*`. Raises ValueError if taken."""
        if not _is_pattern(pattern):
            raise ValueError(f"{pattern!r} is no event type; such as order.created, order.* or *")
        prefix = pattern == "*" or pattern.endswith(".*")
        table, name = (self._prefixes, pattern[:-1]) if prefix else (self._exact, pattern)
        for version in versions:
            if (name, version) in table:
                raise ValueError(f"{pattern} version {version or 'any'} already has a handler")
            table[name, version] = handler
        self._types.add(pattern)

    def find(self, event: Event) -> Handler | None:
        """The handler for this event, None if there is none."""
        for version in (event.version, None):
            found = self._exact.get((event.type, version))
            if found is not None:
                return found
        for version in (event.version, None):
            for name in _above(event.type):
                found = self._prefixes.get((name, version))
                if found is not None:
                    return found
        return None

    def label(self, event: Event) -> str:
        """The type for a metric: a registered one, else one word for all (labels are bounded)."""
        return event.type if event.type in self._types else OTHER

    def __bool__(self) -> bool:
        return bool(self._types)


def _above(type_: str) -> list[str]:
    """`order.item.added` → `order.item.`, `order.`, and the empty prefix of `*`."""
    parts = type_.split(".")[:32]
    return [".".join(parts[:n]) + "." for n in range(len(parts) - 1, 0, -1)] + [""]
