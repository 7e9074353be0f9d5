"""sd_notify, heard on a real datagram socket."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dispatcherd.notify import Notifier
from tests.rig.manager import ManagerSocket


@pytest.fixture(params=[False, True], ids=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ManagerSocket]:
    end = ManagerSocket(tmp_path, abstract=request.param)
    yield end
    end.close()


@pytest.mark.parametrize(
    ("say", "expected"),
    [
        (lambda n: n.ready("8 partitions"), {"READY": "1", "STATUS": "8 partitions"}),
        (lambda n: n.status("fine"), {"STATUS": "fine"}),
        (lambda n: n.watchdog(), {"WATCHDOG": "1"}),
        (
            lambda n: n.starting(30, "waiting"),
            {"EXTEND_TIMEOUT_USEC": "30000000", "STATUS": "waiting"},
        ),
        (
            lambda n: n.stopping(35.5, "draining"),
            {"STOPPING": "1", "EXTEND_TIMEOUT_USEC": "35500000", "STATUS": "draining"},
        ),
    ],
)
def test_each_message_is_one_datagram_of_assignments(
    manager: ManagerSocket, say: Callable[[Notifier], bool], expected: dict[str, str]
) -> None:
    assert say(Notifier.from_environ(manager.environ))
    assert manager.heard() == [expected]


def test_reloading_carries_the_monotonic_time_that_notify_reload_asks_for(
    manager: ManagerSocket,
) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
    Notifier.from_environ(manager.environ).reloading()
    [heard] = manager.heard()
    assert heard.keys() == {"RELOADING", "MONOTONIC_USEC"} and heard["RELOADING"] == "1"
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
    assert before <= int(heard["MONOTONIC_USEC"]) <= after


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text())
def test_no_text_can_add_an_assignment(manager: ManagerSocket, text: str) -> None:
    Notifier.from_environ(manager.environ).status(text + "\nWATCHDOG=trigger" + text)
    [heard] = manager.heard()
    assert heard.keys() == {"STATUS"}
    assert len(heard["STATUS"]) <= 500


def test_a_full_buffer_neither_blocks_nor_raises_and_is_told(manager: ManagerSocket) -> None:
    notifier = Notifier.from_environ(manager.environ)
    manager.fill()
    assert not notifier.ready("lost")
    manager.heard()
    assert notifier.ready("heard")
    assert manager.heard()[-1]["STATUS"] == "heard"


def test_a_manager_that_is_gone_is_no_error(manager: ManagerSocket) -> None:
    notifier = Notifier.from_environ(manager.environ)
    manager.close()
    assert not notifier.watchdog()


@pytest.mark.parametrize(
    "environ",
    [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}, {"NOTIFY_SOCKET": "relative"}],
)
def test_without_a_socket_for_services_nothing_is_said(environ: dict[str, str]) -> None:
    assert Notifier.from_environ(environ).ready("to nobody")


def test_an_address_that_no_socket_can_have_is_no_error() -> None:
    assert not Notifier.from_environ({"NOTIFY_SOCKET": "/" + "x" * 200}).ready("to nobody")


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_ours_only_when_its_pid_is(
    environ: dict[str, str], seconds: float | None
) -> None:
    assert Notifier.from_environ(environ).watchdog_seconds == seconds
