"""CPU time and memory of the parts, as the kernel counts them.

Invariant: nothing is estimated: a process's own CPU clock (all its threads, also ended ones) in
nanoseconds; for Postgres also the server processes that have ended meanwhile. The kernel charges
the work of a loopback packet to the process that sent it: each part pays for what it sends.
Leaves out: what the numbers are divided by (trial).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED = 2

Pids = Callable[[], Iterable[int]]


def process_seconds(pid: int) -> float:
    """User and system time of one process since it began; 0 when it is gone."""
    try:
        # clock_getcpuclockid(3): the process's CPU clock, readable for any process.
        return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED) / 1e9
    except OSError:
        return 0.0


def reaped_seconds(pid: int) -> float:
    """What its ended children took, in ticks of the kernel (10 ms)."""
    fields = _stat(Path(f"/proc/{pid}/stat"))
    return (int(fields[13]) + int(fields[14])) / _TICKS if fields else 0.0


def machine_seconds() -> tuple[float, float]:
    """All cores: busy seconds, and seconds stolen by the hypervisor."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _wait, irq, soft, stolen = (int(f) / _TICKS for f in fields[:8])
    return user + nice + system + irq + soft, stolen


def resident_bytes(pid: int) -> tuple[int, int]:
    """Resident memory now, and at its highest."""
    now = peak = 0
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                now = int(line.split()[1]) * 1024
            elif line.startswith("VmHWM:"):
                peak = int(line.split()[1]) * 1024
    except OSError:
        pass  # the process has just ended: nothing more is known of it
    return now, peak


def children(pid: int) -> list[int]:
    """Its direct children now."""
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def family_seconds(pid: int) -> float:
    """A server with a process per connection: itself, its children, and those that ended."""
    return sum(process_seconds(p) for p in (pid, *children(pid))) + reaped_seconds(pid)


def _stat(path: Path) -> list[str]:
    try:
        return path.read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


@dataclass(frozen=True, slots=True)
class Mark:
    """One reading of every clock."""

    at: float
    """Monotonic seconds."""
    parts: Mapping[str, float]
    busy: float
    stolen: float


class Meter:
    """Reads the clocks of named parts together."""

    def __init__(self, clocks: Mapping[str, Callable[[], float]]) -> None:
        self._clocks = dict(clocks)

    def mark(self) -> Mark:
        """Now."""
        busy, stolen = machine_seconds()
        parts = {name: clock() for name, clock in self._clocks.items()}
        return Mark(time.monotonic(), parts, busy, stolen)


def between(first: Mark, second: Mark) -> dict[str, float]:
    """CPU seconds by part; `others`: the rest of the machine; `stolen`; `wall`."""
    used = {name: second.parts[name] - first.parts[name] for name in first.parts}
    used["others"] = max(0.0, second.busy - first.busy - sum(used.values()))
    used["stolen"] = second.stolen - first.stolen
    used["wall"] = second.at - first.at
    return used
