"""Who receives what in the demo, with what manners, and how it must end.

Invariant: `wants` says in plain Python what the configuration beside it says in the daemon's words,
so that the demo knows without asking the daemon how many deliveries there have to be. Leaves out:
the events (samples), the receivers' code (receivers).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dispatcherd.demo.samples import Sample

TOPICS = ("shop", "accounts")
GROUP = "demo"
BIG_ORDER = 1_000.0
"""An order above this total is one for the risk desk."""


class End(StrEnum):
    """The state in which every delivery of an endpoint must end."""

    DELIVERED = "delivered"
    OWED = "owed"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Role:
    """One endpoint of the demo."""

    name: str
    manner: dict[str, Any]
    """What the receiver does; see receivers."""
    says: str
    """The manner in a few words."""
    wants: Callable[[Sample], bool]
    end: End
    shows: str
    """What its numbers show; a template over tally.Recorded's numbers."""
    config: dict[str, Any] = field(default_factory=dict)
    """Its part of the configuration, without id, url and secrets."""
    secrets: int = 1
    """Two: the secret is being rotated, and each request carries both signatures."""


def _type(sample: Sample) -> str:
    return sample.type or ""


ROLES = (
    Role(
        "storefront",
        {"do": "ok"},
        "answers at once",
        lambda sample: _type(sample).startswith("order."),
        End.DELIVERED,
        "answers at once; nobody else's trouble reaches it",
        {"event_types": ["order.*"], "sign": {"hex_header": "X-Webhook-Signature"}},
    ),
    Role(
        "analytics",
        {"do": "ok"},
        "wants batches",
        lambda sample: sample.type is not None,
        End.DELIVERED,
        "batches up to 100: {delivered} events in {exchanges} signed requests",
        {"event_types": ["*"], "batch": {"max_events": 100, "max_wait_seconds": 0.25}},
    ),
    Role(
        "risk-desk",
        {"do": "slow", "seconds": 0.1},
        "slow, 0.1 s",
        lambda sample: sample.type == "order.created" and (sample.total or 0) > BIG_ORDER,
        End.DELIVERED,
        "0.1 s an answer; a filter: orders above 1,000 only",
        {
            "event_types": ["order.created"],
            "concurrency": 5,
            "filter": {
                "any": [
                    {"field": "data.total", "greater_than": BIG_ORDER},
                    {"field": "total", "greater_than": BIG_ORDER},
                ]
            },
        },
        secrets=2,
    ),
    Role(
        "warehouse",
        {"do": "refuse_first", "times": 2},
        "503 twice, then 200",
        lambda sample: sample.type == "order.paid",
        End.DELIVERED,
        "503 twice for each, then 200: all {delivered} arrive",
        {
            "event_types": ["order.paid"],
            "retry": {"schedule_seconds": [0, 0.3, 0.6, 5], "max_attempts": 8},
        },
    ),
    Role(
        "crm",
        {"do": "hang"},
        "hangs",
        lambda sample: _type(sample).startswith("user.") and sample.type != "user.deleted",
        End.OWED,
        "never answers: {timeouts} timeouts, all {owed} wait in Postgres",
        {"event_types": ["user.*", "!user.deleted"], "timeout_seconds": 2, "concurrency": 4},
    ),
    Role(
        "old-partner",
        {"do": "gone"},
        "410 Gone",
        lambda sample: _type(sample).startswith("invoice."),
        End.DEAD,
        "410 Gone: dead letters after one attempt, all kept",
        {"event_types": ["invoice.*"]},
    ),
)


def expected(samples: list[Sample]) -> dict[str, int]:
    """Deliveries that these records owe to each endpoint."""
    return {role.name: sum(map(role.wants, samples)) for role in ROLES}
