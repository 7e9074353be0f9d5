"""What was answered with 2xx is handled, whatever happens to the process that answered."""

from __future__ import annotations

import http.client
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcherd.receiver import Backlog
from dispatcherd.receiver.testing import RequestFactory
from tests.integration.receiver.serving import Client
from tests.rig.waiting import wait_for

KILLS = 5


class Process:
    """One run of `crashing`."""

    def __init__(self, server: str, secret: str, path: Path) -> None:
        module = "tests.integration.receiver.crashing"
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, server, secret, str(path)], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self.client = Client(json.loads(self._process.stdout.readline())["port"])

    def end(self, number: signal.Signals) -> int:
        self._process.send_signal(number)
        return self._process.wait(60)

    def kill_if_running(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)


class Senders:
    """Threads that send until told to stop, and write down what was accepted."""

    def __init__(self, client: Client, factory: RequestFactory) -> None:
        self.accepted: list[str] = []
        self._client = client
        self._factory = factory
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        while not self._stop.is_set():
            request = self._factory()
            try:
                status = self._client.post(request.headers, request.body)[0]
            except (OSError, http.client.HTTPException):
                return
            if 200 <= status < 300:
                self.accepted.append(request.id)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


@pytest.fixture(params=["flask", "starlette"])
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


def handled(path: Path) -> Counter[str]:
    log = Path(f"{path}.log")
    return Counter(log.read_text().split()) if log.exists() else Counter()


def test_kill_9_at_random_moments_loses_nothing_that_was_accepted(
    server: str, signed_request: RequestFactory, tmp_path: Path
) -> None:
    path = tmp_path / "app"
    accepted: list[str] = []
    for _ in range(KILLS):
        process = Process(server, signed_request.secret, path)
        senders = Senders(process.client, signed_request)
        wait_for(lambda s=senders: len(s.accepted) > 20, 60, "some are accepted")  # type: ignore[misc]
        time.sleep(random.random() / 5)  # a moment that nobody chose
        assert process.end(signal.SIGKILL) == -signal.SIGKILL
        senders.stop()
        accepted += senders.accepted
    last = Process(server, signed_request.secret, path)
    backlog = Backlog(f"{path}.db")
    try:
        wait_for(lambda: backlog.depth().items == 0, 60, "the backlog is worked off")
        assert last.end(signal.SIGTERM) == 0
    finally:
        last.kill_if_running()
    seen = handled(path)
    assert len(accepted) > KILLS * 20
    assert set(accepted) <= set(seen)
    # Twice only where a kill came between the work and the note of it: 4 workers, `KILLS` kills.
    assert sum(count - 1 for count in seen.values()) <= KILLS * 4


def test_sigterm_drains_and_nothing_is_handled_twice(
    server: str, signed_request: RequestFactory, tmp_path: Path
) -> None:
    path = tmp_path / "app"
    accepted: list[str] = []
    for _ in range(3):
        process = Process(server, signed_request.secret, path)
        senders = Senders(process.client, signed_request)
        wait_for(lambda s=senders: len(s.accepted) > 20, 60, "some are accepted")  # type: ignore[misc]
        assert process.end(signal.SIGTERM) == 0
        senders.stop()
        accepted += senders.accepted
    last = Process(server, signed_request.secret, path)
    backlog = Backlog(f"{path}.db")
    try:
        wait_for(lambda: backlog.depth().items == 0, 60, "the backlog is worked off")
        assert last.end(signal.SIGTERM) == 0
    finally:
        last.kill_if_running()
    seen = handled(path)
    assert set(accepted) <= set(seen)
    assert set(seen.values()) == {1}


FORKING = """
import os, sys
from dispatcherd.receiver import Backlog, Receiver, Request
path, secret = sys.argv[1:]
requests = eval(sys.stdin.read())
backlog = Backlog(path + ".db")  # before the fork, as an application that is loaded first does
log = os.open(path + ".log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
webhook = Receiver([secret], backlog=backlog)
webhook.on("*")(lambda event: os.write(log, (event.id + "\\n").encode()) and None)
children = []
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        statuses = {webhook.handle(Request(headers, body)).status for headers, body in requests}
        left = webhook.close()
        os._exit(0 if statuses <= {200, 202} and not left else 1)
    children.append(pid)
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children))
"""


def test_forked_processes_share_a_backlog_and_handle_each_event_once(
    signed_request: RequestFactory, tmp_path: Path
) -> None:
    path = tmp_path / "app"
    requests = [signed_request() for _ in range(60)]
    told = repr([(request.headers, request.body) for request in requests])
    command = [sys.executable, "-c", FORKING, str(path), signed_request.secret]
    subprocess.run(command, input=told, text=True, timeout=120, check=True)
    # What none of them had got to when it closed is still there.
    seen = handled(path)
    waiting = Backlog(f"{path}.db").depth().items
    assert set(seen.values()) <= {1}
    assert len(seen) + waiting == 60
    assert set(seen) <= {request.id for request in requests}
