"""How the cost of a delivery grows: with processes, pending retries, registered endpoints, TLS.

Four series, each a drain of fresh events with one thing varied. With several processes on few
cores the figure is CPU per delivery, not wall time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

from bench import parked, trial
from bench.load import Plan, prefill
from bench.native import Sink
from bench.results import Drawing, Line, Result, medians
from bench.scenarios.drain import filled
from bench.session import Measures, Session
from bench.subjects import DaemonSubject, Setup

_HOSTS = 100
_FAR_SECONDS = 86_400.0
_START_STALL = 900.0
"""100,000 endpoints have to be read and registered first."""
_FLAT = 1.15

Runs = dict[str, list[Measures]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is varied, and over how many events."""

    processes: tuple[int, ...]
    pending: tuple[int, ...]
    endpoints: tuple[int, ...]
    active: int
    events: int


_FULL = Sizes((1, 2, 4), (1_000, 10_000, 100_000, 1_000_000), (10, 1_000, 10_000, 100_000),
              1_000, 200_000)  # fmt: skip
_QUICK = Sizes((1, 2), (1_000, 10_000), (10, 100, 200), 100, 5_000)


def run(session: Session, result: Result) -> None:
    """See the module."""
    sizes = _QUICK if session.quick else _FULL
    runs = session.runs(3)
    _processes(session, result, sizes, runs)
    _pending(session, result, sizes, runs)
    _endpoints(session, result, sizes, runs)


def _processes(session: Session, result: Result, sizes: Sizes, runs: int) -> None:
    def once(count: int) -> Measures:
        # Published once all have joined: members that join one by one would measure rebalances.
        plan = Plan(sizes.events, 10)
        topic = session.parts.topic()
        subject = DaemonSubject(session.parts, topic, plan, Setup(hosts=10, processes=count))

        def fill() -> None:
            subject.wait_ready()
            time.sleep(1.0)  # a member that has just joined may still set off a rebalance
            prefill(session.parts.kafka.bootstrap, topic, plan)

        measures = trial.drain(session.parts, plan, subject, session.tell, fill=fill)
        session.parts.kafka.delete_topic(topic)
        return measures

    variants = {_processes_name(n): partial(once, n) for n in sizes.processes}
    measured = session.interleave(result, variants, runs)
    _figures(result, measured)
    _growth(result, "scale-processes", "processes in one group", list(sizes.processes), measured,
            log_x=False)  # fmt: skip
    _flat(result, "CPU per delivery with more processes, of one", measured)


def _processes_name(count: int) -> str:
    return f"{count} process{'es' if count > 1 else ''}"


def _pending(session: Session, result: Result, sizes: Sizes, runs: int) -> None:
    parts = session.parts

    def once(pending: int) -> Measures:
        plan = Plan(sizes.events, 100)
        topic = parts.topic()
        subject = DaemonSubject(
            parts, topic, plan, Setup(hosts=_HOSTS), below=pending, owed=pending
        )
        session.tell(f"laying {pending:,} pending retries")
        numbers = range(plan.events, plan.events + pending)
        due = parked.in_seconds(_FAR_SECONDS)
        parked.lay(subject.database, parts.kafka.bootstrap, topic, plan, numbers, due)
        prefill(parts.kafka.bootstrap, topic, plan)
        measures = trial.drain(parts, plan, subject, session.tell, stall=_START_STALL)
        parts.kafka.delete_topic(topic)
        return measures

    measured = session.interleave(
        result, {f"{n:,} pending": partial(once, n) for n in sizes.pending}, runs
    )
    _figures(result, measured)
    _growth(result, "scale-pending", "retries pending in Postgres", list(sizes.pending), measured)
    _flat(result, "CPU per delivery with more pending retries, of the fewest", measured)


def _endpoints(session: Session, result: Result, sizes: Sizes, runs: int) -> None:
    parts = session.parts
    topics: dict[int, str] = {}

    def once(registered: int, sink: Sink) -> Measures:
        plan = Plan(sizes.events, min(registered, sizes.active))
        if plan.endpoints not in topics:
            topics[plan.endpoints] = filled(session, plan)
        environment = {"SSL_CERT_FILE": str(parts.certificate)} if sink is not parts.sink else {}
        setup = Setup(
            hosts=_HOSTS, registered=registered, environment=environment,
            sections={"network": {"allowed_networks": ["127.0.0.0/8"]}},
        )  # fmt: skip
        subject = DaemonSubject(parts, topics[plan.endpoints], plan, setup, sink)
        began = time.monotonic()
        measures = trial.drain(parts, plan, subject, session.tell, sink, stall=_START_STALL)
        measures["start_seconds"] = time.monotonic() - began - measures["wall_seconds"]
        return measures

    variants = {f"{n:,} endpoints": partial(once, n, parts.sink) for n in sizes.endpoints}
    plain = f"{sizes.active:,} endpoints"
    variants[f"{sizes.active:,} endpoints, TLS"] = partial(once, sizes.active, parts.tls_sink)
    measured = session.interleave(result, variants, runs)
    for topic in topics.values():
        parts.kafka.delete_topic(topic)
    _figures(result, measured)
    for name, m in measured.items():
        result.figure(name, "start", "s", [run["start_seconds"] for run in m])
    tls = measured.pop(f"{sizes.active:,} endpoints, TLS")
    _growth(result, "scale-endpoints", "endpoints registered", list(sizes.endpoints), measured)
    # Fewer registered than get events would be fewer that get events: another case (drain).
    _flat(result, "CPU per delivery with more registered endpoints, of the fewest", {
        f"{n:,} endpoints": measured[f"{n:,} endpoints"]
        for n in sizes.endpoints if n >= sizes.active
    })  # fmt: skip
    if plain in measured:
        ratio = medians(tls, "cpu_us") / medians(measured[plain], "cpu_us")
        result.notes.append(f"TLS costs {ratio:.2f} times plain HTTP, connections included.")


def _figures(result: Result, measured: Runs) -> None:
    result.figures_of(
        measured,
        (
            ("cpu_us", "dispatcherd", "µs"),
            ("postgres_us", "Postgres", "µs"),
            ("per_second", "per second", ""),
            ("peak_mb", "memory", "MB"),
            ("connections", "connections", ""),
            ("duplicates", "arrived twice", ""),
        ),
    )


def _flat(result: Result, claim: str, measured: Runs) -> None:
    """Every size within 15 % of the first one."""
    first, *_ = sizes = list(measured.values())
    dearest = max(sizes, key=lambda runs: medians(runs, "cpu_us"))
    result.check_ratio(claim, _FLAT, dearest, first, "cpu_us")


def _growth(
    result: Result, name: str, what: str, xs: list[int], measured: Runs, log_x: bool = True
) -> None:
    for key, y, suffix in (("cpu_us", "µs", "cpu"), ("peak_mb", "MB", "memory")):
        points: list[tuple[float | str, float]] = [
            (x, medians(m, key)) for x, m in zip(xs, measured.values(), strict=True)
        ]
        lows = [min(run[key] for run in m) for m in measured.values()]
        highs = [max(run[key] for run in m) for m in measured.values()]
        title = "CPU per delivery" if suffix == "cpu" else "Resident memory"
        result.drawings.append(
            Drawing(
                f"{name}-{suffix}", f"{title} by {what}", what, y,
                [Line("dispatcherd", points, lows, highs)], log_x=log_x,
            )
        )  # fmt: skip
