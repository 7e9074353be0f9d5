"""Counters that cost nanoseconds: plain integers, read at scrape (admin.exposition).

Invariant: counting never allocates on the hot path but for a first sight, and never raises. Leaves
out: names, labels and text format.
"""

from __future__ import annotations

from typing import Final

from dispatcherd.delivery import Outcome, OutcomeKind, Reason

_UP_TO_A_SECOND: Final[tuple[float, ...]] = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
ATTEMPT_BOUNDS: Final[tuple[float, ...]] = (*_UP_TO_A_SECOND, 2.5, 5.0, 10.0, 30.0)
LATENCY_BOUNDS: Final[tuple[float, ...]] = (
    *_UP_TO_A_SECOND, 5.0, 30.0, 300.0, 3_600.0, 86_400.0
)  # fmt: skip
OTHER: Final = "(other)"
_REASONS: Final = max(Reason) + 1
_KINDS: Final = max(OutcomeKind) + 1


class Histogram:
    """Counts by upper bound, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count one value (seconds), `times` over. One below 0 (a producer's clock may run ahead of
        ours) counts as 0: a sum that falls would be a restart to Prometheus."""
        index = 0
        for bound in self.bounds:  # compiled, half of what a search by halves takes
            if value <= bound:
                break
            index += 1
        self.counts[index] += times
        if value > 0:
            self.total += value * times


class EndpointMetrics:
    """What one endpoint's attempts came to."""

    __slots__ = ("attempts", "durations", "latencies", "outcomes", "parked_by")

    def __init__(self) -> None:
        # Arrays by the enums' numbers: hashing a member of an enum costs a call in Python 3.11.
        self.attempts = [0] * _REASONS
        self.outcomes = [0] * _KINDS
        self.parked_by = [0] * _REASONS
        self.durations = Histogram(ATTEMPT_BOUNDS)
        self.latencies = Histogram(LATENCY_BOUNDS)

    def attempted(self, outcome: Outcome, seconds: float, times: int = 1) -> None:
        """The attempt of one delivery ended, or of so many that went out together."""
        self.attempts[outcome.reason] += times
        self.outcomes[outcome.kind] += times
        self.durations.observe(seconds, times)

    def parked(self, reason: Reason) -> None:
        """One delivery was parked without an attempt."""
        self.parked_by[reason] += 1


class Metrics:
    """The process's counters."""

    def __init__(self, max_endpoint_series: int = 5_000) -> None:
        self._max_endpoints = max_endpoint_series
        self.endpoints: dict[str, EndpointMetrics] = {}
        """By endpoint name; past the cap all others count under `(other)`."""
        self.records_consumed = 0
        self.bytes_consumed = 0
        self.events = 0
        self.deliveries_routed = 0
        self.quarantined: dict[Reason, int] = {}
        self.violations: dict[tuple[str, Reason], int] = {}
        """By event type and reason; types outside of the catalogue count under `(other)`."""
        self.paused_seconds: dict[str, float] = {}
        self.flushes = 0
        self.flush_failures = 0
        self.flush_rows = 0
        self.flush_durations = Histogram(ATTEMPT_BOUNDS)
        self.rows_refused = 0
        self.fenced = 0
        self.claims = 0
        self.claims_kept = 0
        self.claim_failures = 0
        self.commit_failures = 0
        self.out_of_range = 0
        self.topics_recreated = 0
        self.held_offsets_lost = 0
        self.orphaned = 0
        """Owed in partitions that nobody works on."""
        self.unreadable = 0
        self.loop_lag = 0.0

    def endpoint(self, name: str) -> EndpointMetrics:
        """The counters of one endpoint."""
        found = self.endpoints.get(name)
        if found is None:
            if len(self.endpoints) >= self._max_endpoints:
                name = OTHER
            found = self.endpoints.setdefault(name, EndpointMetrics())
        return found

    def quarantine(self, reason: Reason) -> None:
        """One record was no event."""
        self.quarantined[reason] = self.quarantined.get(reason, 0) + 1

    def violation(self, event_type: str, reason: Reason) -> None:
        """One event was not by the catalogue."""
        key = event_type, reason
        self.violations[key] = self.violations.get(key, 0) + 1

    def paused(self, cause: str, seconds: float) -> None:
        """Intake stood still for a cause."""
        self.paused_seconds[cause] = self.paused_seconds.get(cause, 0.0) + seconds

    def flushed(self, rows: int, seconds: float) -> None:
        """One flush committed."""
        self.flushes += 1
        self.flush_rows += rows
        self.flush_durations.observe(seconds)
