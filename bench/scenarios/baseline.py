"""The daemon beside what a Python user writes in a day (bench/baseline.py).

Same topic, same sink, run by run in turn; both record every outcome.
"""

from __future__ import annotations

from functools import partial

from bench import trial
from bench.load import Plan
from bench.results import Drawing, Line, Result, medians
from bench.scenarios.drain import COLUMNS, ONE, Case, filled, once
from bench.session import Measures, Session, Variant
from bench.subjects import BaselineSubject, Setup

BASELINE = "aiokafka, ClientSession, INSERT"


def run(session: Session, result: Result) -> None:
    """See the module."""
    case = Case(Plan(session.size(300_000, 10_000)), Setup())
    # The baseline is slow: it drains a topic of its own with fewer events.
    smaller = Plan(session.size(60_000, 3_000))
    topic, short = filled(session, case.plan), filled(session, smaller)

    def baseline() -> Measures:
        subject = BaselineSubject(session.parts, short, smaller)
        return trial.drain(session.parts, smaller, subject, session.tell)

    variants: dict[str, Variant] = {ONE: partial(once, session, topic, case), BASELINE: baseline}
    runs = session.interleave(result, variants, session.runs(5))
    for name in (topic, short):
        session.parts.kafka.delete_topic(name)
    result.figures_of(runs, [c for c in COLUMNS if c[0] != "parked"])
    result.check_ratio(
        "CPU of the baseline, of dispatcherd's", 8, runs[BASELINE], runs[ONE], "cpu_us",
        at_least=True,
    )  # fmt: skip
    layers = (
        ("cpu_us", "the program"),
        ("postgres_us", "Postgres"),
        ("kafka_us", "Kafka broker"),
    )
    result.drawings.append(
        Drawing(
            "baseline", "CPU per recorded delivery", "", "µs", kind="stack",
            lines=[
                Line(word, [(name, medians(m, key)) for name, m in runs.items()])
                for key, word in layers
            ],
        )
    )  # fmt: skip
