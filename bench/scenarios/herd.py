"""1,000,000 parked retries due at one moment, to 100 endpoints: rate, lateness, memory.

The rows lie in Postgres before the daemon starts; it is up when they fall due. Beside it, as the
measure of its rate, the same number of endpoints is sent fresh events from a filled topic.
"""

from __future__ import annotations

import time
from datetime import datetime
from functools import partial

from bench import parked, trial
from bench.load import Plan
from bench.results import Drawing, Line, Result, medians
from bench.sampling import Sampler
from bench.scenarios.drain import Case, filled, once
from bench.session import Measures, Session
from bench.subjects import DaemonSubject, Setup

_ENDPOINTS, _HOSTS = 100, 100
_START_SECONDS = 8
"""From laying the last row to the moment when all fall due: time to start in."""
_LAY_SECONDS_EACH = 45e-6
HERD, FRESH = "herd", "fresh events"


def run(session: Session, result: Result) -> None:
    """See the module."""
    count = session.size(1_000_000, 20_000)
    fresh = Case(Plan(session.size(300_000, 10_000), _ENDPOINTS), Setup(hosts=_HOSTS))
    topic = filled(session, fresh.plan)
    shown: list[tuple[Sampler, float]] = []
    variants = {
        FRESH: partial(once, session, topic, fresh),
        HERD: partial(_once, session, Plan(count, _ENDPOINTS), shown),
    }
    runs = session.interleave(result, variants, session.runs(3))
    session.parts.kafka.delete_topic(topic)
    result.figures_of(
        runs,
        (
            ("per_second", "per second", ""),
            ("per_cpu_second", "per CPU-second", ""),
            ("cpu_us", "dispatcherd", "µs"),
            ("postgres_us", "Postgres", "µs"),
            ("peak_mb", "memory", "MB"),
        ),
    )
    result.figure(HERD, "first arrival after due", "s", [m["late_seconds"] for m in runs[HERD]])
    result.check("resident memory in the herd", 400, medians(runs[HERD], "peak_mb"), "MB")
    result.check_ratio(
        "the herd's rate, of the fresh rate", 0.6, runs[HERD], runs[FRESH], "per_second",
        at_least=True,
    )  # fmt: skip
    _draw(result, *shown[-1])


def _once(session: Session, plan: Plan, shown: list[tuple[Sampler, float]]) -> Measures:
    parts = session.parts
    topic = parts.topic()
    subject = DaemonSubject(parts, topic, plan, Setup(hosts=_HOSTS))
    due = parked.in_seconds(_START_SECONDS + plan.events * _LAY_SECONDS_EACH)
    session.tell(f"laying {plan.events:,} parked deliveries")
    parked.lay(subject.database, parts.kafka.bootstrap, topic, plan, range(plan.events), due)
    early = _seconds_until(due)
    with Sampler(subject, parts.sink) as sampler:
        measures = trial.drain(parts, plan, subject, session.tell, stall=max(0.0, early) + 120)
    parts.kafka.delete_topic(topic)
    first = parts.sink.count()["first_ns"] / 1e9
    shown.append((sampler, time.monotonic() + _seconds_until(due)))
    return measures | {"late_seconds": first - due.timestamp(), "up_before_seconds": early}


def _seconds_until(moment: datetime) -> float:
    return moment.timestamp() - time.time()


def _draw(result: Result, sampler: Sampler, due: float) -> None:
    def since(points: list[tuple[float, float]]) -> list[tuple[float | str, float]]:
        return [(round(at - due, 1), value) for at, value in points]

    result.drawings += [
        Drawing(
            "herd-rate", "Arrivals after all fell due at one moment", "seconds since then",
            "a second", [Line("arrivals", since(sampler.rates()))],
        ),
        Drawing(
            "herd-memory", "Resident memory in the herd", "seconds since all fell due", "MB",
            [Line("memory", since(sampler.memory()))], target=400, target_name="400 MB",
        ),
    ]  # fmt: skip
