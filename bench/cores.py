"""Which cores who runs on, where a latency is measured.

In production broker, database and receivers are on other machines. Here they share the daemon's,
and where the kernel puts what it wakes decides the tail: it likes to wake the sink on the core of
the daemon that has just sent to it, and for a tenth of a second both wait for each other on one
core while the other one idles. So the daemon gets a core of its own, and all else shares the rest.
What is counted in CPU time does not need this, and is measured without.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from bench.parts import Parts

_ALL = sorted(os.sched_getaffinity(0))
_SUBJECT, _OTHERS = (set(_ALL[-1:]), set(_ALL[:-1])) if len(_ALL) > 1 else (set(_ALL), set(_ALL))
OTHER_CORES = len(_OTHERS)
"""How many all else shares."""


@contextlib.contextmanager
def apart(parts: Parts) -> Iterator[None]:
    """The parts, this thread and what it starts keep off the subject's core."""
    _move(parts, _OTHERS)
    try:
        yield
    finally:
        _move(parts, set(_ALL))


@contextlib.contextmanager
def of_the_subject() -> Iterator[None]:
    """What is started in here has the subject's core to itself, within `apart`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, _SUBJECT)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _move(parts: Parts, cores: set[int]) -> None:
    os.sched_setaffinity(0, cores)
    for pid in parts.pids():
        # A thread, or a process of the server's, may just have ended.
        with contextlib.suppress(FileNotFoundError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread.name), cores)
