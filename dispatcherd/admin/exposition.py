"""`/metrics`: the counters in Prometheus's text format, made at scrape.

Invariant: scraping changes nothing, and may be done in a thread beside the loop that counts: what
can grow meanwhile is copied before it is gone through. Leaves out: counting (metrics).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from dispatcherd import __version__
from dispatcherd.delivery import OutcomeKind, Reason
from dispatcherd.metrics import Histogram, Metrics


class Gauges(Protocol):
    """What is read at scrape: (name, help, labels, value) of everything that goes up and down."""

    def __call__(self) -> Iterable[tuple[str, str, dict[str, str], float]]: ...


class _Collector:
    def __init__(self, metrics: Metrics, gauges: Gauges) -> None:
        self._metrics = metrics
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        """Everything, as families."""
        yield from _counters(self._metrics)
        yield from _endpoints(self._metrics)
        flushes = HistogramMetricFamily(
            "dispatcherd_flush_duration_seconds", "One flush, from start to commit"
        )
        _histogram(flushes, [], self._metrics.flush_durations)
        yield flushes
        families: dict[str, GaugeMetricFamily] = {}
        for name, text, labels, value in self._gauges():
            family = families.get(name)
            if family is None:
                family = families[name] = GaugeMetricFamily(
                    f"dispatcherd_{name}", text, labels=list(labels)
                )
            family.add_metric(list(labels.values()), value)
        yield from families.values()
        build = GaugeMetricFamily("dispatcherd_build_info", "Version", labels=["version"])
        build.add_metric([__version__], 1)
        yield build


def _counters(m: Metrics) -> Iterator[Metric]:
    for name, text, value in (
        ("records_consumed", "Kafka records fetched", m.records_consumed),
        ("bytes_consumed", "Bytes of record values fetched", m.bytes_consumed),
        ("events", "Records that are events", m.events),
        ("deliveries_routed", "Deliveries that events were routed to", m.deliveries_routed),
        ("flushes", "Flushes committed", m.flushes),
        ("flush_failures", "Flushes that had to be repeated", m.flush_failures),
        ("flush_rows", "Attempts recorded", m.flush_rows),
        ("rows_refused", "Rows that Postgres refused", m.rows_refused),
        ("fenced", "Partitions lost to another process's claim", m.fenced),
        ("claims", "Partitions claimed", m.claims),
        ("claims_kept", "Partitions that came back before anyone claimed them", m.claims_kept),
        ("claim_failures", "Claims that had to be tried again", m.claim_failures),
        ("kafka_commit_failures", "Offset commits that Kafka did not take", m.commit_failures),
        ("out_of_range", "Partitions whose next offset Kafka no longer had", m.out_of_range),
        ("topics_recreated", "Topics found to be created again", m.topics_recreated),
        (
            "held_offsets_lost",
            "Held offsets passed over: deleted, or not to be read",
            m.held_offsets_lost,
        ),
        ("unreadable", "Batches that the Kafka client could not read", m.unreadable),
    ):
        yield CounterMetricFamily(f"dispatcherd_{name}", text, value=value)
    quarantined = CounterMetricFamily(
        "dispatcherd_quarantined", "Records that are no events", labels=["reason"]
    )
    for reason, count in list(m.quarantined.items()):
        quarantined.add_metric([reason.word], count)
    yield quarantined
    violations = CounterMetricFamily(
        "dispatcherd_catalogue_violations",
        "Events that are not by the catalogue",
        labels=["type", "reason"],
    )
    for (event_type, reason), count in list(m.violations.items()):
        violations.add_metric([event_type, reason.word], count)
    yield violations
    paused = CounterMetricFamily(
        "dispatcherd_paused_seconds", "Time in which intake stood still", labels=["cause"]
    )
    for cause, seconds in list(m.paused_seconds.items()):
        paused.add_metric([cause], seconds)
    yield paused


def _endpoints(m: Metrics) -> Iterator[Metric]:
    attempts = CounterMetricFamily(
        "dispatcherd_attempts", "Attempts by what they came to", labels=["endpoint", "reason"]
    )
    outcomes = CounterMetricFamily(
        "dispatcherd_deliveries", "Attempts by outcome", labels=["endpoint", "outcome"]
    )
    parked = CounterMetricFamily(
        "dispatcherd_parked", "Deliveries parked unsent", labels=["endpoint", "reason"]
    )
    durations = HistogramMetricFamily(
        "dispatcherd_attempt_duration_seconds", "One exchange", labels=["endpoint"]
    )
    latencies = HistogramMetricFamily(
        "dispatcherd_delivery_latency_seconds", "Kafka append to delivered", labels=["endpoint"]
    )
    for name, endpoint in list(m.endpoints.items()):
        for reason in Reason:
            if endpoint.attempts[reason]:
                attempts.add_metric([name, reason.word], endpoint.attempts[reason])
            if endpoint.parked_by[reason]:
                parked.add_metric([name, reason.word], endpoint.parked_by[reason])
        for kind in OutcomeKind:
            if endpoint.outcomes[kind]:
                outcomes.add_metric([name, kind.name.lower()], endpoint.outcomes[kind])
        _histogram(durations, [name], endpoint.durations)
        _histogram(latencies, [name], endpoint.latencies)
    yield from (attempts, outcomes, parked, durations, latencies)


def _histogram(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    buckets, running = [], 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        running += count
        buckets.append(("+Inf" if bound == float("inf") else str(bound), float(running)))
    family.add_metric(labels, buckets, histogram.total)


class Exposition:
    """The text of `/metrics`."""

    def __init__(self, metrics: Metrics, gauges: Gauges) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(metrics, gauges))

    def text(self) -> bytes:
        """As of now."""
        return generate_latest(self._registry)
