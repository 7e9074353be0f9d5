"""What the daemon sends, `dispatcherd.receiver` takes in: each event handled once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from dispatcherd.receiver import AsyncReceiver, Backlog, Event, Receiver
from tests.acceptance.scene import Scene
from tests.integration.receiver.serving import PATH, serve_aiohttp, serve_fastapi, serve_flask
from tests.rig.daemon import SECRET
from tests.rig.producer import Record
from tests.rig.waiting import wait_for

pytestmark = pytest.mark.filterwarnings("ignore")

COUNT = 400


def test_single_batched_and_hex_signed_events_are_each_handled_once(
    scene: Callable[..., Scene], tmp_path: Path
) -> None:
    here = scene(2)
    seen: dict[str, Counter[str]] = {name: Counter() for name in ("single", "batched", "hex")}
    failed: Counter[str] = Counter()
    backlog = Backlog(tmp_path / "webhooks.db")
    single = AsyncReceiver([SECRET], backlog=backlog)
    batched = Receiver([SECRET])
    hexed = AsyncReceiver([SECRET], hex_header="X-Webhook-Signature")

    @single.on("order.created", version="1")
    async def count_single(event: Event) -> None:
        seen["single"][event.id] += 1

    @batched.on("order.*")
    def count_batched(event: Event) -> None:
        if event.data["number"] % 7 == 0 and not failed[event.id]:
            failed[event.id] += 1
            raise ValueError("at first")
        seen["batched"][event.id] += 1

    hexed.on("*")(lambda event: seen["hex"].update([event.id]))
    quick = {"schedule_seconds": [0, 0.1, 0.2], "max_attempts": 100, "jitter": 0}
    with ExitStack() as stack:
        ports = [
            stack.enter_context(serve(receiver))
            for serve, receiver in (
                (serve_aiohttp, single), (serve_flask, batched), (serve_fastapi, hexed),
            )
        ]  # fmt: skip
        urls = [f"http://127.0.0.1:{port}{PATH}" for port in ports]
        endpoints = [
            {"id": "single", "url": urls[0], "retry": quick},
            {"id": "batched", "url": urls[1], "retry": quick,
             "batch": {"max_events": 20, "max_wait_seconds": 0.1}},
            {"id": "hex", "url": urls[2], "retry": quick,
             "sign": {"hex_header": "X-Webhook-Signature"}},
        ]  # fmt: skip
        here.start(*endpoints)
        here.publish(range(COUNT))
        for name, counts in seen.items():
            wait_for(lambda c=counts: len(c) == COUNT, 60, f"{name} has all")  # type: ignore[misc]
        here.database.wait_until("SELECT count(*) FROM deliveries WHERE state = 1", 0)
    for counts in seen.values():
        assert counts == Counter(f"e{number}" for number in range(COUNT))
    assert failed.total() == len(range(0, COUNT, 7))
    for receiver in (single, batched, hexed):
        assert receiver.metrics.value("refused_total") == 0


def test_a_type_that_came_in_a_kafka_header_is_known_from_a_batch_only(
    scene: Callable[..., Scene],
) -> None:
    """The limit of what a receiver can know: the daemon sends no header that names the type."""
    here = scene(1)
    types: dict[str, list[str]] = {"single": [], "batched": []}
    receivers = {name: Receiver([SECRET]) for name in types}
    for name, receiver in receivers.items():
        receiver.on("*")(lambda event, name=name: types[name].append(event.type))
    with ExitStack() as stack:
        endpoints = [
            {"id": name, "url": f"http://127.0.0.1:{stack.enter_context(serve_flask(one))}{PATH}"}
            for name, one in receivers.items()
        ]
        endpoints[1]["batch"] = {"max_events": 5, "max_wait_seconds": 0.1}  # type: ignore[assignment]
        here.start(*endpoints)
        record = Record(b'{"number": 1}', headers=[("webhook-type", b"order.created")])
        here.publish_records([record])
        wait_for(lambda: all(types.values()), 60, "both have it")
    assert types == {"single": [""], "batched": ["order.created"]}
