"""Names that lie, fall silent or do not exist: a named reason each, and no matter of the others."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.acceptance.scene import Scene
from tests.rig.names import NO_SUCH_NAME, SILENCE, NameServer, asking
from tests.rig.producer import Record, event
from tests.rig.waiting import wait_for

LISTEN, ALLOWED, FORBIDDEN = "127.0.0.154", "127.0.0.1", "127.0.0.2"
SILENT, GOOD, EVENTS = 20, 20, 3


class _Trap:
    """A receiver on the forbidden address, at the port that the permitted one has."""

    def __init__(self, port: int) -> None:
        self.requests = 0
        trap = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                trap.requests += 1
                self.send_response(200)
                self.end_headers()

        self._server = ThreadingHTTPServer((FORBIDDEN, port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_names_that_fail_are_named_and_hold_up_nobody(
    scene: Callable[..., Scene], tmp_path: Path
) -> None:
    """Silence is 20 s long for the system's resolver: 20 silent names, asked two at a time as the
    loop does it, would keep the others waiting for minutes."""
    here = scene(4)
    turns = itertools.cycle([[ALLOWED], [FORBIDDEN], [ALLOWED, FORBIDDEN]])
    good = [f"good{n}" for n in range(GOOD)]
    silent = [f"silent{n}" for n in range(SILENT)]
    names = NameServer(
        LISTEN,
        {
            "rebinding.test": lambda: next(turns),
            "mixed.test": [ALLOWED, FORBIDDEN],
            "forbidden.test": [FORBIDDEN],
            "gone.test": NO_SUCH_NAME,
            "empty.test": [],
            **{f"{name}.test": [ALLOWED] for name in good},
            **{f"{name}.test": SILENCE for name in silent},
        },
    )
    trap = _Trap(here.receivers.port)
    failing = {
        "mixed": "address_forbidden",
        "forbidden": "address_forbidden",
        "gone": "dns_failed",
        "empty": "dns_failed",
        "silent0": "dns_failed",
    }
    hosts = [*silent, *(name for name in failing if name not in silent), "rebinding", *good]
    endpoints = [
        {
            "id": name,
            "url": f"http://{name}.test:{here.receivers.port}/{name}",
            "retry": {"schedule_seconds": [0, 0.3], "max_attempts": 1_000, "jitter": 0},
        }
        for name in hosts
    ]
    network = {
        "allowed_networks": [f"{ALLOWED}/32"],
        "allow_http": True,
        "dns_timeout_seconds": 3,
        "dns_cache_seconds": 0,
        "keepalive_seconds": 0,
    }
    one = here.daemon(*endpoints, network=network)
    one.prefix = asking(LISTEN, tmp_path)
    one.start()
    here.publish_records([Record(event(0), 0)])
    wait_for(lambda: names.asked >= {f"{n}.test" for n in silent}, 30, "the silent to be asked")
    here.publish_records([Record(event(n), n % 4) for n in range(1, EVENTS)])
    for name in [*good, "rebinding"]:
        here.wait_accepted(name, range(EVENTS), timeout_seconds=30)

    def reasons() -> dict[str, set[str]]:
        rows = here.database.fetch(
            "SELECT DISTINCT e.name, r.name AS reason FROM attempts a "
            "JOIN endpoints e ON e.id = a.endpoint_id JOIN reasons r ON r.id = a.reason"
        )
        return {n: {row["reason"] for row in rows if row["name"] == n} for n in hosts}

    wait_for(lambda: all(reasons()[name] for name in failing), 30, "each to have failed")
    found = reasons()
    assert {name: found[name] for name in failing} == {n: {r} for n, r in failing.items()}
    assert found["rebinding"] <= {"ok", "address_forbidden"}
    assert trap.requests == 0, "a forbidden address was connected to"
    assert all(here.receivers.ledger(name).received.total() == 0 for name in failing)
    # Heals: a name that was silent, and one that lied, answer as they should.
    names.zone["silent0.test"] = names.zone["mixed.test"] = [ALLOWED]
    for name in ("silent0", "mixed"):
        here.wait_accepted(name, range(EVENTS))
    one.stop()
    trap.stop()
    names.stop()
