"""Who wants an event: event-type patterns, tenants, and the filters that are left to evaluate.

Invariant: the answer is that of asking each endpoint in registration order; the cost depends on
the endpoints that want the type, not on how many there are. Leaves out: what a filter says
(filter) and what becomes of the deliveries (lane).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from dispatcherd.delivery import Endpoint, Event, Matcher


def _match_all(event: Event, document: Any) -> bool:
    return True


MATCH_ALL: Final[Matcher] = _match_all
"""`Endpoint.matches` of an endpoint without a filter: known by identity, and never called."""

_CACHED_TYPES: Final = 10_000
_CACHED_ENDPOINTS: Final = 1_000_000


class _Patterns:
    """An endpoint's event-type patterns, sorted by kind. Prefixes keep their dot."""

    __slots__ = (
        "denies",
        "everything",
        "exact",
        "not_exact",
        "not_prefixes",
        "nothing",
        "prefixes",
    )

    def __init__(self, patterns: Sequence[str]) -> None:
        wanted = [pattern for pattern in patterns if not pattern.startswith("!")]
        unwanted = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
        self.everything = "*" in wanted or bool(unwanted and not wanted)
        self.nothing = "*" in unwanted
        self.denies = bool(unwanted)
        self.prefixes, self.exact = _sorted_out(wanted)
        self.not_prefixes, self.not_exact = _sorted_out(unwanted)

    def deny(self, type_: str) -> bool:
        return self.nothing or type_ in self.not_exact or type_.startswith(self.not_prefixes)

    def allow(self, type_: str) -> bool:
        return self.everything or type_ in self.exact or type_.startswith(self.prefixes)


