"""The sink and the bare loop: small C programs, compiled on demand into .parts/bench.

Invariant: the binary is that of the source beside it (its name holds the source's hash). Leaves
out: what the programs do (sink.c, bare.c say it).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / ".parts" / "bench"
HOSTS = 100
"""Loopback addresses that the sink listens on beside 127.0.0.1: hosts, for the daemon."""


class Missing(Exception):
    """A part that this machine has not got; says which."""


def built(program: str, tls: bool = False) -> Path:
    """The compiled program. Raises Missing when there is no compiler."""
    source = Path(__file__).with_name(f"{program}.c")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    binary = BUILT / f"{program}{'-tls' if tls else ''}-{digest}"
    if binary.exists():
        return binary
    if shutil.which("gcc") is None:
        raise Missing("gcc, which compiles the sink")
    BUILT.mkdir(parents=True, exist_ok=True)
    options = ["-DWITH_TLS"] if tls else []
    libraries = ["-lssl", "-lcrypto"] if tls else []
    aside = binary.with_suffix(f".{os.getpid()}")
    done = subprocess.run(
        ["gcc", "-O2", *options, "-o", str(aside), str(source), *libraries],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if done.returncode:
        raise Missing(f"what {source.name} needs: {done.stderr[:500]}")
    aside.rename(binary)
    return binary


class Sink:
    """The sink's process, and its control."""

    def __init__(self, hosts: int = HOSTS, tls: tuple[Path, Path] | None = None) -> None:
        command = [str(built("sink", tls is not None)), "0", str(hosts)]
        if tls is not None:
            command += [str(path) for path in tls]
        self._scheme = "https" if tls else "http"
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lock = threading.Lock()
        self.port = int(self._heard()["port"])

    @property
    def pid(self) -> int:
        return self._process.pid

    def url(self, endpoint: int, hosts: int = 1) -> str:
        """Where an endpoint is, when the endpoints are spread over so many hosts."""
        host = "127.0.0.1" if hosts == 1 else f"127.0.1.{endpoint % hosts + 1}"
        return f"{self._scheme}://{host}:{self.port}/e/{endpoint}"

    def _heard(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the sink ended"
        return json.loads(line)

    def say(self, command: str) -> Any:
        """One command (sink.c lists them) and its answer."""
        assert self._process.stdin is not None
        with self._lock:  # a sampler asks from a thread of its own
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
            answer = self._heard()
        assert not (isinstance(answer, dict) and "error" in answer), (command, answer)
        return answer

    def reset(self, events: int, fanout: int = 1, endpoints: int = 1) -> None:
        """Forget everything, and expect these."""
        self.say(f"reset {events} {fanout} {endpoints}")

    def count(self) -> dict[str, Any]:
        """The totals."""
        found: dict[str, Any] = self.say("count")
        return found

    def histogram(self, latency_class: int = 0) -> list[tuple[int, int]]:
        """(microseconds, count) in ascending order."""
        return [(us, n) for us, n in self.say(f"histogram {latency_class}")]

    def samples(self) -> list[bytes]:
        """Some whole requests as they came."""
        return [bytes.fromhex(text) for text in self.say("samples")]

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


def percentile(histogram: list[tuple[int, int]], fraction: float) -> float:
    """Milliseconds below which this share of the arrivals lies; NaN when there are none."""
    total = sum(n for _, n in histogram)
    if not total:
        return float("nan")
    seen = 0
    for us, n in histogram:
        seen += n
        if seen >= fraction * total:
            return us / 1000
    return histogram[-1][0] / 1000
