"""A daemon with an event catalogue: what is not by it stays out, and a reload reads it again."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.scene import Scene
from tests.rig.postgres import Database
from tests.rig.producer import Record
from tests.rig.waiting import wait_for

METRIC = "dispatcherd_catalogue_violations_total"


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """A directory with `order.created`, whose `number` is an integer."""
    folder = tmp_path / "events"
    folder.mkdir()
    write(folder, "integer")
    return folder


def write(folder: Path, type_: str) -> None:
    """What an order's number is, from now on."""
    schema = {
        "type": "object",
        "required": ["number"],
        "properties": {"number": {"type": type_, "description": "Its number."}},
    }
    version = {"schema": schema, "example": {"number": 1}}
    document = {"type": "order.created", "description": "An order.", "versions": {"1": version}}
    (folder / "order.created.yaml").write_text(yaml.safe_dump(document))


def order(id_: str, number: Any, event_type: str = "order.created") -> Record:
    event = {"id": id_, "type": event_type, "data": {"number": number}}
    return Record(json.dumps(event).encode(), 0)


def reasons(database: Database) -> dict[str, str]:
    """Webhook id → why it is in quarantine, and the words."""
    rows = database.fetch(
        "SELECT q.value, r.name, q.detail FROM quarantine q JOIN reasons r ON r.id = q.reason"
    )
    return {json.loads(row["value"])["id"]: f"{row['name']}: {row['detail']}" for row in rows}


def test_what_is_not_by_the_catalogue_is_quarantined_by_name_and_a_reload_reads_it_again(
    scene: Callable[..., Scene], catalogue: Path
) -> None:
    here = scene(1)
    policy = {"on_violation": "quarantine", "on_unknown": "quarantine"}
    config = here.config(here.endpoint("all"), catalogue={"path": str(catalogue), **policy})
    one = here.make(config).start()
    records = [order("e0", 0), order("text", "1"), order("other", 2, "order.paid"), order("e1", 3)]
    here.publish_records(records)
    here.wait_accepted("all", range(2))
    here.wait_settled()
    assert reasons(here.database) == {
        "text": "invalid_data: not by version 1 of order.created: "
        'data.number: the value is not of type "integer"',
        "other": "unknown_type: the catalogue has no type 'order.paid'",
    }
    assert one.metric(METRIC, "invalid_data,order.created") == 1
    assert one.metric(METRIC, "unknown_type,(other)") == 1

    write(catalogue, "no type")
    one.signal(signal.SIGHUP)
    wait_for(lambda: "reload_refused" in one.log(), 20, "the reload to be refused")
    assert "order.created.yaml" in one.log() and one.running()

    write(catalogue, "string")
    config["catalogue"]["on_unknown"] = "accept"
    one.write({**config, "admin": {"port": one.port}})
    one.signal(signal.SIGHUP)
    wait_for(lambda: '"reloaded"' in one.log(), 20, "the reload")
    records = [order("e2", "4"), order("number", 5), order("e3", 6, "order.paid")]
    here.publish_records(records)
    here.wait_accepted("all", range(4))
    here.wait_settled()
    assert set(reasons(here.database)) == {"text", "other", "number"}
    assert "restart_needed" not in one.log()
    one.stop()


def test_what_lies_in_quarantine_is_not_sent_when_held_offsets_are_read_again(
    scene: Callable[..., Scene], catalogue: Path
) -> None:
    here = scene(1)
    here.receivers.manner("ill", "status", status=503)
    retry = {"schedule_seconds": [0, 0.5], "max_attempts": 1_000, "jitter": 0}
    one = here.start(
        here.endpoint("ill", retry=retry),
        limits={"owed_per_endpoint": 10, "lane_deliveries": 10, "window_deliveries": 20},
        catalogue={"path": str(catalogue), "on_violation": "quarantine"},
    )
    here.publish_records([order(f"e{n}", n) for n in range(20)])
    wait_for(lambda: "owed_cap_reached" in one.log(), 30, "the endpoint to reach its cap")
    more = [order(f"e{n}" if n % 2 else f"bad{n}", n if n % 2 else "x") for n in range(20, 40)]
    here.publish_records(more)
    here.wait_settled()
    assert here.database.value("SELECT count(*) FROM held_ranges") == 1
    assert len(reasons(here.database)) == 10

    # By the new catalogue the bad ones would be events; they are in quarantine all the same.
    write(catalogue, "string")
    one.signal(signal.SIGHUP)
    wait_for(lambda: '"reloaded"' in one.log(), 20, "the reload")
    here.receivers.manner("ill", "ok")
    good = [*range(20), *range(21, 40, 2)]
    here.wait_accepted("ill", good)
    here.database.wait_until("SELECT count(*) FROM held_ranges", 0)
    here.database.wait_until("SELECT count(*) FROM deliveries", 0)
    assert set(here.receivers.ledger("ill").accepted) == {f"e{n}" for n in good}
    one.stop()