def _sorted_out(patterns: Sequence[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    prefixes = [pattern[:-1] for pattern in patterns if pattern.endswith(".*")]
    exact = [pattern for pattern in patterns if pattern != "*" and not pattern.endswith(".*")]
    return tuple(prefixes), frozenset(exact)


def compile_types(patterns: Sequence[str]) -> Callable[[str], bool]:
    """A test of event types.

    `order.created` is that type; `order.*` is any type below `order`, at any depth, and not
    `order`; `*` is every type; `!` before one of these takes away what it matches, whatever else
    does. Only negations: everything but those. No pattern at all: nothing.
    """
    compiled = _Patterns(patterns)
    return lambda type_: compiled.allow(type_) and not compiled.deny(type_)


class _Index:
    """Which endpoints (by place in registration order) may want a type, without asking each."""

    __slots__ = ("_everything", "_exact", "_prefixes")

    def __init__(self) -> None:
        self._everything: list[int] = []
        self._exact: dict[str, list[int]] = {}
        self._prefixes: dict[str, list[int]] = {}

    def add(self, place: int, patterns: _Patterns) -> None:
        if patterns.everything:
            self._everything.append(place)
            return
        for type_ in patterns.exact:
            self._exact.setdefault(type_, []).append(place)
        for prefix in dict.fromkeys(patterns.prefixes):
            self._prefixes.setdefault(prefix, []).append(place)

    def discard(self, place: int, patterns: _Patterns) -> None:
        if patterns.everything:
            self._everything.remove(place)
            return
        for kind, names in ((self._exact, patterns.exact), (self._prefixes, patterns.prefixes)):
            for name in dict.fromkeys(names):
                kind[name].remove(place)
                if not kind[name]:
                    del kind[name]

    def places(self, type_: str) -> Iterator[int]:
        """May name a place twice."""
        yield from self._everything
        yield from self._exact.get(type_, ())
        dot = type_.find(".")
        while dot >= 0:
            yield from self._prefixes.get(type_[: dot + 1], ())
            dot = type_.find(".", dot + 1)


class _Candidates:
    """The endpoints that want a type, with the filters that are still to be asked."""

    __slots__ = ("asked", "endpoints")

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.endpoints = tuple(endpoints)
        self.asked = [
            (endpoint, None if endpoint.matches is MATCH_ALL else endpoint.matches)
            for endpoint in endpoints
        ]
        if all(matches is None for _, matches in self.asked):
            self.asked = []


class Router:
    """Endpoints compiled for routing, one by one: a change costs what that endpoint costs."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints: dict[int, Endpoint] = {}
        """By place, in the order of registration."""
        self._places: dict[int, int] = {}
        """By the endpoint's surrogate key."""
        self._next_place = 0
        self._denying: dict[int, _Patterns] = {}
        """By place, of those endpoints that take something away again."""
        self._shared = _Index()
        self._of_tenant: dict[str, _Index] = {}
        self._cache: dict[str | tuple[str, str], _Candidates] = {}
        self._cached_endpoints = 0
        self._compiled: tuple[str, ...] = ()
        self._patterns = _Patterns(())
        for endpoint in endpoints:
            self.put(endpoint)

    def put(self, endpoint: Endpoint) -> None:
        """Take an endpoint in; or take over what has changed of it, in its old place."""
        place = self._places.get(endpoint.id)
        if place is None:
            place = self._places[endpoint.id] = self._next_place
            self._next_place += 1
        else:
            self._leave(place)
        self._endpoints[place] = endpoint
        patterns = self._patterns_of(endpoint)
        if patterns.denies:
            self._denying[place] = patterns
        index = self._shared
        if endpoint.tenant is not None:
            index = self._of_tenant.setdefault(endpoint.tenant, _Index())
        index.add(place, patterns)
        self._forget()

    def drop(self, endpoint_id: int) -> None:
        """Route to it no more. It may be unknown."""
        place = self._places.pop(endpoint_id, None)
        if place is not None:
            self._leave(place)
            del self._endpoints[place]
            self._forget()

    def _leave(self, place: int) -> None:
        endpoint = self._endpoints[place]
        self._denying.pop(place, None)
        index = self._shared if endpoint.tenant is None else self._of_tenant[endpoint.tenant]
        index.discard(place, self._patterns_of(endpoint))

    def _patterns_of(self, endpoint: Endpoint) -> _Patterns:
        """Neighbours often want the same."""
        if endpoint.event_types != self._compiled:
            self._compiled, self._patterns = endpoint.event_types, _Patterns(endpoint.event_types)
        return self._patterns

    def _forget(self) -> None:
        self._cache.clear()
        self._cached_endpoints = 0

    def route(self, event: Event, document: Any) -> tuple[Endpoint, ...]:
        """The endpoints that want the event, in registration order.

        An endpoint with a tenant gets that tenant's events only, one without gets everybody's.
        Raises what a filter raises.
        """
        key: str | tuple[str, str] = event.type
        if event.tenant is not None and event.tenant in self._of_tenant:
            key = (event.tenant, event.type)
        candidates = self._cache.get(key)
        if candidates is None:
            candidates = self._find(key)
        if not candidates.asked:
            return candidates.endpoints
        return tuple(
            [
                endpoint
                for endpoint, matches in candidates.asked
                if matches is None or matches(event, document)
            ]
        )

    def _find(self, key: str | tuple[str, str]) -> _Candidates:
        if isinstance(key, str):
            type_, places = key, set(self._shared.places(key))
        else:
            tenant, type_ = key
            places = set(self._shared.places(type_))
            places.update(self._of_tenant[tenant].places(type_))
        candidates = _Candidates(
            [self._endpoints[p] for p in sorted(places) if not self._denies(p, type_)]
        )
        self._cached_endpoints += len(candidates.endpoints)
        if len(self._cache) >= _CACHED_TYPES or self._cached_endpoints > _CACHED_ENDPOINTS:
            # Types and tenants are the producers' choice: neither their number nor that number
            # times the endpoints which want everything may decide about our memory.
            self._cache.clear()
            self._cached_endpoints = len(candidates.endpoints)
        self._cache[key] = candidates
        return candidates

    def _denies(self, place: int, type_: str) -> bool:
        patterns = self._denying.get(place)
        return patterns is not None and patterns.deny(type_)
