"""What is published to receivers: networks that are some, keys that are public, dates in order.

Invariant: pure; no problem shows what may be a private key. Leaves out: the document (admin.facts).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from dispatcherd.config.check_network import check_network
from dispatcherd.config.model import FactsConfig, PublicKeyConfig
from dispatcherd.errors import ConfigProblem
from dispatcherd.keys import check_public_key


def check_facts(facts: FactsConfig) -> Iterator[ConfigProblem]:
    """The mistakes in `facts`."""
    for i, network in enumerate(facts.egress):
        yield from check_network(f"facts.egress[{i}]", network, "192.0.2.0/24")
    if facts.keys and not facts.egress:
        yield ConfigProblem(
            "facts.egress",
            "[]",
            "keys are published, and no address that webhooks come from",
            "Name the networks, such as [192.0.2.0/24]",
        )
    for i, key in enumerate(facts.keys):
        yield from _key(f"facts.keys[{i}]", key)


def _key(at: str, key: PublicKeyConfig) -> Iterator[ConfigProblem]:
    try:
        check_public_key(key.public_key)
    except ValueError as error:
        yield ConfigProblem(
            f"{at}.public_key",
            "***",
            str(error),
            "Write what `dispatcherd keys public FILE` prints",
        )
    moments = []
    for name in ("not_before", "not_after"):
        text = getattr(key, name)
        if text is None:
            continue
        moment = seconds(text)
        if moment is None:
            yield ConfigProblem(
                f"{at}.{name}",
                repr(text[:80]),
                "not a time with its zone",
                "Write 2027-01-01T00:00:00Z",
            )
        else:
            moments.append(moment)
    if len(moments) == 2 and moments[0] >= moments[1]:
        yield ConfigProblem(
            f"{at}.not_after",
            repr(key.not_after),
            f"not after not_before ({key.not_before})",
            "Write a later time, or remove the line",
        )


def seconds(text: str) -> int | None:
    """Unix seconds of an RFC 3339 time; None where it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return int(moment.timestamp()) if moment.tzinfo is not None else None
