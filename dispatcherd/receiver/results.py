"""What became of an event here, and what the sender is told about it.

2xx means: you need not send this again. It is said only of what is done, was done before, is
durable in the backlog, or is nobody's business here. Invariant: whatever the results, the answer
names each event of a batch that must come again, and none that must not.

Source of `batchItemFailures`: AWS Lambda's convention for partial batch responses. Leaves out:
HTTP frameworks (asgi, wsgi, …).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from dispatcherd.receiver.errors import MethodNotAllowed, Refusal
from dispatcherd.receiver.headers import Headers


class Result(Enum):
    """(word for logs and metrics, status)"""

    DONE = ("done", 200)
    DUPLICATE = ("duplicate", 200)
    UNHANDLED = ("unhandled", 200)
    QUEUED = ("queued", 202)
    UNKNOWN = ("unknown_event", 422)
    BUSY = ("busy", 409)
    LATER = ("later", 503)
    TIMEOUT = ("timeout", 503)
    UNAVAILABLE = ("unavailable", 503)
    FAILED = ("failed", 500)

    def __init__(self, word: str, status: int) -> None:
        self.word = word
        self.status = status

    @property
    def accepted(self) -> bool:
        """Whether the sender need not send this again."""
        return self.status < 300


@dataclass(frozen=True, slots=True)
class Outcome:
    """A result, and when to come again if it asks for that."""

    result: Result
    retry_after_seconds: float = 0.0
    error: BaseException | None = field(default=None, compare=False)


class RetryLater(Exception):
    """Raise it in a handler: not now, again in `seconds`. Counts as an attempt, not as an error."""

    def __init__(self, seconds: float, why: str = "") -> None:
        super().__init__(why or f"again in {seconds} s")
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Request:
    """What an adapter takes from its framework."""

    headers: Headers
    body: bytes = field(repr=False)
    peer: str | None = None
    """The address of the socket's other end; a proxy's, where there is one."""
    scheme: str = "http"
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an adapter gives back."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)


def answer(outcomes: Sequence[tuple[str, Outcome]], is_batch: bool, partial: bool) -> Answer:
    """The answer to a request, from (id, outcome) of each of its events.

    With `partial`, a batch of which some events failed is a 200 that lists those; otherwise any
    failure is the whole request's. A batch of which nothing was accepted has the failure's status.
    """
    failed = [(id_, outcome) for id_, outcome in outcomes if not outcome.result.accepted]
    if not failed:
        queued = any(outcome.result is Result.QUEUED for _, outcome in outcomes)
        word = outcomes[0][1].result.word if len(outcomes) == 1 else "accepted"
        return _json(202 if queued else 200, {"status": word})
    worst = max((outcome for _, outcome in failed), key=lambda outcome: outcome.result.status)
    wait = max(outcome.retry_after_seconds for _, outcome in failed)
    if is_batch and partial and len(failed) < len(outcomes):
        listed = [{"itemIdentifier": id_} for id_ in _unique(id_ for id_, _ in failed)]
        return _json(200, {"batchItemFailures": listed}, wait)
    return _json(worst.result.status, {"error": worst.result.word}, wait)


def refusal_answer(refusal: Refusal) -> Answer:
    """The answer to a request that is turned away: the cause's word, and no detail."""
    more = (("allow", "POST"),) if isinstance(refusal, MethodNotAllowed) else ()
    return _json(refusal.status, {"error": refusal.cause}, refusal.retry_after_seconds or 0.0, more)


def _unique(ids: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(ids))


def _json(
    status: int,
    content: dict[str, object],
    retry_after_seconds: float = 0.0,
    more: tuple[tuple[str, str], ...] = (),
) -> Answer:
    headers = (("content-type", "application/json"), *more)
    if retry_after_seconds > 0:
        headers = (*headers, ("retry-after", str(math.ceil(retry_after_seconds))))
    return Answer(status, json.dumps(content).encode(), headers)
