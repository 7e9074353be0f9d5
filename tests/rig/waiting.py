"""Waiting for a condition, with a bound; never for a time."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(condition: Callable[[], T], timeout_seconds: float, what: str) -> T:
    """Poll until `condition` is truthy; its value. Fails with `what` and the last value."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_seconds} s: {what} (last: {value!r})")
        time.sleep(0.05)


_PORTS = range(12_000, 32_000)
"""Below those that the kernel gives to outgoing connections: what is free now stays free until it
is listened on, whatever load runs beside."""


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
