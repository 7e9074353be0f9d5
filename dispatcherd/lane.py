"""One endpoint's bounded queue: what waits to be sent, and what makes the next batch.

Invariant: `fresh` and `due` together hold at most the cap in deliveries and in bytes; half of it
is kept for due rows while any are owed, so that neither starves the other. Leaves out: sending
(send), where the overflow goes (pipeline), and when a retry is due (retry).
"""

from __future__ import annotations

from collections import OrderedDict

from dispatcherd.delivery import Claim, Delivery, Endpoint, Key, Stage


class Lane:
    """The queue of one endpoint, and what is known of it in this process."""

    def __init__(self, endpoint: Endpoint, max_deliveries: int, max_bytes: int) -> None:
        self.endpoint = endpoint
        self.max_deliveries = max_deliveries
        self.max_bytes = max_bytes
        self.fresh: OrderedDict[Delivery, None] = OrderedDict()
        self.due: OrderedDict[Delivery, None] = OrderedDict()
        self.bytes = 0
        self.owed: dict[Key, Delivery] = {}
        """Deliveries in memory that have a row in `deliveries`: paging must skip them."""
        self.waiting = 0
        """Of `owed`, those on the wheel."""
        self.in_air = 0
        """Exchanges under way."""
        self.next_due = float("inf")
        """Monotonic time at which a row that is only in Postgres may be due; inf: none known."""
        self.linger: object | None = None
        """The wheel's timer for a batch that is waiting to fill."""
        self.removed = False
        self.last_offer = float("-inf")
        """When a fresh delivery last came in, monotonic."""
        self._due_turn = True

    def __len__(self) -> int:
        return len(self.fresh) + len(self.due)

    def has_room(self, size: int) -> bool:
        """Room for one more fresh delivery of `size` bytes. An empty lane takes any size."""
        cap = self.max_deliveries
        if self.due or self.next_due != float("inf"):
            cap -= cap // 2
        if len(self.fresh) >= max(cap, 1):
            return False
        return self.bytes + size <= self.max_bytes or not self.fresh

    def due_room(self) -> int:
        """How many more due rows this lane and its share of the wheel can take."""
        half = max(1, self.max_deliveries // 2)
        if self.bytes >= self.max_bytes and self.due:
            return 0
        return max(0, half - len(self.due) - self.waiting)

    def offer(self, delivery: Delivery) -> None:
        """Queue a fresh delivery; the caller has asked `has_room`."""
        delivery.stage = Stage.QUEUED
        self.fresh[delivery] = None
        self.bytes += delivery.event.size

    def offer_due(self, delivery: Delivery) -> None:
        """Queue a delivery whose time has come (it has a row in `deliveries`)."""
        delivery.stage = Stage.QUEUED
        self.due[delivery] = None
        self.bytes += delivery.event.size

    def put_back(self, batch: list[Delivery]) -> None:
        """Undo `take`: the batch is the next again."""
        queue = self.due if batch[0].owed else self.fresh
        for delivery in reversed(batch):
            delivery.stage = Stage.QUEUED
            queue[delivery] = None
            queue.move_to_end(delivery, last=False)
            self.bytes += delivery.event.size

    def remove(self, delivery: Delivery) -> bool:
        """Take a queued delivery out; False when it was not queued here."""
        for queue in (self.fresh, self.due):
            if delivery in queue:
                del queue[delivery]
                self.bytes -= delivery.event.size
                return True
        return False

    def withdraw(self, claims: set[Claim]) -> list[Delivery]:
        """Take out everything that belongs to these claims, in order."""
        taken: list[Delivery] = []
        for queue in (self.due, self.fresh):
            mine = [d for d in queue if d.event.claim in claims]
            for delivery in mine:
                del queue[delivery]
                self.bytes -= delivery.event.size
            taken.extend(mine)
        return taken

    def head_age(self, now: float) -> float:
        """Seconds that the oldest fresh delivery has waited; 0 when there is none."""
        head = next(iter(self.fresh), None)
        return 0.0 if head is None else now - head.entered_at

    def ready_at(self, now: float) -> float | None:
        """When the next batch may be taken: `now` if it is full or due, None if nothing waits."""
        if self.due:
            return now
        head = next(iter(self.fresh), None)
        if head is None:
            return None
        policy = self.endpoint.batch
        if (
            policy.max_events == 1
            or len(self.fresh) >= policy.max_events
            or self.bytes >= policy.max_bytes
        ):
            return now
        return max(now, head.entered_at + policy.max_wait_seconds)

    def take(self, now: float) -> list[Delivery]:
        """The next batch, or [] when none is ready. Due and fresh take turns; a batch is of one
        kind, so that what failed together is tried again together."""
        at = self.ready_at(now)
        if at is None or at > now:
            return []
        fresh_ready = bool(self.fresh) and (not self.due or self._fresh_ready(now))
        use_due = bool(self.due) and (self._due_turn or not fresh_ready)
        self._due_turn = not use_due
        queue = self.due if use_due else self.fresh
        policy = self.endpoint.batch
        taken: list[Delivery] = []
        size = 0
        while queue and len(taken) < policy.max_events:
            delivery = next(iter(queue))
            member = delivery.event.size
            if taken and size + member > policy.max_bytes:
                break
            del queue[delivery]
            delivery.stage = Stage.AIR
            size += member
            taken.append(delivery)
        self.bytes -= size
        return taken

    def _fresh_ready(self, now: float) -> bool:
        policy = self.endpoint.batch
        if len(self.fresh) >= policy.max_events:
            return True
        head = next(iter(self.fresh))
        return head.entered_at + policy.max_wait_seconds <= now
