"""What systemd hears and when, on a real datagram socket, with the time passed in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcherd.cli.supervision import Supervision
from dispatcherd.notify import Notifier
from tests.rig.manager import ManagerSocket

WATCHDOG_SECONDS = 8.0


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ManagerSocket]:
    end = ManagerSocket(tmp_path)
    yield end
    end.close()


class Process:
    """A process's state, set by the test."""

    def __init__(self, manager: ManagerSocket) -> None:
        self._manager = manager
        self._kept: list[dict[str, str]] = []
        self.missing = {"postgres": "refused: postgresql://app:geheim@db/x"}
        self.beat = 0.0
        self.supervision = Supervision(
            Notifier.from_environ(
                manager.environ | {"WATCHDOG_USEC": str(int(WATCHDOG_SECONDS * 1e6))}
            ),
            lambda: self.missing,
            lambda: self.beat,
            lambda now: "3 partitions",
        )

    def ticks_until(self, start: float, end: float) -> None:
        """The loop turns every 0.1 s of the time passed in."""
        for tenth in range(int(start * 10), int(end * 10)):
            self.beat = tenth / 10
            self.supervision.turn(self.beat)
            self._kept += self._manager.heard()  # the kernel queues ten datagrams

    def said(self) -> list[dict[str, str]]:
        """Every datagram since the last call."""
        kept, self._kept = [*self._kept, *self._manager.heard()], []
        return [heard for heard in kept if "FILLER" not in heard]


@pytest.fixture
def process(manager: ManagerSocket) -> Process:
    return Process(manager)


def test_while_starting_patience_is_extended_before_it_runs_out_and_the_reason_told(
    manager: ManagerSocket, process: Process
) -> None:
    process.ticks_until(0, 60)
    told = [h for h in process.said() if "WATCHDOG" not in h]
    assert len(told) == 60
    for heard in told:
        assert heard["EXTEND_TIMEOUT_USEC"] == "30000000"
        assert heard["STATUS"].startswith("starting, waiting for postgres: refused")
        assert "geheim" not in heard["STATUS"]


def test_ready_is_said_once_and_only_when_nothing_is_missing(
    manager: ManagerSocket, process: Process
) -> None:
    process.ticks_until(0, 10)
    assert not any("READY" in heard for heard in process.said())
    process.missing = {}
    process.ticks_until(10, 40)
    ready = [heard for heard in process.said() if "READY" in heard]
    assert ready == [{"READY": "1", "STATUS": "3 partitions"}]


def test_ready_is_said_again_until_it_is_heard(manager: ManagerSocket, process: Process) -> None:
    manager.fill()
    process.missing = {}
    process.supervision.turn(0.0)
    assert not any("READY" in heard for heard in process.said())
    process.ticks_until(1, 2)
    assert sum("READY" in heard for heard in process.said()) == 1


def test_a_part_that_fails_later_does_not_end_the_extension_or_unsay_ready(
    manager: ManagerSocket, process: Process
) -> None:
    process.missing = {}
    process.ticks_until(0, 1)
    process.missing = {"kafka": "not reachable"}
    process.ticks_until(1, 60)
    assert not any("EXTEND_TIMEOUT_USEC" in heard for heard in process.said())
    assert process.supervision.ready


def test_pings_come_twice_in_each_interval_and_more(
    manager: ManagerSocket, process: Process
) -> None:
    process.ticks_until(0, 5 * WATCHDOG_SECONDS)
    assert sum("WATCHDOG" in heard for heard in process.said()) == 20


def test_no_ping_is_sent_while_the_ticker_stands_still(
    manager: ManagerSocket, process: Process
) -> None:
    process.ticks_until(0, 1)
    process.said()
    for tenth in range(10, 400):
        process.supervision.turn(tenth / 10)
    process.ticks_until(40, 41)
    pings = [heard for heard in process.said() if "WATCHDOG" in heard]
    assert len(pings) == 3, "two in the half interval after the last beat, one when it beats again"


def test_the_status_is_not_repeated_while_it_is_the_same(
    manager: ManagerSocket, process: Process
) -> None:
    process.missing = {}
    process.ticks_until(0, 60)
    assert sum("STATUS" in heard for heard in process.said()) == 1


def test_a_reload_ends_with_ready_also_when_it_was_refused(
    manager: ManagerSocket, process: Process
) -> None:
    process.missing = {}
    process.ticks_until(0, 1)
    process.said()
    process.missing = {"postgres": "outcomes cannot be recorded"}
    process.supervision.reload_begun()
    process.supervision.reload_ended("the last reload was REFUSED: no")
    begun, ended = [heard for heard in process.said() if "WATCHDOG" not in heard]
    assert begun["RELOADING"] == "1"
    assert ended == {"READY": "1", "STATUS": "3 partitions; the last reload was REFUSED: no"}


def test_a_reload_before_ready_does_not_say_ready(manager: ManagerSocket, process: Process) -> None:
    process.supervision.reload_begun()
    process.supervision.reload_ended()
    process.ticks_until(0, 10)
    assert not any({"READY", "RELOADING"} & heard.keys() for heard in process.said())


def test_stopping_asks_for_the_time_that_the_drain_may_take_and_says_ready_no_more(
    manager: ManagerSocket, process: Process
) -> None:
    process.missing = {}
    process.ticks_until(0, 1)
    process.said()
    process.supervision.stopping(120)
    process.supervision.reload_ended()
    process.ticks_until(1, 20)
    first, *later = process.said()
    assert first["STOPPING"] == "1" and first["STATUS"] == "stopping: 3 partitions"
    assert int(first["EXTEND_TIMEOUT_USEC"]) > 120e6
    assert not any("READY" in heard for heard in later)


def test_a_stop_before_ready_never_becomes_ready(manager: ManagerSocket, process: Process) -> None:
    process.supervision.stopping(10)
    process.missing = {}
    process.ticks_until(0, 10)
    assert not any("READY" in heard for heard in process.said())
