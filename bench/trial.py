"""One run: a subject drains a topic into the sink; what that cost, once everything has arrived.

Invariant: the clocks run from the first arrival seen (start-up is not delivery) to the moment when
the last outcome is durable, and only deliveries in between count; a run that loses anything raises
Loss. Leaves out: how often and in which order (session), what the figures should be (scenarios).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any

from bench import cpu
from bench.cpu import Mark, Meter, between
from bench.load import Plan
from bench.native import Sink
from bench.parts import Parts
from bench.stolen import SHARE
from bench.subjects import SECRET, Loss, Subject, memory_bytes

STALL_SECONDS = 60.0
Tell = Callable[[str], None]


def meter(parts: Parts, subject: Subject) -> Meter:
    """Clocks of the parts and of the subject."""

    def subject_seconds() -> float:
        return sum(cpu.process_seconds(pid) for pid in subject.pids())

    return Meter({"subject": subject_seconds, **parts.clocks(), "bench": time.process_time})


def drain(
    parts: Parts,
    plan: Plan,
    subject: Subject,
    tell: Tell,
    sink: Sink | None = None,
    stall: float = STALL_SECONDS,
    fill: Callable[[], None] | None = None,
    look: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Start, watch until all has arrived and is recorded, verify, stop; the measures.

    `fill` publishes the events once the subject has started, where they are not there already;
    the first may take `stall` seconds to arrive. `look` is called before the subject is stopped.
    """
    sink = sink or parts.sink
    sink.reset(plan.events, plan.fanout, max(plan.endpoints, plan.fanout))
    clocks = meter(parts, subject)
    try:
        subject.start()
        if fill is not None:
            fill()
        first, before = _first_arrival(clocks, subject, sink, stall)
        last = _until_all(plan, clocks, subject, sink, tell)
        found = _measures(plan, first, last, before, sink, subject)
        found |= subject.verify()
        if look is not None:
            look()
    finally:
        subject.stop()
    return found


def _first_arrival(clocks: Meter, subject: Subject, sink: Sink, stall: float) -> tuple[Mark, int]:
    deadline = time.monotonic() + stall
    while not sink.count()["unique"]:
        check_alive(subject)
        if time.monotonic() > deadline:
            raise Loss(f"{subject.name}: nothing arrived in {stall:.0f} s: {subject.log()}")
        time.sleep(0.005)
    return clocks.mark(), sink.count()["unique"]


def _until_all(plan: Plan, clocks: Meter, subject: Subject, sink: Sink, tell: Tell) -> Mark:
    seen, moved = 0, time.monotonic()
    while seen < plan.deliveries:
        time.sleep(0.02)
        check_alive(subject)
        unique = sink.count()["unique"]
        if unique > seen:
            seen, moved = unique, time.monotonic()
            tell(f"{subject.name}: {seen:,} of {plan.deliveries:,}")
        elif time.monotonic() - moved > STALL_SECONDS:
            missing = sink.say("missing 5")
            raise Loss(
                f"{subject.name}: {plan.deliveries - seen} of {plan.deliveries} did not arrive, "
                f"such as (event, endpoint) {missing}: {sink.count()} {subject.log()}"
            )
    while not subject.settled():
        check_alive(subject)
        if time.monotonic() - moved > STALL_SECONDS:
            raise Loss(f"{subject.name}: all arrived, not all is recorded: {subject.log()}")
        time.sleep(0.01)
    return clocks.mark()


def check_alive(subject: Subject) -> None:
    """Raise Loss when it has ended, with its last words."""
    if not subject.alive():
        raise Loss(f"{subject.name} ended: {subject.log()}")


def _measures(
    plan: Plan, first: Mark, last: Mark, before: int, sink: Sink, subject: Subject
) -> dict[str, Any]:
    used = between(first, last)
    deliveries = plan.deliveries - before
    count = sink.count()
    check_arrivals(sink, signed=True)
    _, peak = memory_bytes(subject)
    return {
        "deliveries": deliveries,
        "wall_seconds": used["wall"],
        "per_second": deliveries / used["wall"],
        "cpu_us": used["subject"] / deliveries * 1e6,
        "per_cpu_second": deliveries / used["subject"],
        "postgres_us": used["postgres"] / deliveries * 1e6,
        "kafka_us": used["kafka"] / deliveries * 1e6,
        "sink_us": used["sink"] / deliveries * 1e6,
        "others_share": used["others"] / used["wall"],
        SHARE: used["stolen"] / used["wall"],
        "startup_cpu_seconds": first.parts["subject"],
        "peak_mb": peak / 1e6,
        "requests": count["requests"],
        "duplicates": count["duplicates"],
        "connections": count["accepts"],
    }


def check_arrivals(sink: Sink, signed: bool) -> None:
    """Raise Loss when something came to the wrong place or badly; samples' signatures verify."""
    count = sink.count()
    wrong = {k: count[k] for k in ("misrouted", "unknown", "bad") if count[k]}
    if signed and count["unsigned"]:
        wrong["unsigned"] = count["unsigned"]
    for sample in sink.samples() if signed else ():
        if not verifies(sample):
            wrong["badly signed"] = wrong.get("badly signed", 0) + 1
    if wrong:
        raise Loss(f"arrivals that must not be: {wrong} of {count['requests']} requests")


def verifies(request: bytes) -> bool:
    """Whether a whole request carries a good Standard Webhooks signature of its body."""
    head, _, content = request.partition(b"\r\n\r\n")
    headers = {}
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        headers[name.decode().lower()] = value.strip()
    signed = headers["webhook-id"] + b"." + headers["webhook-timestamp"] + b"." + content
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    wanted = b"v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
    return wanted in headers["webhook-signature"].split(b" ")
