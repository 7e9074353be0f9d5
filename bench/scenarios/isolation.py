"""Healthy endpoints while one of 1,000 hangs, or a tenth hang, answer 500, or drip their answer.

The sick ones are spread: one on each of 100 hosts, beside nine healthy ones (--quick: 200
endpoints, two on each host). Each run is a fresh
daemon, on a core of its own (bench/cores.py): first it drains a filled topic (throughput: healthy
deliveries a second until all healthy ones have arrived), then takes open loads of a quarter and of
half of what it has just drained (latency): on a virtual machine whose pace changes by half, a rate
that was set some minutes ago may be all that it can do now. A load during which the hypervisor took
a core away is sent again (bench/stolen.py).
"""

from __future__ import annotations

from functools import partial

from bench import trial
from bench.cores import apart
from bench.cpu import machine_seconds
from bench.generator import Generator
from bench.healthy import drain, wait_for_healthy
from bench.load import Plan, prefill
from bench.native import percentile
from bench.results import Drawing, Line, Result, medians
from bench.session import Measures, Session
from bench.stolen import SECONDS, in_words, least_robbed
from bench.subjects import DaemonSubject, Setup, memory_bytes
from bench.warming import warm_broker

HOSTS = 100
LOADS = (25, 50)
"""Events of an open load, of 100 that would be drained in the same time."""
UNDISTURBED = "undisturbed"
MODES = {
    UNDISTURBED: ("ok", 0.1),
    "1 hangs": ("hang", 0.001),
    "10 % hang": ("hang", 0.1),
    "10 % answer 500": ("500", 0.1),
    "10 % drip": ("drip", 0.1),
}
"""What the sick do, and their share of the endpoints; undisturbed, a tenth is left out of what is
counted as well."""


def healthy(endpoints: int, sick: int, first: int, count: int) -> int:
    """How many of these events go to a healthy endpoint (the first `sick` are not)."""
    return sum(1 for number in range(first, first + count) if number % endpoints >= sick)


def run(session: Session, result: Result) -> None:
    """See the module."""
    warm_broker(session)
    endpoints = session.size(1_000, 200)
    filled = session.size(100_000, 3_000)
    seconds = session.size(15, 2)
    modes = dict(list(MODES.items())[:3:2]) if session.quick else MODES
    variants = {
        name: partial(_once, session, endpoints, *mode, filled, seconds)
        for name, mode in modes.items()
    }
    with apart(session.parts):
        runs = session.interleave(result, variants, session.runs(5))
    result.figures_of(
        runs,
        (
            ("per_second", "drained, as the healthy were", "/s"),
            *((f"p99_ms_at_{load}", f"p99 at {load} %", "ms") for load in LOADS),
            ("cpu_us", "dispatcherd per healthy delivery", "µs"),
            ("peak_mb", "memory", "MB"),
        ),
    )
    for name in list(modes)[1:]:
        sick, well = runs[name], runs[UNDISTURBED]
        for load in LOADS:
            result.check_ratio(
                f"{name}: p99 of the healthy at {load} %, of undisturbed", 1.5, sick, well,
                f"p99_ms_at_{load}",
            )  # fmt: skip
        result.check_ratio(
            f"{name}: throughput, of undisturbed", 0.9, sick, well, "per_second", at_least=True
        )
    _draw(result, runs)


def _once(
    session: Session, endpoints: int, mode: str, share: float, filled: int, seconds: int
) -> Measures:
    parts, sink = session.parts, session.parts.sink
    # Sequence numbers for the open load follow those of the drain; more than it can need.
    plan = Plan(filled + 2_000_000, endpoints)
    topic = parts.topic()
    prefill(parts.kafka.bootstrap, topic, plan, range(filled))
    sink.reset(plan.events, 1, endpoints)
    sick = max(1, int(endpoints * share))
    sink.say(f"mode 0 {sick - 1} {mode}")
    sink.say(f"class 0 {sick - 1} 1")
    subject = DaemonSubject(parts, topic, plan, Setup(hosts=HOSTS, own_core=True))
    done = filled

    def take(rate: float, seconds: float) -> Measures:
        nonlocal done
        amount = int(rate * seconds)
        sink.say("forget")
        _, stolen_before = machine_seconds()
        wanted = healthy(endpoints, sick, done, amount)
        _publish(session, subject, topic, plan, done, amount, rate, wanted)
        done += amount
        seen = sink.histogram(0)
        return {
            SECONDS: machine_seconds()[1] - stolen_before,
            **{f"p{p}_ms": percentile(seen, p / 100) for p in (50, 99)},
        }

    try:
        found = drain(session, subject, healthy(endpoints, sick, 0, filled))
        # Of all endpoints, had they been served as the healthy were: variants can be compared then.
        found["per_second"] *= endpoints / (endpoints - sick)
        for load in LOADS:
            rate = found["per_second"] * load / 100
            take(rate, seconds / 4)  # a warm-up
            measures = least_robbed(partial(take, rate, seconds), SECONDS)
            found[f"rate_{load}"] = rate
            found |= {f"{key}_at_{load}": value for key, value in measures.items()}
            session.say(f"    {load} %: p99 {measures['p99_ms']:.1f} ms, {in_words(measures)}")
        trial.check_arrivals(sink, signed=True)
        subject.abrupt = True
        found["peak_mb"] = memory_bytes(subject)[1] / 1e6
    finally:
        subject.stop()
        parts.kafka.delete_topic(topic)
    return found


def _publish(
    session: Session, subject: DaemonSubject, topic: str, plan: Plan, first: int, count: int,
    rate: float, wanted: int,
) -> None:  # fmt: skip
    """At an even rate, and wait until so many have arrived at the healthy."""
    generator = Generator(session.parts.kafka.bootstrap, topic, plan, first, count, rate)
    try:
        generator.wait()
        wait_for_healthy(session, subject, wanted)
    finally:
        generator.kill()


def _draw(result: Result, runs: dict[str, list[Measures]]) -> None:
    for key, name, title, y in (
        ("p99_ms_at_50", "isolation-latency", "p99 of the healthy at half the load", "ms"),
        ("per_second", "isolation-rate", "Deliveries to the healthy, drained", "a second"),
    ):
        result.drawings.append(
            Drawing(
                name, title, "", y, kind="bars",
                lines=[
                    Line(
                        y,
                        [(variant, medians(m, key)) for variant, m in runs.items()],
                        [min(run[key] for run in m) for m in runs.values()],
                        [max(run[key] for run in m) for m in runs.values()],
                    )
                ],
            )
        )  # fmt: skip
