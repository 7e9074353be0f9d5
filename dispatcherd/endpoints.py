"""The endpoints as this process works with them: a router, and a lane and a signer for each.

Invariant: a reload changes registrations, never what waits: a lane keeps its queue while its
endpoint's text changes. Leaves out: reading and writing the table (record.registry).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence

from dispatcherd import __version__, log
from dispatcherd.config.model import Config, EndpointConfig
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


class Outlet:
    """What sending to one endpoint takes beside its lane."""

    __slots__ = ("host", "signer", "target")

    def __init__(self, signer: Signer, target: Target) -> None:
        self.signer = signer
        self.target = target
        self.host = target.origin
        """Endpoints of one host share its connections."""


def _endpoint(registration: Registration) -> Endpoint:
    config = registration.config
    return Endpoint(
        id=registration.id,
        name=config.id,
        url=config.url,
        event_types=tuple(config.event_types),
        matches=MATCH_ALL if config.filter is None else compile_filter(config.filter),
        timeout_seconds=config.timeout_seconds,
        concurrency=config.concurrency,
        batch=BatchPolicy(
            config.batch.max_events, config.batch.max_bytes, config.batch.max_wait_seconds
        ),
        retry=RetryPolicy(
            tuple(config.retry.schedule_seconds),
            config.retry.max_attempts,
            config.retry.jitter,
            config.retry.max_retry_after_seconds,
        ),
        tenant=config.tenant,
        held=registration.held,
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
        self.lanes: dict[int, Lane] = {}
        self.backlogged: dict[Lane, None] = {}
        """Lanes that may have rows only in Postgres; emptied by whoever pages (retry)."""
        self.outlets: dict[int, Outlet] = {}
        self.router = Router([])

    def apply(
        self,
        registrations: Sequence[Registration],
        keys: Mapping[str, Sequence[SigningKey]],
        access: Mapping[str, Access],
    ) -> list[Lane]:
        """Take over the registrations of now; returns the lanes whose endpoints are gone."""
        seen = set()
        for registration in registrations:
            endpoint = _endpoint(registration)
            seen.add(endpoint.id)
            self._note(registration, endpoint)
            lane = self.lanes.get(endpoint.id)
            if lane is None:
                limits = self._limits
                self.lanes[endpoint.id] = Lane(
                    endpoint, limits.lane_deliveries, limits.lane_bytes, self.backlogged
                )
            else:
                lane.endpoint = endpoint
            self.outlets[endpoint.id] = self._outlet(
                registration.config,
                keys.get(endpoint.name, ()),
                access.get(endpoint.name, Access()),
            )
        gone = [lane for number, lane in self.lanes.items() if number not in seen]
        for lane in gone:
            lane.removed = True
            del self.lanes[lane.endpoint.id], self.outlets[lane.endpoint.id]
        self.router = Router([lane.endpoint for lane in self.lanes.values()])
        return gone

    def _outlet(self, config: EndpointConfig, keys: Sequence[SigningKey], access: Access) -> Outlet:
        headers = [
            ("content-type", "application/json"),
            ("user-agent", self._user_agent),
            *access.headers,
        ]
        signer = Signer(keys, standard=config.sign.standard, hex_header=config.sign.hex_header)
        return Outlet(signer, self._target(config.url, headers, access.tls))

    def _note(self, registration: Registration, endpoint: Endpoint) -> None:
        known = self.lanes.get(endpoint.id)
        if endpoint.held and (known is None or not known.endpoint.held):
            logger.warning(
                "endpoint_held",
                endpoint=endpoint.name,
                reason="it is registered, but not in this process's file: its deliveries are "
                "parked. Put it back, or run: dispatcherd endpoints remove " + endpoint.name,
            )
        if registration.stale:
            logger.warning(
                "endpoint_stale",
                endpoint=endpoint.name,
                reason="another instance registered a higher revision: that one is used",
            )
