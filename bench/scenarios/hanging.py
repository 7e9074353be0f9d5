"""Six endpoints that want every event: what the other five lose while one hangs.

The plainest case of "nobody is held up": one of six receivers takes each request and never
answers. A fresh daemon drains a filled topic; the figure is what arrives at the other five a
second, as a share of what they get while the sixth answers.
"""

from __future__ import annotations

from functools import partial

from bench import trial
from bench.healthy import drain
from bench.load import Plan, prefill
from bench.results import Result
from bench.session import Measures, Session
from bench.subjects import DaemonSubject, Setup, memory_bytes

ENDPOINTS = 6
MODES = {"all answer": "ok", "one of six hangs": "hang"}


def run(session: Session, result: Result) -> None:
    """See the module."""
    # Enough for the second in which the hanging one is found out to be a small part of it.
    events = session.size(120_000, 2_000)
    variants = {name: partial(_once, session, events, mode) for name, mode in MODES.items()}
    runs = session.interleave(result, variants, session.runs(5))
    result.figures_of(
        runs,
        (
            ("per_second", "the other five", "/s"),
            ("cpu_us", "dispatcherd per healthy delivery", "µs"),
            ("postgres_us", "Postgres per healthy delivery", "µs"),
            ("parked", "parked", ""),
            ("peak_mb", "memory", "MB"),
        ),
    )
    undisturbed, hanging = (runs[name] for name in MODES)
    result.check_ratio(
        "one hangs: throughput of the others, of undisturbed", 0.8, hanging, undisturbed,
        "per_second", at_least=True,
    )  # fmt: skip


def _once(session: Session, events: int, mode: str) -> Measures:
    parts, sink = session.parts, session.parts.sink
    plan = Plan(events, ENDPOINTS, ENDPOINTS)
    topic = parts.topic()
    prefill(parts.kafka.bootstrap, topic, plan)
    sink.reset(plan.events, plan.fanout, ENDPOINTS)
    sink.say(f"mode 0 0 {mode}")
    sink.say("class 0 0 1")
    subject = DaemonSubject(parts, topic, plan, Setup(hosts=ENDPOINTS))
    try:
        found = drain(session, subject, events * (ENDPOINTS - 1))
        trial.check_arrivals(sink, signed=True)
        found["parked"] = subject.parked()
        found["peak_mb"] = memory_bytes(subject)[1] / 1e6
        subject.abrupt = True
    finally:
        subject.stop()
        parts.kafka.delete_topic(topic)
    return found
