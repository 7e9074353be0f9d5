"""Counting is right and bounded, and what a scrape gets is valid Prometheus text."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from dispatcherd.admin.exposition import Exposition
from dispatcherd.delivery import Outcome, OutcomeKind, Reason
from dispatcherd.metrics import ATTEMPT_BOUNDS, LATENCY_BOUNDS, OTHER, Histogram, Metrics

Gauge = tuple[str, str, dict[str, str], float]
OK = Outcome(OutcomeKind.DELIVERED, Reason.OK)
BUSY = Outcome(OutcomeKind.RETRY, Reason.UNAVAILABLE, 5.0)


def samples(metrics: Metrics, *gauges: Gauge) -> dict[str, float]:
    """Every sample of a scrape as `name{label="value",…}`; fails on text that does not parse, and
    on a sample or a family that stands there twice."""
    text = Exposition(metrics, lambda: gauges).text().decode()
    assert text.endswith("\n")
    found: dict[str, float] = {}
    families = set()
    for family in text_string_to_metric_families(text):
        assert family.name not in families
        families.add(family.name)
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            key = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert key not in found
            found[key] = sample.value
    return found


# --- counting ------------------------------------------------------------------------------


@given(values=st.lists(st.floats(0, 1e6), max_size=50))
def test_a_histogram_counts_each_value_once_at_its_upper_bound(values: list[float]) -> None:
    histogram = Histogram(ATTEMPT_BOUNDS)
    for value in values:
        histogram.observe(value)
    running = 0
    for bound, count in zip((*ATTEMPT_BOUNDS, math.inf), histogram.counts, strict=True):
        running += count
        assert running == sum(value <= bound for value in values)
    assert histogram.total == pytest.approx(sum(values))


@pytest.mark.parametrize("value", [-1e12, -0.001, math.nan])
def test_a_latency_below_zero_does_not_spoil_the_sum(value: float) -> None:
    histogram = Histogram(LATENCY_BOUNDS)
    histogram.observe(2.0)
    histogram.observe(value)
    assert sum(histogram.counts) == 2
    assert histogram.total == 2.0


@given(value=st.floats(0, 1e6), times=st.integers(1, 1_000))
def test_a_value_counted_so_many_times_over_is_that_value_so_many_times(
    value: float, times: int
) -> None:
    together, apart = Metrics().endpoint("shop"), Metrics().endpoint("shop")
    together.attempted(OK, value, times)
    for _ in range(times):
        apart.attempted(OK, value)
    assert together.attempts == apart.attempts
    assert together.outcomes == apart.outcomes
    assert together.durations.counts == apart.durations.counts
    assert together.durations.total == pytest.approx(apart.durations.total)


def test_bounds_rise() -> None:
    for bounds in (ATTEMPT_BOUNDS, LATENCY_BOUNDS):
        assert list(bounds) == sorted(set(bounds))


def test_endpoints_past_the_cap_are_counted_together() -> None:
    metrics = Metrics(max_endpoint_series=3)
    for number in range(10):
        metrics.endpoint(f"e{number}").attempted(OK, 0.1)
        metrics.endpoint("e0").attempted(BUSY, 0.1)
    assert set(metrics.endpoints) == {"e0", "e1", "e2", OTHER}
    assert metrics.endpoint(OTHER).attempts[Reason.OK] == 7
    assert sum(metrics.endpoint(OTHER).attempts) == 7
    own = metrics.endpoint("e0").attempts
    assert (own[Reason.OK], own[Reason.UNAVAILABLE], sum(own)) == (1, 10, 11)


# --- the text ------------------------------------------------------------------------------


def test_a_fresh_process_can_be_scraped() -> None:
    found = samples(Metrics())
    assert found["dispatcherd_events_total"] == 0
    assert found["dispatcherd_flush_duration_seconds_count"] == 0


def test_every_counter_of_the_process_is_exposed() -> None:
    metrics = Metrics()
    gauges = {"orphaned"}  # shown by admin.gauges
    names = [n for n in dir(metrics) if n[0] != "_" and type(getattr(metrics, n)) is int]
    names = [name for name in names if name not in gauges]
    for number, name in enumerate(names):
        setattr(metrics, name, 1_000 + number)
    exposed = set(samples(metrics).values())
    assert [n for number, n in enumerate(names) if 1_000 + number not in exposed] == []


def test_counts_by_endpoint_and_reason_are_exposed() -> None:
    metrics = Metrics()
    one = metrics.endpoint("one")
    one.attempted(OK, 0.02)
    one.attempted(BUSY, 60.0)
    one.attempted(BUSY, 0.001)
    one.parked(Reason.LANE_FULL)
    one.latencies.observe(0.3)
    metrics.quarantine(Reason.NOT_JSON)
    metrics.paused("window", 1.5)
    metrics.paused("window", 0.5)
    metrics.flushed(10, 0.02)
    found = samples(metrics)
    assert found["dispatcherd_attempts_total{endpoint=one,reason=ok}"] == 1
    assert found["dispatcherd_attempts_total{endpoint=one,reason=unavailable}"] == 2
    assert found["dispatcherd_deliveries_total{endpoint=one,outcome=retry}"] == 2
    assert found["dispatcherd_parked_total{endpoint=one,reason=lane_full}"] == 1
    assert found["dispatcherd_quarantined_total{reason=not_json}"] == 1
    assert found["dispatcherd_paused_seconds_total{cause=window}"] == 2.0
    assert found["dispatcherd_flush_rows_total"] == 10
    name = "dispatcherd_attempt_duration_seconds"
    assert found[name + "_bucket{endpoint=one,le=0.005}"] == 1
    assert found[name + "_bucket{endpoint=one,le=0.025}"] == 2
    assert found[name + "_bucket{endpoint=one,le=30.0}"] == 2
    assert found[name + "_bucket{endpoint=one,le=+Inf}"] == 3
    assert found[name + "_count{endpoint=one}"] == 3
    assert found[name + "_sum{endpoint=one}"] == pytest.approx(60.021)
    assert found["dispatcherd_delivery_latency_seconds_count{endpoint=one}"] == 1


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_a_label(reason: Reason) -> None:
    metrics = Metrics()
    metrics.quarantine(reason)
    metrics.endpoint("one").attempted(Outcome(OutcomeKind.RETRY, reason), 1.0)
    found = samples(metrics)
    assert found[f"dispatcherd_quarantined_total{{reason={reason.name.lower()}}}"] == 1


@given(name=st.text(st.characters(exclude_categories=["Cs"])), value=st.floats())
def test_any_name_of_an_endpoint_or_topic_gives_valid_text(name: str, value: float) -> None:
    metrics = Metrics()
    metrics.endpoint(name).attempted(OK, 0.1)
    text = Exposition(metrics, lambda: [("position", "Next offset", {"topic": name}, value)]).text()
    topics = [
        (sample.labels["topic"], sample.value)
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if "topic" in sample.labels
    ]
    assert topics == [(name, value)] or math.isnan(value)


def test_gauges_of_one_name_make_one_family() -> None:
    found = samples(
        Metrics(),
        ("ready", "1 when ready", {}, True),
        ("position", "Next offset", {"topic": "a", "partition": "0"}, 5),
        ("lane_deliveries", "Queued", {"endpoint": "x"}, 1),
        ("position", "Next offset", {"topic": "a", "partition": "1"}, 2**60),
    )
    assert found["dispatcherd_ready"] == 1
    assert found["dispatcherd_position{partition=0,topic=a}"] == 5
    assert found["dispatcherd_position{partition=1,topic=a}"] == 2**60


def test_scraping_changes_nothing() -> None:
    metrics = Metrics()
    metrics.endpoint("one").attempted(OK, 0.1)
    gauges: Iterable[Gauge] = [("ready", "1 when ready", {}, 1.0)]
    exposition = Exposition(metrics, lambda: gauges)
    assert exposition.text() == exposition.text()
