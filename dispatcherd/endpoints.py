"""The endpoints as this process works with them: a router; lane and outlet of each in use.

Invariant: a reload changes registrations, never what waits: a lane keeps its queue while its
endpoint's text changes. What only an endpoint with deliveries needs is made for the first of them,
so that a hundred thousand that rest cost little. Leaves out: reading and writing the table
(record.registry).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from dispatcherd import __version__, log
from dispatcherd.config.model import Config, EndpointConfig, RetryConfig
from dispatcherd.config.secrets import Access
from dispatcherd.delivery import BatchPolicy, Endpoint, RetryPolicy
from dispatcherd.exchange import Target
from dispatcherd.filter import compile_filter
from dispatcherd.keys import SigningKey
from dispatcherd.lane import Lane
from dispatcherd.record.registry import Registration
from dispatcherd.route import MATCH_ALL, Router
from dispatcherd.sign import Signer

logger = log.get(__name__)

_NO_ACCESS: Final = Access()
_T = TypeVar("_T")


class Outlet:
    """What sending to one endpoint takes beside its lane."""

    __slots__ = ("access", "config", "host", "keys", "signer", "stale", "target")

    def __init__(
        self,
        signer: Signer,
        target: Target,
        config: EndpointConfig,
        keys: Sequence[SigningKey],
        access: Access,
    ) -> None:
        self.signer = signer
        self.target = target
        self.host = target.origin
        """Endpoints of one host share its connections."""
        self.config = config
        """What it was made from, as `keys` and `access`."""
        self.keys = keys
        self.access = access
        self.stale = False
        """Another one stands for the endpoint by now, or none: look it up again."""


class InUse(dict[int, _T]):
    """Lanes or outlets by surrogate key. `x[number]` makes that of a registered endpoint, `get`
    does not."""

    def __init__(self, make: Callable[[int], _T]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, number: int) -> _T:
        made = self[number] = self._make(number)
        return made


class Policies:
    """Endpoints, with the policies that are the same for most of them made once."""

    def __init__(self) -> None:
        self._usual = RetryConfig()
        self._usual_retry = _retry(self._usual)
        self._batches: dict[tuple[int, int, float], BatchPolicy] = {}

    def endpoint(self, registration: Registration) -> Endpoint:
        """As the hot path needs it."""
        config = registration.config
        batch = (config.batch.max_events, config.batch.max_bytes, config.batch.max_wait_seconds)
        policy = self._batches.get(batch)
        if policy is None:
            policy = self._batches[batch] = BatchPolicy(*batch)
        usual = config.retry == self._usual
        return Endpoint(
            id=registration.id,
            name=config.id,
            url=config.url,
            event_types=tuple(config.event_types),
            matches=MATCH_ALL if config.filter is None else compile_filter(config.filter),
            timeout_seconds=config.timeout_seconds,
            concurrency=config.concurrency,
            batch=policy,
            retry=self._usual_retry if usual else _retry(config.retry),
            tenant=config.tenant,
            held=registration.held,
        )


def _retry(config: RetryConfig) -> RetryPolicy:
    return RetryPolicy(
        tuple(config.schedule_seconds),
        config.max_attempts,
        config.jitter,
        config.max_retry_after_seconds,
    )


class Endpoints:
    """Registrations compiled; looked up by surrogate key."""

    def __init__(
        self,
        config: Config,
        target: Callable[[str, Iterable[tuple[str, str]], ssl.SSLContext | None], Target],
    ) -> None:
        self._limits = config.limits
        self._target = target
        self._user_agent = config.network.user_agent.replace("{version}", __version__)
        self._policies = Policies()
        self._configs: dict[int, EndpointConfig] = {}
        self._keys: Mapping[str, Sequence[SigningKey]] = {}
        self._access: Mapping[str, Access] = {}
        self.registered: dict[int, Endpoint] = {}
        """All of them, in the order of their registration."""
        self.held: set[int] = set()
        """Those that are not in this process's file."""
        self.lanes = InUse(self._lane)
        self.backlogged: dict[Lane, None] = {}
        """Lanes that may have rows only in Postgres; emptied by whoever pages (retry)."""
        self.outlets = InUse(self._outlet)
        self.router = Router([])

    def lane(self, number: int) -> Lane | None:
        """The lane of a registered endpoint; None when there is no such endpoint (any more)."""
        found = self.lanes.get(number)
        if found is None and number in self.registered:
            found = self.lanes[number]
        return found

    def apply(
        self,
        registrations: Iterable[Registration],
        gone: Iterable[int],
        keys: Mapping[str, Sequence[SigningKey]],
        access: Mapping[str, Access],
    ) -> list[Lane]:
        """Take over registrations that may have changed, and the numbers of those that are gone;
        returns the lanes of these. Keys and access are those of the whole file."""
        self._keys, self._access = keys, access
        for registration in registrations:
            self._register(registration)
        left = []
        for number in gone:
            if self.registered.pop(number, None) is None:
                continue
            del self._configs[number]
            self.router.drop(number)
            self.held.discard(number)
            outlet = self.outlets.pop(number, None)
            if outlet is not None:
                outlet.stale = True
            lane = self.lanes.pop(number, None)
            if lane is not None:
                lane.removed = True
                left.append(lane)
        for number, outlet in list(self.outlets.items()):
            if not self._is_made_from(outlet, self._configs[number]):
                outlet.stale = True
                self.outlets[number] = self._outlet(number)
        return left

    def _register(self, registration: Registration) -> None:
        number, config = registration.id, registration.config
        known = self.registered.get(number)
        self._note(registration, known)
        if (
            known is not None
            and known.held == registration.held
            and (config is self._configs[number] or config == self._configs[number])
        ):
            return
        endpoint = self._policies.endpoint(registration)
        self.registered[number] = endpoint
        self._configs[number] = config
        self.router.put(endpoint)
        if endpoint.held:
            self.held.add(number)
        else:
            self.held.discard(number)
        lane = self.lanes.get(number)
        if lane is not None:
            lane.endpoint = endpoint

    def _lane(self, number: int) -> Lane:
        limits = self._limits
        return Lane(
            self.registered[number], limits.lane_deliveries, limits.lane_bytes, self.backlogged
        )

    def _outlet(self, number: int) -> Outlet:
        config = self._configs[number]
        keys, access = self._of(config)
        headers = [
            ("content-type", "application/json"),
            ("user-agent", self._user_agent),
            *access.headers,
        ]
        signer = Signer(keys, standard=config.sign.standard, hex_header=config.sign.hex_header)
        target = self._target(config.url, headers, access.tls)
        return Outlet(signer, target, config, keys, access)

    def _of(self, config: EndpointConfig) -> tuple[Sequence[SigningKey], Access]:
        return self._keys.get(config.id, ()), self._access.get(config.id, _NO_ACCESS)

    def _is_made_from(self, outlet: Outlet, config: EndpointConfig) -> bool:
        keys, access = self._of(config)
        return outlet.config == config and outlet.keys == keys and outlet.access == access

    def _note(self, registration: Registration, known: Endpoint | None) -> None:
        name = registration.config.id
        if registration.held and (known is None or not known.held):
            logger.warning(
                "endpoint_held",
                endpoint=name,
                reason="it is registered, but not in this process's file: its deliveries are "
                "parked. Put it back, or run: dispatcherd endpoints remove " + name,
            )
        if registration.stale:
            logger.warning(
                "endpoint_stale",
                endpoint=name,
                reason="another instance registered a higher revision: that one is used",
            )
