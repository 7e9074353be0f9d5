"""Names that lie, fall silent or do not exist: a named reason each, and no matter of the others."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.acceptance.scene import Scene
from tests.rig.daemon import Daemon
from tests.rig.names import NO_SUCH_NAME, SILENCE, NameServer, asking
from tests.rig.postgres import Database
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


GOOD_HOSTS = [f"good{n}" for n in range(GOOD)]
SILENT_HOSTS = [f"silent{n}" for n in range(SILENT)]
FAILING = {
    "mixed": "address_forbidden",
    "forbidden": "address_forbidden",
    "gone": "dns_failed",
    "empty": "dns_failed",
    "silent0": "dns_failed",
}
"""Host → the reason of its failures."""
HOSTS = [*SILENT_HOSTS, *(h for h in FAILING if h not in SILENT_HOSTS), "rebinding", *GOOD_HOSTS]


def _name_server() -> NameServer:
    turns = itertools.cycle([[ALLOWED], [FORBIDDEN], [ALLOWED, FORBIDDEN]])
    return NameServer(
        LISTEN,
        {
            "rebinding.test": lambda: next(turns),
            "mixed.test": [ALLOWED, FORBIDDEN],
            "forbidden.test": [FORBIDDEN],
            "gone.test": NO_SUCH_NAME,
            "empty.test": [],
            **{f"{name}.test": [ALLOWED] for name in GOOD_HOSTS},
            **{f"{name}.test": SILENCE for name in SILENT_HOSTS},
        },
    )


def _daemon(here: Scene, folder: Path) -> Daemon:
    """One that asks this name server, each time anew, and may connect to one address only."""
    retry = {"schedule_seconds": [0, 0.3], "max_attempts": 1_000, "jitter": 0}
    port = here.receivers.port
    one = here.daemon(
        *({"id": name, "url": f"http://{name}.test:{port}/{name}", "retry": retry}
          for name in HOSTS),
        network={
            "allowed_networks": [f"{ALLOWED}/32"],
            "allow_http": True,
            "dns_timeout_seconds": 3,
            "dns_cache_seconds": 0,
            "keepalive_seconds": 0,
        },
    )  # fmt: skip
    one.prefix = asking(LISTEN, folder)
    return one


def _reasons(database: Database) -> dict[str, set[str]]:
    """Host → how its attempts have ended."""
    rows = database.fetch(
        "SELECT DISTINCT e.name, r.name AS reason FROM attempts a "
        "JOIN endpoints e ON e.id = a.endpoint_id JOIN reasons r ON r.id = a.reason"
    )
    return {n: {row["reason"] for row in rows if row["name"] == n} for n in HOSTS}


def test_names_that_fail_are_named_and_hold_up_nobody(
    scene: Callable[..., Scene], tmp_path: Path
) -> None:
    """Silence is 20 s long for the system's resolver: 20 silent names, asked two at a time as the
    loop does it, would keep the others waiting for minutes."""
    here = scene(4)
    names, trap = _name_server(), _Trap(here.receivers.port)
    one = _daemon(here, tmp_path).start()
    here.publish_records([Record(event(0), 0)])
    asked = {f"{name}.test" for name in SILENT_HOSTS}
    wait_for(lambda: names.asked >= asked, 30, "the silent to be asked")
    here.publish_records([Record(event(n), n % 4) for n in range(1, EVENTS)])
    for name in [*GOOD_HOSTS, "rebinding"]:
        here.wait_accepted(name, range(EVENTS), timeout_seconds=30)
    wait_for(
        lambda: all(_reasons(here.database)[name] for name in FAILING), 30, "each to have failed"
    )
    found = _reasons(here.database)
    assert {name: found[name] for name in FAILING} == {n: {r} for n, r in FAILING.items()}
    assert found["rebinding"] <= {"ok", "address_forbidden"}
    assert trap.requests == 0, "a forbidden address was connected to"
    assert all(here.receivers.ledger(name).received.total() == 0 for name in FAILING)
    # Heals: a name that was silent, and one that lied, answer as they should.
    names.zone["silent0.test"] = names.zone["mixed.test"] = [ALLOWED]
    for name in ("silent0", "mixed"):
        here.wait_accepted(name, range(EVENTS))
    one.stop()
    trap.stop()
    names.stop()
