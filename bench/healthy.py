"""Draining a topic while some endpoints are sick: what the healthy ones get, and what that costs.

The sink counts arrivals by class: 0 is the healthy endpoints, 1 the sick ones. Leaves out: which
endpoints are sick, and how (scenarios).
"""

from __future__ import annotations

import time

from bench import trial
from bench.cpu import between
from bench.native import Sink
from bench.session import Measures, Session
from bench.subjects import DaemonSubject, Loss

STALL_SECONDS = 90.0


def drain(session: Session, subject: DaemonSubject, wanted: int) -> Measures:
    """Start it, and wait until `wanted` have arrived at the healthy. Raises Loss."""
    sink = session.parts.sink
    clocks = trial.meter(session.parts, subject)
    subject.start()
    deadline = time.monotonic() + STALL_SECONDS
    while not seen_by_healthy(sink):
        trial.check_alive(subject)
        if time.monotonic() > deadline:
            raise Loss(f"nothing arrived: {subject.log()}")
        time.sleep(0.005)
    first, before = clocks.mark(), seen_by_healthy(sink)
    wait_for_healthy(session, subject, wanted)
    used = between(first, clocks.mark())
    return {
        "per_second": (wanted - before) / used["wall"],
        "cpu_us": used["subject"] / (wanted - before) * 1e6,
        "postgres_us": used["postgres"] / (wanted - before) * 1e6,
        "others_share": used["others"] / used["wall"],
    }


def seen_by_healthy(sink: Sink) -> int:
    """Distinct deliveries that arrived at healthy endpoints."""
    return int(sink.count()["classes"][0])


def wait_for_healthy(session: Session, subject: DaemonSubject, wanted: int) -> None:
    """Until `wanted` have arrived at the healthy. Raises Loss when nothing comes any more."""
    sink = session.parts.sink
    seen, moved = 0, time.monotonic()
    while seen < wanted:
        time.sleep(0.01)
        trial.check_alive(subject)
        now = seen_by_healthy(sink)
        if now > seen:
            seen, moved = now, time.monotonic()
            session.tell(f"{seen:,} of {wanted:,} healthy deliveries")
        elif time.monotonic() - moved > STALL_SECONDS:
            raise Loss(
                f"{wanted - seen} of {wanted} deliveries to healthy endpoints did not arrive: "
                f"{sink.count()} {subject.log()}"
            )
