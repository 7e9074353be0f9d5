"""Receivers dark for a minute under load, then back: how the backlog drains, herd or not, memory.

Dark means that connections stand and nothing is answered, as when a host loses power; when it
comes back, what was in its sockets is lost. Ten endpoints on ten hosts; attempts time out after 5 s
and are repeated after 1, 2, 4, 8 and then every 15 s, so that the waiting itself does not hide how
the daemon drains. Load goes on all the while, at a quarter of the drain rate.
"""

from __future__ import annotations

import time
from functools import partial
from itertools import pairwise

from bench import trial
from bench.generator import Generator
from bench.load import Plan
from bench.native import Sink
from bench.results import Drawing, Line, Result, medians
from bench.sampling import Sampler
from bench.scenarios.drain import drain_rate
from bench.session import Measures, Session
from bench.subjects import DaemonSubject, Setup, memory_bytes, wait_until_delivered

_BEFORE, _AFTER = 10, 60
_RETRY = {"schedule_seconds": [0, 1, 2, 4, 8, 15], "max_attempts": 100}
_CAUGHT_UP_SECONDS = 0.5


def run(session: Session, result: Result) -> None:
    """See the module."""
    rate = drain_rate(session) / 4
    dark = session.size(60, 4)
    before, after = session.size(_BEFORE, 1), session.size(_AFTER, 3)
    shown: list[Sampler] = []
    marks: list[tuple[float, float]] = []
    once = partial(_once, session, rate, (before, dark, after), shown, marks)
    runs = session.interleave(result, {"recovery": once}, session.runs(2))
    result.figures_of(
        runs,
        (
            ("rate", "load", "/s"),
            ("backlog", "backlog when back", ""),
            ("drain_seconds", "drained after", "s"),
            ("catch_up_rate", "while draining", "/s"),
            ("peak_rate", "highest 0.2 s", "/s"),
            ("peak_open", "connections at most", ""),
            ("duplicates", "arrived twice", ""),
            ("peak_mb", "memory", "MB"),
        ),
    )
    result.check("resident memory while dark and draining", 250,
                 medians(runs["recovery"], "peak_mb"), "MB")  # fmt: skip
    _draw(result, shown[-1], marks[-1])


def _once(
    session: Session, rate: float, phases: tuple[int, int, int], shown: list[Sampler],
    marks: list[tuple[float, float]],
) -> Measures:  # fmt: skip
    before, dark, _ = phases
    plan = Plan(int(rate * sum(phases)), 10)
    parts, sink = session.parts, session.parts.sink
    topic = parts.topic()
    sink.reset(plan.events, 1, plan.endpoints)
    setup = Setup(hosts=10, endpoint={"timeout_seconds": 5.0, "retry": _RETRY})
    subject = DaemonSubject(parts, topic, plan, setup)
    generator: Generator | None = None
    try:
        subject.start()
        subject.wait_ready()
        with Sampler(subject, sink) as sampler:
            generator = Generator(parts.kafka.bootstrap, topic, plan, 0, plan.events, rate)
            began = _first(sink)
            _sleep_until(session, began + before, "load")
            sink.say("dark")
            _sleep_until(session, began + before + dark, "dark")
            sink.say("open")
            opened = time.monotonic()
            sink.say("forget")
            backlog = rate * (opened - began) - sink.count()["unique"]
            drained = _drained(session, sink, began, rate, plan.events, subject)
            generator.wait()
            wait_until_delivered(subject, sink, plan.events, 300)
            peak_open = sink.count()["peak_open"]
        subject.wait_settled(120)
        shown.append(sampler)
        marks.append((began, opened))
        trial.check_arrivals(sink, signed=True)
        rates = [r for at, r in sampler.rates() if opened < at < drained]
        return {
            "rate": rate,
            "backlog": backlog,
            "drain_seconds": drained - opened,
            "catch_up_rate": sum(rates) / len(rates) if rates else float("nan"),
            "peak_rate": max(rates, default=float("nan")),
            "peak_open": peak_open,
            "duplicates": sink.count()["duplicates"],
            "peak_mb": memory_bytes(subject)[1] / 1e6,
            **subject.verify(),
        }
    finally:
        sink.say("open")
        if generator is not None:
            generator.kill()
        subject.stop()
        parts.kafka.delete_topic(topic)


def _first(sink: Sink) -> float:
    deadline = time.monotonic() + 60
    while not sink.count()["unique"]:
        assert time.monotonic() < deadline, "nothing arrived"
        time.sleep(0.005)
    return time.monotonic()


def _sleep_until(session: Session, at: float, what: str) -> None:
    while (left := at - time.monotonic()) > 0:
        session.tell(f"{what}, {left:.0f} s more")
        time.sleep(min(left, 0.5))


def _drained(
    session: Session, sink: Sink, began: float, rate: float, total: int, subject: DaemonSubject
) -> float:
    """When what has arrived had caught up with what was published (but for half a second)."""
    deadline = time.monotonic() + 600
    while True:
        trial.check_alive(subject)
        now = time.monotonic()
        published = min(total, rate * (now - began))
        lag = published - sink.count()["unique"]
        if lag <= rate * _CAUGHT_UP_SECONDS:
            return now
        assert now < deadline, f"{lag:.0f} events behind after 600 s: {subject.log()}"
        session.tell(f"draining, {lag:,.0f} behind")
        time.sleep(0.05)


def _draw(result: Result, sampler: Sampler, marks: tuple[float, float]) -> None:
    _, opened = marks
    since = "seconds since the receivers are back"

    def smooth(points: list[tuple[float, float]]) -> list[tuple[float | str, float]]:
        paired = [((a + c) / 2, (b + d) / 2) for (a, b), (c, d) in pairwise(points)]
        return [(round(at - opened, 2), value) for at, value in paired]

    arrivals, memory = smooth(sampler.rates()), smooth(sampler.memory())
    result.drawings += [
        Drawing(
            "recovery-rate", "Arrivals around a dark minute", since, "a second",
            [Line("arrivals", arrivals)],
        ),
        Drawing(
            "recovery-memory", "Resident memory around a dark minute", since, "MB",
            [Line("memory", memory)], target=250, target_name="250 MB",
        ),
    ]  # fmt: skip
