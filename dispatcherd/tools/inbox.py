"""What the local endpoint has received: kept in memory, bounded, told to whoever looks.

Invariant: items, bytes, remembered ids and each looker's queue have a cap; a looker that does not
keep up is told to begin again, and holds up nobody. Leaves out: HTTP (server), and what is wrong
with a request (diagnose).
"""

from __future__ import annotations

import asyncio
import base64
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from dispatcherd.receiver.event import Hints, unpack
from dispatcherd.receiver.verify import Verified
from dispatcherd.tools.diagnose import Diagnosis

MOST_REQUESTS = 500
MOST_BYTES = 32 * 1_048_576
_MOST_IDS = 10_000
_MOST_UNTOLD = 200


@dataclass(slots=True)
class Received:
    """One request, and what became of it."""

    number: int
    at: float
    """Unix seconds."""
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    found: Diagnosis
    seen: int
    """How often its id has come, this time included."""
    types: tuple[str, ...] = ()
    """Of its event, or of each of its events."""
    members: tuple[str, ...] = ()
    """The ids of a batch."""
    answer: str = ""
    """Its status, or what was done instead."""
    seconds: float = 0.0
    """From its arrival to the answer."""

    def summary(self) -> dict[str, Any]:
        """A line of the list."""
        return {
            "number": self.number,
            "at": self.at,
            "method": self.method,
            "path": self.path,
            "id": self.found.id,
            "types": self.types[:3],
            "events": max(len(self.members), 1),
            "batch": bool(self.members),
            "bytes": len(self.body),
            "ok": self.found.ok,
            "codes": [finding.code for finding in self.found.findings],
            "seen": self.seen,
            "answer": self.answer,
            "seconds": self.seconds,
        }

    def document(self) -> dict[str, Any]:
        """All of it; the body as text where it is text, else in base64."""
        found: dict[str, Any] = {**self.summary(), "headers": self.headers}
        try:
            found["body"] = self.body.decode("utf-8")
        except UnicodeDecodeError:
            found["body_base64"] = base64.b64encode(self.body).decode()
        return found | {"verification": asdict(self.found)}


@dataclass(eq=False)
class _Looker:
    queue: asyncio.Queue[tuple[str, Any]] = field(
        default_factory=lambda: asyncio.Queue(_MOST_UNTOLD)
    )
    behind: bool = False


class Inbox:
    """The last requests, and the ids that have come."""

    def __init__(self, most_requests: int = MOST_REQUESTS, most_bytes: int = MOST_BYTES) -> None:
        self._most_requests = most_requests
        self._most_bytes = most_bytes
        self._kept: OrderedDict[int, Received] = OrderedDict()
        self._bytes = 0
        self._next = 1
        self._seen: OrderedDict[str, int] = OrderedDict()
        self._processed: OrderedDict[str, None] = OrderedDict()
        self._lookers: set[_Looker] = set()

    def take(
        self,
        at: float,
        method: str,
        path: str,
        headers: tuple[tuple[str, str], ...],
        body: bytes,
        found: Diagnosis,
    ) -> Received:
        """Number a request and see what is in it; it is kept from `keep` on."""
        message = unpack(Verified(found.id or "", found.timestamp, ""), body, Hints())
        received = Received(
            self._next, at, method, path, headers, body, found, self._count(found.id),
            tuple(event.type for event in message.events),
            tuple(event.id for event in message.events) if message.is_batch else (),
        )  # fmt: skip
        self._next += 1
        return received

    def keep(self, received: Received) -> None:
        """Keep it, drop the oldest past the caps, and tell the lookers."""
        self._kept[received.number] = received
        self._bytes += _size(received)
        while len(self._kept) > 1 and (
            len(self._kept) > self._most_requests or self._bytes > self._most_bytes
        ):
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= _size(oldest)
        self.tell("request", received.summary())

    def process(self, received: Received) -> None:
        """Its events count as processed, once each."""
        for webhook_id in received.members or (received.found.id or "",):
            self._processed[webhook_id] = None
            if len(self._processed) > _MOST_IDS:
                self._processed.popitem(last=False)

    @property
    def processed(self) -> list[str]:
        """The ids of processed events, each once, in the order in which they came."""
        return list(self._processed)

    def get(self, number: int) -> Received | None:
        """One that is still kept."""
        return self._kept.get(number)

    def summaries(self) -> list[dict[str, Any]]:
        """Every kept request, the oldest first."""
        return [received.summary() for received in self._kept.values()]

    def clear(self) -> None:
        """Forget all requests and ids."""
        self._kept.clear()
        self._seen.clear()
        self._processed.clear()
        self._bytes = 0
        self.tell("cleared", {})

    def tell(self, name: str, content: Any) -> None:
        """Tell every looker."""
        for looker in self._lookers:
            try:
                looker.queue.put_nowait((name, content))
            except asyncio.QueueFull:
                looker.behind = True

    @contextmanager
    def looking(self) -> Iterator[_Looker]:
        """What happens from now on."""
        looker = _Looker()
        self._lookers.add(looker)
        try:
            yield looker
        finally:
            self._lookers.discard(looker)

    def _count(self, webhook_id: str | None) -> int:
        if webhook_id is None:
            return 1
        self._seen[webhook_id] = seen = self._seen.pop(webhook_id, 0) + 1
        if len(self._seen) > _MOST_IDS:
            self._seen.popitem(last=False)
        return seen


def _size(received: Received) -> int:
    headers = sum(len(name) + len(value) + 128 for name, value in received.headers)
    return len(received.body) + headers + 1_024
