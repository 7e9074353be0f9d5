"""Members of the group as processes; each start is a life with a name that its requests carry."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from tests.faults.ledger import End, Life
from tests.rig.daemon import Daemon
from tests.rig.waiting import wait_for

_READY_SECONDS = 90.0
_LAST_LINES = 3


class Member:
    """One member: started, killed, stopped, frozen. Safe to watch from another thread."""

    def __init__(
        self, folder: Path, name: str, config: dict[str, Any], stop_seconds: float
    ) -> None:
        self.name = name
        self.lives: list[Life] = []
        self._config = config
        self._stop_seconds = stop_seconds
        self._daemon = Daemon(folder, name, config)
        self._lock = threading.Lock()

    def start(self, wait: bool = True) -> None:
        """Begin a life; with `wait`, until it is ready."""
        process = f"{self.name}.{len(self.lives) + 1}"
        network = {**self._config["network"], "user_agent": f"dispatcherd/{{version}} {process}"}
        admin = {"port": self._daemon.port}
        self._daemon.write({**self._config, "network": network, "admin": admin})
        started = time.time()
        self._daemon.start(wait=False)
        self.lives.append(Life(process, self._daemon.pid, started))
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Until it has joined and can record."""
        wait_for(
            lambda: not self.running() or self._daemon.ready(), _READY_SECONDS, f"{self.name} ready"
        )
        assert self.running(), f"{self.name} ended while it started"

    def running(self) -> bool:
        """Whether it lives, as far as the bench knows; notes an end that nobody asked for."""
        with self._lock:
            life = self.lives[-1] if self.lives else None
            if life is None or life.end is not End.ALIVE:
                return False
            if self._daemon.running():
                return True
            life.end = End.ITSELF
        self._ended(life)
        return False

    def _asked(self, end: End) -> Life | None:
        """Note that the bench ends it now; None when there is nothing to end."""
        if not self.running():
            return None
        with self._lock:
            self.lives[-1].end = end
        return self.lives[-1]

    def _ended(self, life: Life) -> None:
        life.ended = time.time()
        life.code = self._daemon.wait_exit(1)
        life.last_words = " | ".join(self._daemon.log().strip().splitlines()[-_LAST_LINES:])

    def kill(self) -> None:
        """SIGKILL."""
        life = self._asked(End.KILLED)
        if life is not None:
            self._daemon.kill()
            self._ended(life)
            if life.code != -signal.SIGKILL:
                life.end = End.ITSELF  # just before

    def stop(self) -> None:
        """SIGTERM, and wait for the end: past twice its deadline it is killed, and that shows."""
        life = self._asked(End.STOPPED)
        if life is None:
            return
        life.asked = time.time()
        self._daemon.sigterm()
        try:
            self._daemon.wait_exit(2 * self._stop_seconds + 5)
        except AssertionError:
            self._daemon.kill()
        self._ended(life)

    def freeze(self) -> None:
        """SIGSTOP."""
        self._daemon.freeze()

    def thaw(self) -> None:
        """SIGCONT; does nothing to one that has ended."""
        if self.running():
            self._daemon.thaw()

    def rss_bytes(self) -> int | None:
        """Resident memory; None when it does not run."""
        try:
            return self._daemon.rss_bytes() if self.running() else None
        except psutil.NoSuchProcess:
            return None

    def log(self) -> str:
        """All that its lives have logged."""
        return self._daemon.log()
