"""Talking to systemd: sd_notify(3) over its datagram socket, no library needed for one sendto.

Invariant: never raises and never blocks; without NOTIFY_SOCKET it does nothing. Leaves out: when
to say what (cli.run).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """The service manager's ear."""

    def __init__(self, address: str | None, watchdog_interval_seconds: float | None) -> None:
        self._address = address
        self.watchdog_interval_seconds = watchdog_interval_seconds
        """How often to ping: half of what systemd waits; None when it does not watch."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Notifier:
        """From NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID."""
        address = environ.get("NOTIFY_SOCKET")
        if address is not None and address.startswith("@"):
            address = "\0" + address[1:]
        interval = None
        usec = environ.get("WATCHDOG_USEC", "")
        if usec.isdigit() and environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            interval = int(usec) / 2e6
        return cls(address or None, interval)

    def _send(self, text: str) -> None:
        if self._address is None:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.setblocking(False)
            s.sendto(text.encode(), self._address)

    def ready(self, status: str) -> None:
        """The service can do its work (also after a reload)."""
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={text}")

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={usec}")

    def stopping(self) -> None:
        """The service is going down in order."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """The loop that does the work came round."""
        self._send("WATCHDOG=1")
