"""From publication to the receiver, at 25, 50, 75 and 90 % of the drain rate, open loop.

The clock starts when the producer's client is given the event, so it holds the producer's own
buffering (5 ms), the broker's append and the whole way; it stops when the sink has read the
request. One daemon goes through all loads, lowest first, on a core of its own (bench/cores.py). It
has one endpoint, that may be sent 10 requests at once, the default, or 50: whenever the sink is not
given a core for a moment, 10 are a third of a millisecond's work.
"""

from __future__ import annotations

from functools import partial

from bench import trial
from bench.cores import apart
from bench.cpu import between
from bench.generator import Generator
from bench.load import Plan
from bench.native import percentile
from bench.results import Drawing, Line, Result, medians
from bench.scenarios.drain import Case, filled, once
from bench.session import Measures, Session
from bench.subjects import DaemonSubject, Setup, wait_until_delivered
from bench.warming import warm_broker

LOADS = (25, 50, 75, 90)
AT_ONCE = (10, 50)
_SHOWN = (("p50_ms", 0.5, "p50"), ("p99_ms", 0.99, "p99"), ("p999_ms", 0.999, "p99.9"))


def drain_rate(session: Session) -> float:
    """Deliveries a second to one endpoint; measured once in a session."""
    if not session.drain_rate:
        case = Case(Plan(session.size(200_000, 10_000)), Setup())
        topic = filled(session, case.plan)
        measures = once(session, topic, case)
        session.parts.kafka.delete_topic(topic)
        session.drain_rate = measures["per_second"]
        session.say(f"  drain rate: {session.drain_rate:,.0f}/s")
    return session.drain_rate


def run(session: Session, result: Result) -> None:
    """See the module."""
    warm_broker(session)
    rate = drain_rate(session)
    seconds = session.size(30, 2)
    counts = {load: int(rate * load / 100 * seconds) for load in LOADS}
    at_once = AT_ONCE[:1] if session.quick else AT_ONCE
    by_load = {_name(load, most): list[Measures]() for most in at_once for load in LOADS}
    variants = {
        f"{most} at once": partial(_once, session, counts, seconds, most, by_load)
        for most in at_once
    }
    with apart(session.parts):
        session.interleave(result, variants, session.runs(3))
    result.figures_of(
        by_load,
        (
            ("rate", "published", "/s"),
            *((key, name, "ms") for key, _, name in _SHOWN),
            ("ack_p99_ms", "of which broker, p99", "ms"),
            ("behind_ms", "load behind schedule", "ms"),
            ("cpu_us", "dispatcherd", "µs"),
            ("stolen_seconds", "stolen by the hypervisor", "s"),
        ),
    )
    for most in at_once:
        for load, target in ((50, 25), (90, 100)):
            name = _name(load, most)
            result.check(f"p99 at {name}", target, medians(by_load[name], "p99_ms"), "ms")
    _draw(result, by_load, at_once)


def _name(load: int, most: int) -> str:
    return f"{load} %, {most} at once"


def _once(
    session: Session,
    counts: dict[int, int],
    seconds: int,
    most: int,
    by_load: dict[str, list[Measures]],
) -> Measures:
    warm = max(1_000, counts[LOADS[0]] // 4)
    plan = Plan(warm + sum(counts.values()))
    topic = session.parts.topic()
    setup = Setup(concurrency=most, own_core=True)
    subject = DaemonSubject(session.parts, topic, plan, setup)
    sink = session.parts.sink
    sink.reset(plan.events)
    clocks = trial.meter(session.parts, subject)
    done = 0

    def publish(count: int, rate: float) -> dict[str, float]:
        nonlocal done
        generator = Generator(session.parts.kafka.bootstrap, topic, plan, done, count, rate)
        try:
            told = generator.wait()
            done += count
            wait_until_delivered(subject, sink, done, 60)
        finally:
            generator.kill()
        return told

    try:
        subject.start()
        subject.wait_ready()
        publish(warm, counts[LOADS[0]] / seconds)
        for load, count in counts.items():
            session.tell(f"{load} % of the drain rate")
            sink.say("forget")
            before = clocks.mark()
            measures: Measures = {"rate": count / seconds, **publish(count, count / seconds)}
            used = between(before, clocks.mark())
            measures["cpu_us"] = used["subject"] / count * 1e6
            measures["stolen_seconds"] = used["stolen"]
            seen = sink.histogram()
            measures |= {key: percentile(seen, share) for key, share, _ in _SHOWN}
            by_load[_name(load, most)].append(measures)
            session.say(
                f"    {load} %: p99 {measures['p99_ms']:.1f} ms"
                + (f", {used['stolen']:.1f} s stolen" if used["stolen"] >= 0.1 else "")
            )
        subject.wait_settled()
        trial.check_arrivals(sink, signed=True)
        recorded = subject.verify()
    finally:
        subject.stop()
        session.parts.kafka.delete_topic(topic)
    loads = {f"{load} %": by_load[_name(load, most)][-1] for load in LOADS}
    return {"loads": loads, "p99_ms": loads["90 %"]["p99_ms"], **recorded}


def _draw(result: Result, by_load: dict[str, list[Measures]], at_once: tuple[int, ...]) -> None:
    result.drawings.append(
        Drawing(
            "latency", "From publication to the receiver", "load, % of the drain rate", "ms",
            log_y=True,
            lines=[
                Line(
                    f"{name}, {most} at once",
                    [(load, medians(by_load[_name(load, most)], key)) for load in LOADS],
                    [min(m[key] for m in by_load[_name(load, most)]) for load in LOADS],
                    [max(m[key] for m in by_load[_name(load, most)]) for load in LOADS],
                )
                for most in at_once
                for key, _, name in _SHOWN
            ],
        )
    )  # fmt: skip
