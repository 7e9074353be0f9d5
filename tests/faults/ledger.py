"""What happened in a run, as plain facts: the checker's only input.

Times are Unix seconds; everything runs on one host, so one clock wrote them all. A process is named
`<member>.<start>`: each start is a life of its own. Leaves out: how the facts are gathered
(gathering, sampling) and what follows from them (check).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

Place = tuple[int, int]
"""(partition, offset)"""

FROZEN = "frozen"
"""The name of the fault that stops a member (SIGSTOP) and lets it go on later."""


@dataclass(frozen=True, slots=True)
class Published:
    """A record that the broker acknowledged."""

    id: str
    partition: int
    offset: int
    at: float
    bad: bool = False
    """It is no event: it belongs in the quarantine, and nowhere else."""

    @property
    def place(self) -> Place:
        return self.partition, self.offset


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request at a receiver."""

    at: float
    endpoint: str
    process: str
    attempt: int
    """As the request's header says."""
    ids: tuple[str, ...]
    ended: float | None = None
    """When the receiver was done with it; None: not before the run's end."""
    status: int = 0
    """What it was answered; 0: nothing, or nobody was there any more to hear it."""

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Recorded:
    """A row of `attempts`."""

    exchange: int
    process: str
    endpoint: str
    partition: int
    offset: int
    at: float
    """When the request was begun."""
    took: float
    """Seconds until it was over, for the process."""
    recorded: float
    """When the row was written, by the server's clock."""
    number: int
    status: int
    reason: str
    delivered: bool
    sent: bool

    @property
    def place(self) -> Place:
        return self.partition, self.offset

    @property
    def ended(self) -> float:
        """When it was over; a process that was frozen as it began has a time of its beginning that
        is too late."""
        return min(self.at + self.took, self.recorded)

    @property
    def begun(self) -> float:
        """When the process set about it: see `ended`."""
        return min(self.at, self.ended - self.took)


@dataclass(frozen=True, slots=True)
class Owed:
    """A row of `deliveries` at the end."""

    endpoint: str
    partition: int
    offset: int
    dead: bool
    reason: str
    attempts: int
    due: float


@dataclass(frozen=True, slots=True)
class Step:
    """One change of a row of `progress`, in the order of commits."""

    at: float
    partition: int
    epoch: int
    watermark: int | None
    process: str
    """Whose epoch it is."""


@dataclass(frozen=True, slots=True)
class Unsettled:
    """Seen in one snapshot of Postgres: below the watermark, and nowhere accounted for."""

    at: float
    partition: int
    offset: int
    endpoint: str
    watermark: int


@dataclass(frozen=True, slots=True)
class GroupOffset:
    """A group's offset, and the watermark that was read after it."""

    at: float
    partition: int
    committed: int
    watermark: int | None


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of one process."""

    at: float
    process: str
    bytes: int


class End(Enum):
    """How a life came to its end."""

    ALIVE = "alive"
    KILLED = "killed"
    """SIGKILL, by the bench."""
    STOPPED = "stopped"
    """SIGTERM, by the bench."""
    ITSELF = "ended by itself"


@dataclass(slots=True)
class Life:
    """One start of one member."""

    process: str
    pid: int
    started: float
    ended: float | None = None
    end: End = End.ALIVE
    asked: float | None = None
    """When SIGTERM was sent."""
    code: int | None = None
    recorded: bool = True
    """After SIGTERM: it says that every outcome has become durable."""
    last_words: str = ""


@dataclass(slots=True)
class Fault:
    """Something done to a part: `part` is member, postgres, kafka, receiver, topic or group."""

    name: str
    part: str
    target: str
    began: float
    ended: float | None = None

    def overlaps(self, start: float, end: float) -> bool:
        return self.began <= end and (self.ended is None or self.ended >= start)

    def __str__(self) -> str:
        return f"{self.name} ({self.target})" if self.target else self.name


@dataclass(slots=True)
class Ledger:
    """Everything that a run left behind."""

    endpoints: tuple[str, ...]
    began: float
    ended: float
    timeout_seconds: float
    """Of one attempt, the same for all endpoints."""
    stop_seconds: float
    """From SIGTERM to the end, at most."""
    memory_bytes: int
    """The bound of one process."""
    published: list[Published] = field(default_factory=list)
    unsure: set[str] = field(default_factory=set)
    """Ids of records whose acknowledgement never came: nothing is claimed of them."""
    arrivals: list[Arrival] = field(default_factory=list)
    recorded: list[Recorded] = field(default_factory=list)
    owed: list[Owed] = field(default_factory=list)
    quarantined: dict[Place, float] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    unsettled: list[Unsettled] = field(default_factory=list)
    group: list[GroupOffset] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    snapshots: int = 0
    """How often the watermarks were compared with what is accounted for."""
    complete: bool = True
    """False: the run was broken off at what was seen, so what has not arrived is not lost."""
    ends: dict[int, int] = field(default_factory=dict)
    """The end of each partition at the end of the run."""

    def overlapping(self, start: float, end: float, parts: Iterable[str] = ()) -> list[Fault]:
        """Faults that touch an interval, of these parts (of any, when none is named)."""
        wanted = set(parts)
        return [
            f for f in self.faults if f.overlaps(start, end) and (not wanted or f.part in wanted)
        ]
