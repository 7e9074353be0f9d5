"""The facts that receivers need, as one JSON document: addresses, keys, headers, schedule.

The reader is `dispatcherd.receiver.published`. What differs between endpoints (schedule, timeout)
is left out, because the document is one for all. Which keys are listed is the operator's word: a
list made from the endpoints' secrets would let every receiver trust the keys of every other.
Invariant: nothing secret, no endpoint's name or URL. Leaves out: serving it (server).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dispatcherd import __version__
from dispatcherd.config.check_facts import seconds
from dispatcherd.config.model import Config
from dispatcherd.errors import ConfigError, ConfigProblem
from dispatcherd.keys import PUBLIC_PREFIX, SigningKey

PATH = "/.well-known/dispatcherd.json"


def document(config: Config) -> dict[str, Any]:
    """The facts of a configuration. Raises ConfigError where there are none to publish."""
    facts = config.facts
    if not facts.egress:
        remedy = "Name the networks that webhooks come from, such as [192.0.2.0/24]"
        raise ConfigError([ConfigProblem("facts.egress", "[]", "nothing is published", remedy)])
    found: dict[str, Any] = {
        "egress": list(facts.egress),
        "keys": [
            {
                "public_key": key.public_key,
                **{
                    name: seconds(text)
                    for name in ("not_before", "not_after")
                    if (text := getattr(key, name)) is not None
                },
            }
            for key in facts.keys
        ],
        "signature_versions": ["v1", "v1a"] if facts.keys else ["v1"],
        "headers": {
            "id": "webhook-id",
            "timestamp": "webhook-timestamp",
            "signature": "webhook-signature",
            "attempt": "webhook-attempt",
            "type": "x-webhook-type",
            "version": "x-webhook-version",
        },
        "user_agent": config.network.user_agent.replace("{version}", __version__),
    }
    timeouts = {endpoint.timeout_seconds for endpoint in config.endpoints}
    if len(timeouts) == 1:
        found["timeout_seconds"] = timeouts.pop()
    schedules = {
        (tuple(endpoint.retry.schedule_seconds[: endpoint.retry.max_attempts]),
         endpoint.retry.max_attempts)
        for endpoint in config.endpoints
    }  # fmt: skip
    if len(schedules) == 1:
        [(schedule, attempts)] = schedules
        found["retry"] = {"schedule_seconds": list(schedule), "max_attempts": attempts}
    return found


def unpublished(
    config: Config, keys: Mapping[str, Sequence[SigningKey]], now: float
) -> Iterator[str]:
    """The endpoints of which no signature would be trusted by the published keys at `now` (Unix
    seconds), although they sign by Ed25519 alone. None where no key is published."""
    trusted = {
        key.public_key.removeprefix(PUBLIC_PREFIX).rstrip("=")
        for key in config.facts.keys
        if (seconds(key.not_before or "") or 0) <= now
        and (key.not_after is None or now <= (seconds(key.not_after) or 0))
    }
    for name, mine in keys.items() if config.facts.keys else ():
        public = [
            base64.b64encode(key.public_key().public_bytes_raw()).decode().rstrip("=")
            for key in mine
            if not isinstance(key, bytes)
        ]
        if public and trusted.isdisjoint(public):
            yield name
