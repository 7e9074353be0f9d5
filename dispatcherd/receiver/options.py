"""What can be said to a receiver, and what holds where nothing is said.

Invariant: secrets are not kept here, and a receiver's repr shows nothing of it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import KW_ONLY, InitVar, dataclass, field
from typing import Any

from dispatcherd.receiver.backlog import Backlog
from dispatcherd.receiver.dispatch import UnknownPolicy
from dispatcherd.receiver.metrics import Metrics
from dispatcherd.receiver.network import AllowList
from dispatcherd.receiver.running import Around
from dispatcherd.receiver.shedding import ShedPolicy
from dispatcherd.receiver.verify import DEFAULT_TOLERANCE_SECONDS


@dataclass(frozen=True, slots=True)
class Retry:
    """When a handler of the backlog that failed runs again; after `max_attempts` the job is dead.

    The waits are `first_seconds`, doubled each time up to `max_seconds`, and up to a fifth more.
    """

    max_attempts: int = 10
    first_seconds: float = 1.0
    max_seconds: float = 600.0

    def delay(self, attempts: int, draw: float) -> float:
        """The wait after that many attempts; `draw` in [0, 1)."""
        doubled = self.first_seconds * 2.0 ** min(attempts - 1, 60)
        return min(self.max_seconds, doubled) * (1.0 + draw / 5)


@dataclass(repr=False, eq=False)
class Options(ABC):
    """The options of `Receiver` and `AsyncReceiver`. All but `secrets` go by name."""

    secrets: InitVar[Sequence[str | bytes]]
    """Each `whsec_…`, `whpk_…`, or any text or bytes of 16 or more; all of them count."""
    _: KW_ONLY
    name: str = "webhook"
    """Keeps the ids, metrics and log lines of several receivers apart."""

    # --- the signature
    tolerance_seconds: float = DEFAULT_TOLERANCE_SECONDS
    """How old, or how far ahead, a signature may be."""
    prefix: str = "webhook"
    """Of the three headers; `svix` for Svix."""
    hex_header: str | None = None
    """Check the hex form, in this header, instead."""

    # --- who may send
    allowed: AllowList | Iterable[str] | None = None
    """The networks that may send; None: any."""
    trusted_proxies: int | Iterable[str] = ()
    """The networks of your proxies, or how many proxies there are."""
    https_only: bool = False
    """Refuse what came over plain HTTP."""
    max_body_bytes: int = 2 * 1_048_576
    """Larger bodies are refused unread."""

    # --- which handler
    type_header: str | None = None
    """An unsigned header that names the type, for senders whose bodies do not; it wins."""
    unknown: UnknownPolicy = "accept"
    """What becomes of an event that nobody handles: `accept` (and log) or `refuse`."""

    # --- each event once
    store: Any = None
    """A Store (for AsyncReceiver also an AsyncStore). Without one: a MemoryStore, or with a
    `backlog` its own memory of ids, which suffices unless several hosts receive."""
    lease_seconds: float | None = None
    """How long a claim outlives a crash; default 300, and at least twice the time limit."""

    # --- running handlers
    timeout_seconds: float | None = 10.0
    """For a whole request, or each run in the background. None: plain functions run in the
    caller's thread, without a limit."""
    max_concurrent: int = 64
    """Handlers that run at once, those that overran their time included."""
    around: Around = nullcontext
    """A context manager to run each handler in: an app context, closing connections."""
    partial_failures: bool = True
    """Whether the sender reads `batchItemFailures`."""

    # --- in the background
    backlog: Backlog | None = None
    """Where events are kept between the answer and their handler."""
    workers: int = 4
    """Handlers that work the backlog off at once."""
    retry: Retry = field(default_factory=Retry)
    shed: ShedPolicy = field(default_factory=ShedPolicy)
    """When to answer 503 because the backlog is behind."""

    metrics: Metrics = field(default_factory=Metrics)
    """Share one between receivers of different names."""
    clock: Callable[[], float] = time.time
    """Unix seconds."""

    @abstractmethod
    def __post_init__(self, secrets: Sequence[str | bytes]) -> None:
        """Make what the options ask for."""
