"""The daemon as a process, seen from outside: configuration, signals, exit code, metrics, log."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.rig.waiting import free_port, wait_for

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def config_for(
    bootstrap: str, dsn: str, topic: str, endpoints: list[dict[str, Any]], **sections: Any
) -> dict[str, Any]:
    """A configuration with short timeouts; `sections` are merged into it."""
    config: dict[str, Any] = {
        "kafka": {
            "bootstrap_servers": [bootstrap],
            "topics": [topic],
            "group_id": f"group-{topic}",
            "session_timeout_seconds": 6,
            "heartbeat_interval_seconds": 1,
            "rebalance_timeout_seconds": 6,
            "request_timeout_seconds": 10,
            "metadata_max_age_seconds": 5,
        },
        "postgres": {"dsn": dsn, "poll_interval_seconds": 1},
        "network": {"allowed_networks": ["127.0.0.0/8"]},
        "allow_inline_secrets": True,
        "endpoints": [{"secret": {"inline": SECRET}, **endpoint} for endpoint in endpoints],
        "shutdown_timeout_seconds": 10,
    }
    for name, section in sections.items():
        if isinstance(section, dict):
            config[name] = {**config.get(name, {}), **section}
        else:
            config[name] = section
    return config


class Daemon:
    """One `dispatcherd run`."""

    def __init__(self, folder: Path, name: str, config: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.port = free_port()
        self.config = {**config, "admin": {"port": self.port}}
        self.prefix: list[str] = []
        """A command that runs it, such as one that makes a namespace; it must keep the pid."""
        self.environ: dict[str, str] = {}
        """Added to the environment of `run`."""
        self.path = folder / f"{name}.yaml"
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.write(self.config)

    def write(self, config: dict[str, Any]) -> None:
        """Write the configuration file (anew, before a reload)."""
        self.config = config
        self.path.write_text(yaml.safe_dump(config))

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another command of the program with the same configuration."""
        return subprocess.run(
            [sys.executable, "-m", "dispatcherd", *arguments, "--config", str(self.path)],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    def migrate(self) -> Daemon:
        """Run the migrations."""
        done = self.command("migrate")
        assert done.returncode == 0, done.stderr
        return self

    def start(self, wait: bool = True) -> Daemon:
        """Start the process, and wait until it is ready."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self.prefix,
                    sys.executable,
                    "-m",
                    "dispatcherd",
                    "run",
                    "--config",
                    str(self.path),
                ],
                stderr=log,
                stdout=log,
                env={**os.environ, "DISPATCHERD_LOG__FORMAT": "json", **self.environ},
            )
        return self.wait_ready() if wait else self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def _get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def ready(self) -> bool:
        """Whether /readyz says so."""
        assert self.running(), f"{self.name} ended: {self.log()[-3000:]}"
        try:
            return self._get("/readyz")[0] == 200
        except OSError:
            return False

    def lacking(self) -> dict[str, str]:
        """What stands in the way of readiness, as /readyz has it: part → reason."""
        return dict(json.loads(self._get("/readyz")[1]).get("missing", {}))

    def wait_ready(self, timeout_seconds: float = 40) -> Daemon:
        """Until it has joined and can record."""
        wait_for(self.ready, timeout_seconds, f"{self.name} ready")
        return self

    def metrics(self) -> dict[tuple[str, str], float]:
        """(name, the labels' values joined by a comma) → value"""
        found = {}
        for family in text_string_to_metric_families(self._get("/metrics")[1]):
            for sample in family.samples:
                found[(sample.name, ",".join(sample.labels.values()))] = sample.value
        return found

    def metric(self, name: str, labels: str = "") -> float:
        """One value; 0 when there is none."""
        return self.metrics().get((name, labels), 0.0)

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def sigterm(self) -> None:
        """Ask it to stop."""
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if self.running():
            assert self._process is not None
            self._process.kill()
            self._process.wait(10)

    def freeze(self) -> None:
        """SIGSTOP."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    def wait_exit(self, timeout_seconds: float) -> int:
        """The exit code; fails when it does not come in time."""
        assert self._process is not None
        started = time.monotonic()
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired as error:
            waited = time.monotonic() - started
            raise AssertionError(f"{self.name} runs on after {waited:.0f} s") from error

    def stop(self, timeout_seconds: float = 20) -> None:
        """SIGTERM, exit code 0."""
        self.sigterm()
        code = self.wait_exit(timeout_seconds)
        assert code == 0, (code, self.log()[-3000:])

    def log(self) -> str:
        """All that it has logged."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def peak_rss_bytes(self) -> int:
        """The most that was ever resident, as the kernel keeps it (VmHWM)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    def rss_bytes(self) -> int:
        """Resident memory."""
        return int(psutil.Process(self.pid).memory_info().rss)
