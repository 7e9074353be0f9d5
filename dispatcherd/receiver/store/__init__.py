"""Each event once: a claim on its id before the work, completed after it.

The three steps are what keeps a crash from losing an event. A claim is a lease: whoever dies with
one loses it when the lease ends, and the sender's next attempt is processed. "Seen" alone, written
before the work, would turn that crash into a lost event; written after it, into work done twice by
two requests at once.

Invariant of every store: of any number of concurrent claims on one free id exactly one is GRANTED;
`complete` and `release` act only for the claim that still holds. Leaves out: what is done about
the answers (processing).
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from dispatcherd.receiver.errors import ReceiverError

DEFAULT_RETENTION_SECONDS = 7 * 86_400.0
"""How long a completed id is remembered: longer than the sender goes on retrying."""


class State(Enum):
    """What a claim came to."""

    GRANTED = "granted"
    """It is yours: do the work, then complete or release it."""
    DONE = "done"
    """The work was completed before."""
    BUSY = "busy"
    """Someone else holds it; `retry_after_seconds` says for how long at most."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to a claim."""

    key: str
    state: State
    token: str = ""
    retry_after_seconds: float = 0.0


class StoreFull(ReceiverError):
    """A bounded store has room for no further claim: everything in it is in progress."""

    cause = "store_full"


class LeaseLost(ReceiverError):
    """The claim ended before the work did, and someone else has it now."""

    cause = "lease_lost"


class Store(Protocol):
    """What a receiver asks of a store. Any thread may call."""

    def claim(self, key: str, lease_seconds: float) -> Claim:
        """Try to take `key` for `lease_seconds`."""

    def complete(self, claim: Claim) -> bool:
        """The work is done. False if someone else has claimed or completed it meanwhile."""

    def release(self, claim: Claim) -> bool:
        """The work failed: the next claim is granted. False as for `complete`."""


class AsyncStore(Protocol):
    """The same for asyncio."""

    def claim(self, key: str, lease_seconds: float) -> Awaitable[Claim]: ...
    def complete(self, claim: Claim) -> Awaitable[bool]: ...
    def release(self, claim: Claim) -> Awaitable[bool]: ...


def new_token() -> str:
    """Tells one claim from every other."""
    return secrets.token_hex(8)
