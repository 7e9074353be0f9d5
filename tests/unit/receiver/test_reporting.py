"""Counters in a format that Prometheus reads; a flood of bad requests is one line of log."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dispatcherd.receiver.dispatch import Handlers
from dispatcherd.receiver.errors import NoMatchingSignature, SenderNotAllowed
from dispatcherd.receiver.event import Event, Message
from dispatcherd.receiver.metrics import COUNTERS, Metrics
from dispatcherd.receiver.reporting import Reporter
from dispatcherd.receiver.results import Outcome, Result


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reporter(clock: Clock) -> Reporter:
    handlers = Handlers()
    handlers.add("order.created", lambda event: None, [None])
    return Reporter("hooks", Metrics(), handlers, clock)


def event(type_: str = "order.created") -> Event:
    return Event("evt_1", type_, "1", "", b"{}")


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = {}
    for family in text_string_to_metric_families(metrics.text()):
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


def test_prometheus_reads_what_was_counted() -> None:
    metrics = Metrics()
    metrics.count("events_total", receiver='a"b\\c\nd', type="t", result="done")
    metrics.count("events_total", receiver='a"b\\c\nd', type="t", result="done")
    for seconds in (0.0005, 0.3, 100.0):
        metrics.observe("response_seconds", seconds, receiver="r")
    metrics.gauge("backlog_events", "how many", lambda: 7, receiver="r")
    metrics.gauge("backlog_dead", "unreadable", lambda: 1 / 0, receiver="r")
    found = samples(metrics)
    labels = frozenset({("receiver", 'a"b\\c\nd'), ("type", "t"), ("result", "done")})
    assert found["webhook_receiver_events_total", labels] == 2
    name, receiver = "webhook_receiver_response_seconds", ("receiver", "r")
    assert found[f"{name}_bucket", frozenset({receiver, ("le", "0.001")})] == 1
    assert found[f"{name}_bucket", frozenset({receiver, ("le", "0.5")})] == 2
    assert found[f"{name}_bucket", frozenset({receiver, ("le", "+Inf")})] == 3
    assert found[f"{name}_count", frozenset({receiver})] == 3
    assert found[f"{name}_sum", frozenset({receiver})] == pytest.approx(100.3005)
    assert found["webhook_receiver_backlog_events", frozenset({receiver})] == 7
    families = {family.name for family in text_string_to_metric_families(metrics.text())}
    assert {f"webhook_receiver_{name.removesuffix('_total')}" for name in COUNTERS} <= families
    assert not any("dead" in name for name in families)


def test_unusual_traffic_is_counted_by_kind(reporter: Reporter) -> None:
    reporter.refused(NoMatchingSignature("x"), "192.0.2.1")
    reporter.refused(SenderNotAllowed("x"), "192.0.2.1")
    reporter.settled(event("never.heard"), Outcome(Result.UNHANDLED))
    for kind in ("bad_signature", "unknown_sender", "unknown_event"):
        assert reporter.metrics.value("unusual_total", kind=kind) == 1
    assert reporter.metrics.value("refused_total", cause="no_matching_signature") == 1
    assert reporter.metrics.value("events_total", type="(other)", result="unhandled") == 1


def test_the_same_signed_request_again_is_a_replay_and_a_retry_is_not(reporter: Reporter) -> None:
    first = Message("evt_1", 1, "v1,a", (event(),), False)
    for message in (first, Message("evt_1", 2, "v1,b", (event(),), False)):
        reporter.admitted(message)
    assert reporter.metrics.value("unusual_total", kind="replay") == 0
    reporter.admitted(first)
    assert reporter.metrics.value("unusual_total", kind="replay") == 1


def test_a_flood_is_one_line_a_minute_that_counts_the_rest(
    reporter: Reporter, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(1_000):
        reporter.refused(NoMatchingSignature("no signature matches"), "192.0.2.1")
    clock.now = 61.0
    reporter.refused(NoMatchingSignature("no signature matches"), "192.0.2.1")
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(lines) == 2
    assert "192.0.2.1: no signature matches" in lines[0]
    assert "999 more like it" in lines[1]


def test_types_that_nobody_registered_make_neither_series_nor_lines(
    reporter: Reporter, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(500):
        reporter.settled(event(f"made.up.{n}"), Outcome(Result.UNHANDLED))
    assert reporter.metrics.text().count("webhook_receiver_events_total{") == 1
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 1
