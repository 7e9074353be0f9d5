"""A prefilled topic, drained: CPU per recorded delivery.

The events lie in Kafka before the daemon starts. Each topic is filled once; every run reads it
with a new consumer group and a new database.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from bench import trial
from bench.load import Plan, prefill
from bench.results import Drawing, Line, Result, medians
from bench.session import Measures, Session
from bench.subjects import DaemonSubject, Setup

ONE, THOUSAND, BATCHES = "1 endpoint", "1,000 endpoints", "batches of 100"


@dataclass(frozen=True, slots=True)
class Case:
    """One variant."""

    plan: Plan
    setup: Setup


def cases(session: Session) -> dict[str, Case]:
    """The variants of this scenario."""
    events = session.size(300_000, 10_000)
    return {
        ONE: Case(Plan(events), Setup()),
        "10 endpoints": Case(Plan(events, 10), Setup(hosts=10)),
        THOUSAND: Case(Plan(session.size(300_000, 6_000), 1_000), Setup(hosts=100)),
        "fan-out 1→10": Case(Plan(events // 10, 10, 10), Setup(hosts=10)),
        BATCHES: Case(Plan(session.size(300_000, 30_000)), Setup(batch=100)),
    }


def once(session: Session, topic: str, case: Case) -> Measures:
    """Drain a filled topic with a fresh daemon."""
    subject = DaemonSubject(session.parts, topic, case.plan, case.setup)
    return trial.drain(session.parts, case.plan, subject, session.tell)


def filled(session: Session, plan: Plan) -> str:
    """A new topic that holds the plan's events."""
    topic = session.parts.topic()
    session.tell(f"publishing {plan.events:,} events")
    prefill(session.parts.kafka.bootstrap, topic, plan)
    return topic


def drain_rate(session: Session) -> float:
    """Deliveries a second to one endpoint; measured once in a session."""
    if not session.drain_rate:
        case = Case(Plan(session.size(200_000, 10_000)), Setup())
        topic = filled(session, case.plan)
        session.drain_rate = once(session, topic, case)["per_second"]
        session.parts.kafka.delete_topic(topic)
        session.say(f"  drain rate: {session.drain_rate:,.0f}/s")
    return session.drain_rate


def run(session: Session, result: Result) -> None:
    """See the module."""
    variants, topics = {}, []
    for name, case in cases(session).items():
        topics.append(filled(session, case.plan))
        variants[name] = partial(once, session, topics[-1], case)
    runs = session.interleave(result, variants, session.runs(5))
    for topic in topics:
        session.parts.kafka.delete_topic(topic)
    result.figures_of(runs, COLUMNS)
    _draw(result, runs)
    _checks(result, runs)
    session.drain_rate = medians(runs[ONE], "per_second")


COLUMNS = (
    ("per_cpu_second", "per CPU-second", ""),
    ("cpu_us", "dispatcherd", "µs"),
    ("postgres_us", "Postgres", "µs"),
    ("kafka_us", "broker", "µs"),
    ("per_second", "per second", ""),
    ("peak_mb", "memory", "MB"),
    ("parked", "parked", ""),
    ("connections", "connections", ""),
)


def _draw(result: Result, runs: dict[str, list[Measures]]) -> None:
    def median(name: str, key: str) -> float:
        return medians(runs[name], key)

    layers = (
        ("cpu_us", "dispatcherd"),
        ("postgres_us", "Postgres"),
        ("kafka_us", "Kafka broker"),
    )
    result.drawings.append(
        Drawing(
            "drain-cpu", "CPU per recorded delivery, by part", "", "µs", kind="stack",
            lines=[Line(word, [(n, median(n, key)) for n in runs]) for key, word in layers],
            target=40, target_name="target for all three: 40 µs",
        )
    )  # fmt: skip
    result.drawings.append(
        Drawing(
            "drain-rate", "Recorded deliveries per CPU-second of dispatcherd", "", "deliveries",
            kind="bars", target=33_000, target_name="target with one endpoint: 33,000",
            lines=[
                Line(
                    "deliveries",
                    [(n, median(n, "per_cpu_second")) for n in runs],
                    [min(m["per_cpu_second"] for m in runs[n]) for n in runs],
                    [max(m["per_cpu_second"] for m in runs[n]) for n in runs],
                )
            ],
        )
    )  # fmt: skip


def _checks(result: Result, runs: dict[str, list[Measures]]) -> None:
    def median(name: str, key: str) -> float:
        return medians(runs[name], key)

    unit = "per CPU-second"
    one = median(ONE, "per_cpu_second")
    result.check("deliveries, one endpoint", 33_000, one, unit, at_least=True)
    result.check("the same, stretch", 45_000, one, unit, at_least=True)
    result.check_ratio(
        "1,000 endpoints, of the rate with one", 0.85, runs[THOUSAND], runs[ONE], "per_cpu_second",
        at_least=True,
    )  # fmt: skip
    result.check(
        "events in batches of 100", 70_000, median(BATCHES, "per_cpu_second"), unit, at_least=True
    )
    together = sum(median(ONE, key) for key in ("cpu_us", "postgres_us", "kafka_us"))
    result.check("dispatcherd, Postgres and broker together", 40, together, "µs a delivery")
    result.check("resident memory at full load", 250, max(median(n, "peak_mb") for n in runs), "MB")
