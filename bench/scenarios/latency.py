"""From publication to the receiver, at 25, 50, 75 and 90 % of the drain rate, open loop.

The clock starts when the producer's client is given the event, so it holds the producer's own
buffering (5 ms), the broker's append and the whole way; it stops when the sink has read the
request. Each run begins with a drain, as in `drain`: on a virtual machine whose pace changes by
half, a rate that was found some minutes ago may be all that it can do now. Then a fresh daemon, on
a core of its own (bench/cores.py), takes loads of so much of that rate, lowest first. It has one
endpoint, that may be sent 10 requests at once, the default, or 50: whenever the sink is not given a
core for a moment, 10 are a third of a millisecond's work.

A load during which the hypervisor took a core away is sent again, twice at most, and the one that
lost least counts: what it lost, and how often it was sent, are told.
"""

from __future__ import annotations

from functools import partial

from bench import trial
from bench.cores import OTHER_CORES, apart
from bench.cpu import Meter, between
from bench.generator import Generator
from bench.load import Plan
from bench.native import percentile
from bench.parts import Parts
from bench.results import Drawing, Line, Result, medians
from bench.scenarios.drain import Case, filled, once
from bench.session import Measures, Session
from bench.stolen import MOST_TAKES, SECONDS, TAKES, in_words, least_robbed
from bench.subjects import DaemonSubject, Setup, wait_until_delivered
from bench.warming import warm_broker

LOADS = (25, 50, 75, 90)
AT_ONCE = (10, 50)
_SHOWN = (("p50_ms", 0.5, "p50"), ("p99_ms", 0.99, "p99"), ("p999_ms", 0.999, "p99.9"))


def run(session: Session, result: Result) -> None:
    """See the module."""
    warm_broker(session)
    seconds = session.size(30, 2)
    at_once = AT_ONCE[:1] if session.quick else AT_ONCE
    by_load = {_name(load, most): list[Measures]() for most in at_once for load in LOADS}
    case = Case(Plan(session.size(200_000, 10_000)), Setup())
    topic = filled(session, case.plan)
    variants = {
        f"{most} at once": partial(_once, session, topic, case, seconds, most, by_load)
        for most in at_once
    }
    session.interleave(result, variants, session.runs(3))
    session.parts.kafka.delete_topic(topic)
    result.figures_of(
        by_load,
        (
            ("rate", "published", "/s"),
            *((key, name, "ms") for key, _, name in _SHOWN),
            ("ack_p99_ms", "of which broker, p99", "ms"),
            ("behind_ms", "load behind schedule", "ms"),
            ("cpu_us", "dispatcherd", "µs"),
            ("own_core", "its core, busy", "%"),
            ("other_cores", "all other cores, busy", "%"),
            (SECONDS, "stolen by the hypervisor", "s"),
            (TAKES, "sent", "times"),
        ),
    )
    for most in at_once:
        for load, target in ((50, 25), (90, 100)):
            name = _name(load, most)
            result.check(f"p99 at {name}", target, medians(by_load[name], "p99_ms"), "ms")
    _draw(result, by_load, at_once)


def _name(load: int, most: int) -> str:
    return f"{load} %, {most} at once"


class _Loads:
    """One run's daemon, and what has been published to it."""

    def __init__(self, parts: Parts, most: int, room: int) -> None:
        """`room`: events that the loads may need; what is not published is not awaited."""
        self.parts = parts
        self.plan = Plan(room)
        self.topic = self.parts.topic()
        self.done = 0
        self.parts.sink.reset(self.plan.events)
        setup = Setup(concurrency=most, own_core=True)
        self.subject = DaemonSubject(self.parts, self.topic, self.plan, setup)
        self._clocks: Meter = trial.meter(self.parts, self.subject)

    def publish(self, rate: float, seconds: float) -> dict[str, float]:
        """At an even rate; what it took. Returns when all has arrived."""
        count = int(rate * seconds)
        generator = Generator(
            self.parts.kafka.bootstrap, self.topic, self.plan, self.done, count, rate
        )
        try:
            told = generator.wait()
            self.done += count
            wait_until_delivered(self.subject, self.parts.sink, self.done, 60)
        finally:
            generator.kill()
        return told

    def measure(self, rate: float, seconds: float) -> Measures:
        """A load's latencies."""
        self.parts.sink.say("forget")
        before = self._clocks.mark()
        found: Measures = {"rate": rate, **self.publish(rate, seconds)}
        used = between(before, self._clocks.mark())
        found["cpu_us"] = used["subject"] / int(rate * seconds) * 1e6
        found["own_core"] = used["subject"] / used["wall"] * 100
        found[SECONDS] = used["stolen"]
        others = sum(v for k, v in used.items() if k not in ("subject", "stolen", "wall"))
        found["other_cores"] = others / used["wall"] / OTHER_CORES * 100
        seen = self.parts.sink.histogram()
        return found | {key: percentile(seen, share) for key, share, _ in _SHOWN}


def _once(
    session: Session,
    topic: str,
    case: Case,
    seconds: int,
    most: int,
    by_load: dict[str, list[Measures]],
) -> Measures:
    rate = once(session, topic, case)["per_second"]
    with apart(session.parts):
        recorded = _take(session, rate, seconds, most, by_load)
    loads = {f"{load} %": by_load[_name(load, most)][-1] for load in LOADS}
    return {"per_second": rate, "loads": loads, "p99_ms": loads["90 %"]["p99_ms"], **recorded}


def _take(
    session: Session, rate: float, seconds: int, most: int, by_load: dict[str, list[Measures]]
) -> dict[str, float]:
    """A daemon goes through all loads; what it has recorded."""
    room = int(rate * seconds * (1 + sum(LOADS) / 100 * MOST_TAKES))
    loads = _Loads(session.parts, most, room)
    subject = loads.subject
    try:
        subject.start()
        subject.wait_ready()
        loads.publish(rate / 4, seconds / 4)  # a warm-up
        for load in LOADS:
            session.tell(f"{load} % of the drain rate")
            measures = least_robbed(partial(loads.measure, rate * load / 100, seconds), SECONDS)
            by_load[_name(load, most)].append(measures)
            session.say(f"    {load} %: p99 {measures['p99_ms']:.1f} ms, {in_words(measures)}")
        subject.published(loads.done)
        subject.wait_settled()
        trial.check_arrivals(session.parts.sink, signed=True)
        return subject.verify()
    finally:
        subject.stop()
        session.parts.kafka.delete_topic(loads.topic)


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
