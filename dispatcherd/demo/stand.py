"""The demo's parts, together: Postgres, Kafka, the receivers, and the daemon with its own files.

Invariant: after `close` no process of it is left, and no file but those in the folder that the
user looks at. Leaves out: publishing, judging, showing.
"""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import yaml
from prometheus_client.parser import text_string_to_metric_families

from dispatcherd.demo.kafka import EmbeddedKafka
from dispatcherd.demo.postgres import EmbeddedPostgres
from dispatcherd.demo.process import Child, DemoFailed, environment
from dispatcherd.demo.scenario import GROUP, ROLES, TOPICS
from dispatcherd.demo.tally import Received
from dispatcherd.events import SAMPLE

Metrics = dict[tuple[str, ...], float]
"""(name, label values…) → value."""

_READY_SECONDS = 60.0
_STOP_SECONDS = 30.0
_HEAD = """\
# Written by `dispatcherd demo`: a configuration that works while the demo does.
# Every key that is not here has its default.
"""


class Stand:
    """All parts of one demo; `folder` holds what the user may look at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config_path = folder / "config.yaml"
        self.postgres = EmbeddedPostgres(folder / "postgres.log")
        self.kafka: EmbeddedKafka | None = None
        self.daemon: Child | None = None
        self._receivers: Child | None = None
        self._receivers_port = 0
        self._admin_port = 0
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))

    # --- starting --------------------------------------------------------------------------

    def start_kafka(self) -> EmbeddedKafka:
        """The broker and its topics."""
        self.kafka = EmbeddedKafka()
        self.kafka.create_topics(TOPICS)
        return self.kafka

    async def start_receivers(self) -> str:
        """The process, and a secret for each endpoint; returns where it listens."""
        orders = {
            role.name: {
                "manner": role.manner,
                "secrets": self._make_secrets(role.name, role.secrets),
                "hex_header": role.config.get("sign", {}).get("hex_header"),
            }
            for role in ROLES
        }
        argv = [sys.executable, "-m", "dispatcherd.demo.receivers"]
        log = self.folder / "receivers.log"
        self._receivers = child = await Child.start("the receivers", argv, log, piped=True)
        assert child.process.stdin is not None and child.process.stdout is not None
        child.process.stdin.write(orjson.dumps(orders) + b"\n")
        answer = await asyncio.wait_for(child.process.stdout.readline(), 30)
        if not answer:
            await child.process.wait()
            child.check()
        self._receivers_port = orjson.loads(answer)["port"]
        return f"127.0.0.1:{self._receivers_port}"

    def _make_secrets(self, name: str, count: int) -> list[str]:
        secrets = self.folder / "secrets"
        secrets.mkdir(mode=0o700, exist_ok=True)
        made = []
        for path in self._secret_files(name, count):
            secret = "whsec_" + base64.b64encode(os.urandom(32)).decode()
            path.write_text(secret + "\n")
            path.chmod(0o600)
            made.append(secret)
        return made

    def _secret_files(self, name: str, count: int) -> list[Path]:
        names = [name] if count == 1 else [f"{name}.{n + 1}" for n in range(count)]
        return [self.folder.absolute() / "secrets" / name for name in names]

    def write_config(self) -> None:
        """The daemon's configuration, as an operator would write it."""
        assert self.kafka is not None
        self._admin_port = _free_port()
        config = {
            "kafka": {
                "bootstrap_servers": self.kafka.bootstrap.split(","),
                "topics": list(TOPICS),
                "group_id": GROUP,
                # The embedded Kafka holds a fetch for all of this time, also when records come, ...
                "fetch_max_wait_seconds": 0.02,
                # ... and lets a member join only so long after the last one has left.
                "session_timeout_seconds": 6,
                "heartbeat_interval_seconds": 1,
            },
            "postgres": {"dsn": self.postgres.dsn},
            "network": {"allowed_networks": ["127.0.0.0/8"]},  # the receivers are on this machine
            "catalogue": {
                "path": str(SAMPLE),
                "on_violation": "quarantine",
                "on_unknown": "quarantine",
            },
            "limits": {"park_after_seconds": 2.0},  # 5 by default; the demo is a short one
            "admin": {"port": self._admin_port},
            "log": {"format": "text"},
            "endpoints": [self._endpoint(number) for number in range(len(ROLES))],
        }
        text = yaml.safe_dump(config, sort_keys=False, default_flow_style=None, width=90)
        self.config_path.write_text(_HEAD + text)

    def _endpoint(self, number: int) -> dict[str, Any]:
        role = ROLES[number]
        files = [{"file": str(path)} for path in self._secret_files(role.name, role.secrets)]
        secret = {"secret": files[0]} if len(files) == 1 else {"secrets": files}
        url = f"http://127.0.0.1:{self._receivers_port}/{role.name}"
        return {"id": role.name, "url": url, **secret, **role.config}

    async def command(self, *arguments: str) -> str:
        """Run a command of dispatcherd to its end; what it printed. Raises DemoFailed."""
        argv = (sys.executable, "-m", "dispatcherd", *arguments, "--config", str(self.config_path))
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *argv, stdout=pipe, stderr=pipe, env=environment(), start_new_session=True
        )
        try:
            output, errors = await asyncio.wait_for(process.communicate(), 60)
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode:
            words = errors.decode(errors="replace").strip()
            raise DemoFailed(f"`dispatcherd {' '.join(arguments)}` failed: {words}")
        return output.decode(errors="replace").strip()

    async def start_daemon(self) -> Child:
        """`dispatcherd run`, until it is ready. Raises DemoFailed."""
        argv = [sys.executable, "-m", "dispatcherd", "run", "--config", str(self.config_path)]
        log = self.folder / "daemon.log"
        self.daemon = await Child.start("the daemon", argv, log)
        deadline = time.monotonic() + _READY_SECONDS
        while not await self._ready():
            self.check()
            if time.monotonic() > deadline:
                raise DemoFailed(
                    f"the daemon is not ready after {_READY_SECONDS:.0f} s. The end of its log:\n"
                    f"{self.daemon.last_words()}"
                )
            await asyncio.sleep(0.05)
        return self.daemon

    async def _ready(self) -> bool:
        try:
            async with self._session.get(f"{self.admin_url}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    # --- asking ----------------------------------------------------------------------------

    @property
    def admin_url(self) -> str:
        """Where /metrics, /healthz and /readyz are."""
        return f"http://127.0.0.1:{self._admin_port}"

    @property
    def receivers_url(self) -> str:
        """Where the receivers are."""
        return f"http://127.0.0.1:{self._receivers_port}"

    def check(self) -> None:
        """Raise DemoFailed if a process has ended that must not have."""
        self.postgres.check()
        for child in (self._receivers, self.daemon):
            if child is not None:
                child.check()

    async def metrics(self) -> Metrics:
        """The daemon's counters now."""
        async with self._session.get(f"{self.admin_url}/metrics") as answer:
            text = await answer.text()
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    async def received(self) -> dict[str, Received]:
        """What the receivers have counted."""
        async with self._session.get(f"{self.receivers_url}/-/counts") as answer:
            counts = orjson.loads(await answer.read())
        return {name: Received(**found) for name, found in counts.items()}

    # --- stopping --------------------------------------------------------------------------

    async def stop_daemon(self) -> None:
        """SIGTERM, and an orderly end. Raises DemoFailed when it was none."""
        assert self.daemon is not None
        daemon = self.daemon
        code = await daemon.stop(signal.SIGTERM, _STOP_SECONDS)
        self.daemon = None
        if code != 0:
            raise DemoFailed(
                f"the daemon did not stop in order after SIGTERM (exit code {code}). The end of "
                f"its log:\n{daemon.last_words()}"
            )

    async def close(self) -> None:
        """End every process at once and remove Postgres's data: all of it was for the demo only."""
        for child in (self.daemon, self._receivers):
            if child is not None:
                await child.kill()
        await self.postgres.stop()
        if self.kafka is not None:
            self.kafka.stop()
        await self._session.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
