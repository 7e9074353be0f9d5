"""The sample producers of examples/producers: what they publish to a real Kafka is delivered."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from tests.acceptance.scene import Scene
from tests.rig.daemon import SECRET
from tests.rig.need import need
from tests.rig.receivers import Receivers
from tests.rig.samples import PRODUCERS, absent, build, commands, run
from tests.rig.waiting import wait_for

FORMS = ["plain", "headers", "cloudevent", "cloudevent_binary"]
BARE = {"headers", "cloudevent_binary"}
"""Forms whose body is the data alone."""


@pytest.mark.parametrize(("language", "tools"), [("python", []), ("node", ["node", "npm"])])
def test_every_form_that_a_producer_publishes_is_delivered_with_its_id_and_type(
    scene: Callable[..., Scene], language: str, tools: list[str]
) -> None:
    need(absent(f"the producer in {language}", tools))
    here = scene(2)
    batch = {"max_events": 10, "max_wait_seconds": 0.2}
    here.start(here.endpoint("single"), here.endpoint("batched", batch=batch))
    source = PRODUCERS / language
    printed = run(
        commands(source)[1], build(source),
        KAFKA_BOOTSTRAP_SERVERS=here.kafka.bootstrap, TOPIC=here.topic,
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    )  # fmt: skip
    published = dict(line.split() for line in printed.splitlines())
    assert list(published) == FORMS

    ids = set(published.values())
    for name in ("single", "batched"):
        wait_for(lambda n=name: set(here.receivers.ledger(n).accepted) >= ids, 60, f"all at {name}")  # type: ignore[misc]
    arrived = {
        headers["webhook-id"]: (headers, body) for headers, body in kept(here.receivers, "single")
    }
    for form, event_id in published.items():
        headers, body = arrived[event_id]
        Webhook(SECRET).verify(body, headers)
        assert headers["x-webhook-type"] == "order.created"
        content = json.loads(body)
        assert (content if form in BARE else content["data"])["total"] == 42
    members = {m["id"]: m for _, body in kept(here.receivers, "batched") for m in json.loads(body)}
    assert set(members) == ids
    for member in members.values():
        assert member["type"] == "order.created" and member["data"]["total"] == 42
    assert not here.database.fetch("SELECT 1 FROM quarantine")


def kept(receivers: Receivers, name: str) -> list[tuple[dict[str, str], bytes]]:
    """Headers and body of each request."""
    return list(receivers.ledger(name).kept)


def test_every_folder_of_the_producers_is_run() -> None:
    assert {path.name for path in PRODUCERS.iterdir() if path.is_dir()} == {"python", "node"}
