"""One endpoint's bounded queue: what waits to be sent, and what makes the next batch.

Invariant: `fresh`, `due` and what waits on the wheel hold at most the cap in deliveries together;
half of it is kept for due rows while any are owed, so that neither starves the other. The cap in
bytes is shared alike, but one delivery of each kind is taken whatever its size, or it would never
be sent. Leaves out: sending (send), where the overflow goes (intake), and when a retry is due
(retry).
"""

from __future__ import annotations

from collections import deque
from typing import Final

from dispatcherd.delivery import Claim, Delivery, Endpoint, Key, Stage

_NEVER: Final = float("inf")
# Looking up a member of an enum costs Python 3.11 70 ns each time.
_QUEUED: Final = Stage.QUEUED
_AIR: Final = Stage.AIR


class Lane:
    """The queue of one endpoint, and what is known of it in this process."""

    def __init__(
        self,
        endpoint: Endpoint,
        max_deliveries: int,
        max_bytes: int,
        backlogged: dict[Lane, None] | None = None,
    ) -> None:
        """`backlogged`: shared by all lanes; holds those that may have rows only in Postgres."""
        self.endpoint = endpoint
        self._backlogged = {} if backlogged is None else backlogged
        self.max_deliveries = max_deliveries
        self.max_bytes = max_bytes
        self.fresh: deque[Delivery] = deque()
        self.due: deque[Delivery] = deque()
        self.fresh_bytes = 0
        self.due_bytes = 0
        self.owed: dict[Key, Delivery] = {}
        """Deliveries in memory that have a row in `deliveries`: paging must skip them."""
        self.waiting = 0
        """Of `owed`, those on the wheel."""
        self.waiting_bytes = 0
        self.in_air = 0
        """Exchanges under way."""
        self.probing = True
        """One exchange at a time: it has not been answered yet, or not since one timed out."""
        self.queued = False
        """It waits for a slot of its host, and will be told."""
        self.next_due = _NEVER
        """Monotonic time at which a row that is only in Postgres may be due; inf: none known."""
        self.linger: object | None = None
        """The wheel's timer for a batch that is waiting to fill."""
        self.removed = False
        self.last_offer = float("-inf")
        """When a fresh delivery last came in, monotonic, to half a second (overflow)."""
        self.asked_at = float("-inf")
        """When it was last asked for something to send, monotonic. While all its exchanges hang, it
        is not."""
        self._due_turn = self._due_turn_before = True

    def __len__(self) -> int:
        return len(self.fresh) + len(self.due)

    @property
    def allowed(self) -> int:
        """How many exchanges it may have under way. What hangs, holds connections and comes to its
        end all at once: of that there should be little."""
        return 1 if self.probing else self.endpoint.concurrency

    def has_room(self, size: int) -> bool:
        """Room for one more fresh delivery of `size` bytes. The first one may have any size."""
        fresh = len(self.fresh)
        if not fresh:
            return True
        cap, cap_bytes = self.max_deliveries, self.max_bytes
        if fresh + len(self.due) + self.waiting >= cap:
            return False
        if self.due or self.next_due != _NEVER:
            cap -= cap // 2
            cap_bytes -= cap_bytes // 2
        if fresh >= cap or self.fresh_bytes + size > cap_bytes:
            return False
        return self.fresh_bytes + self.due_bytes + size <= self.max_bytes

    def expect(self, at: float) -> None:
        """A row that is only in Postgres may be due at a monotonic time."""
        if at < self.next_due:
            self.next_due = at
            self._backlogged[self] = None

    def due_room(self) -> int:
        """How many more due rows this lane and its share of the wheel can take. Ask again after
        each: their sizes are known only then."""
        held = len(self.due) + self.waiting
        if self.due and (
            self.due_bytes >= self.max_bytes // 2
            or self.fresh_bytes + self.due_bytes >= self.max_bytes
        ):
            return 0
        half = max(1, self.max_deliveries // 2)
        left = max(2, self.max_deliveries) - len(self.fresh)
        return max(0, min(half, left) - held)

    def offer(self, delivery: Delivery) -> None:
        """Queue a fresh delivery; the caller has asked `has_room`."""
        delivery.stage = _QUEUED
        self.fresh.append(delivery)
        self.fresh_bytes += delivery.event.size

    def offer_due(self, delivery: Delivery) -> None:
        """Queue a delivery whose time has come (it has a row in `deliveries`)."""
        delivery.stage = _QUEUED
        self.due.append(delivery)
        self.due_bytes += delivery.event.size

    def put_back(self, batch: list[Delivery]) -> None:
        """Undo the last `take`: the batch is the next again."""
        self._due_turn = self._due_turn_before
        queue = self.due if batch[0].owed else self.fresh
        size = 0
        for delivery in reversed(batch):
            delivery.stage = _QUEUED
            queue.appendleft(delivery)
            size += delivery.event.size
        self._count(queue, size)

    def _count(self, queue: deque[Delivery], size: int) -> None:
        if queue is self.due:
            self.due_bytes += size
        else:
            self.fresh_bytes += size

    def remove(self, delivery: Delivery) -> bool:
        """Take a queued delivery out; False when it was not queued here. It is looked for from the
        front, where what is taken out mostly stands: what is parked is the oldest."""
        queues = (self.due, self.fresh) if delivery.owed else (self.fresh, self.due)
        for queue in queues:
            if delivery in queue:
                queue.remove(delivery)
                self._count(queue, -delivery.event.size)
                return True
        return False

    def withdraw(self, claims: set[Claim]) -> list[Delivery]:
        """Take out everything that belongs to these claims, in order."""
        taken: list[Delivery] = []
        for queue in (self.due, self.fresh):
            mine = [d for d in queue if d.event.claim in claims]
            if not mine:
                continue
            others = [d for d in queue if d.event.claim not in claims]
            queue.clear()
            queue.extend(others)
            self._count(queue, -sum(d.event.size for d in mine))
            taken.extend(mine)
        return taken

    def head_age(self, now: float) -> float:
        """Seconds that the oldest fresh delivery has waited; 0 when there is none."""
        return now - self.fresh[0].entered_at if self.fresh else 0.0

    def ready_at(self, now: float) -> float | None:
        """When the next batch may be taken: `now` if it is full or due, None if nothing waits."""
        if self.due:
            return now
        return max(now, self._fresh_ready_at()) if self.fresh else None

    def _fresh_ready_at(self) -> float:
        policy = self.endpoint.batch
        if len(self.fresh) >= policy.max_events or self.fresh_bytes >= policy.max_bytes:
            return -_NEVER
        return self.fresh[0].entered_at + policy.max_wait_seconds

    def take(self, now: float) -> list[Delivery]:
        """The next batch, or [] when none is ready. Due and fresh take turns; a batch is of one
        kind, so that what failed together is tried again together."""
        self.asked_at = now
        if self.endpoint.batch.max_events == 1:
            return self._take_one()
        fresh_ready = bool(self.fresh) and self._fresh_ready_at() <= now
        if not self.due and not fresh_ready:
            return []
        use_due = bool(self.due) and (self._due_turn or not fresh_ready)
        self._due_turn_before, self._due_turn = self._due_turn, not use_due
        queue = self.due if use_due else self.fresh
        policy = self.endpoint.batch
        taken: list[Delivery] = []
        size = length = 0
        most = policy.max_events
        while queue and len(taken) < most:
            delivery = queue[0]
            event = delivery.event
            # What `batch.member` makes of it is never longer: 256 is for an envelope around it.
            length += len(event.body) + len(event.id) + len(event.type) + 256
            if taken and (length > policy.max_bytes or len(taken) >= delivery.company):
                break
            most = min(most, delivery.company)
            queue.popleft()
            delivery.stage = _AIR
            size += event.size
            taken.append(delivery)
        self._count(queue, -size)
        return taken

    def _take_one(self) -> list[Delivery]:
        """`take` for an endpoint without batches: the hot path."""
        use_due = bool(self.due) and (self._due_turn or not self.fresh)
        self._due_turn_before, self._due_turn = self._due_turn, not use_due
        queue = self.due if use_due else self.fresh
        if not queue:
            return []
        delivery = queue.popleft()
        delivery.stage = _AIR
        if use_due:
            self.due_bytes -= delivery.event.size
        else:
            self.fresh_bytes -= delivery.event.size
        return [delivery]
