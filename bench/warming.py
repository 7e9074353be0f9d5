"""The broker's warm-up, before latency is measured.

A JVM compiles what it runs often. A fresh broker takes a core for that for about its first 40
seconds under an open load, and its acknowledgements up to 600 ms: on two cores that is what a
latency would show; some of it comes half a minute later.
"""

from __future__ import annotations

from bench.generator import Generator
from bench.load import Plan
from bench.session import Session
from bench.subjects import DaemonSubject, Setup, wait_until_delivered

_RATE = 8_000.0


def warm_broker(session: Session) -> None:
    """Publish and deliver at a middling rate; once in a session."""
    if session.warm:
        return
    session.warm = True
    count = int(session.size(75, 1) * _RATE)
    plan = Plan(count)
    topic = session.parts.topic()
    subject = DaemonSubject(session.parts, topic, plan, Setup())
    sink = session.parts.sink
    sink.reset(plan.events)
    session.tell("warming the broker")
    try:
        subject.start()
        subject.wait_ready()
        generator = Generator(session.parts.kafka.bootstrap, topic, plan, 0, count, _RATE)
        try:
            generator.wait()
            wait_until_delivered(subject, sink, count, 60)
        finally:
            generator.kill()
    finally:
        subject.stop()
        session.parts.kafka.delete_topic(topic)
