"""Who is measured: the daemon; other ways to do the same work start the same way.

Invariant: a subject says only what can be checked from outside it: its processes, and what is
durable in its database. Leaves out: measuring (trial).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from bench import cpu
from bench.cores import of_the_subject
from bench.load import Plan
from bench.native import ROOT, Sink
from bench.parts import Parts
from tests.rig.daemon import Daemon
from tests.rig.postgres import Database
from tests.rig.waiting import wait_for

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Loss(Exception):
    """An event did not arrive, or arrived where it must not, or was not recorded."""


class Subject(Protocol):
    """What is measured."""

    name: str

    def start(self) -> None:
        """Begin to consume."""

    def pids(self) -> list[int]:
        """Its processes, whose CPU and memory count."""

    def alive(self) -> bool:
        """Whether each of them runs."""

    def settled(self) -> bool:
        """Whether all that it has to record is durable."""

    def verify(self) -> dict[str, float]:
        """Raise Loss unless its records say that everything was delivered; what they say."""

    def log(self) -> str:
        """What it said last."""

    def stop(self) -> None:
        """End, and leave nothing behind."""


@dataclass(frozen=True, slots=True)
class Setup:
    """How the daemon is configured where that differs from its defaults."""

    hosts: int = 1
    """Addresses that the endpoints are spread over."""
    concurrency: int = 10
    batch: int = 1
    processes: int = 1
    own_core: bool = False
    """It gets the core that `cores.apart` keeps free."""
    registered: int = 0
    """Endpoints registered in all; those above the plan's are wanted by no event."""
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Further sections of the configuration."""
    endpoint: dict[str, Any] = field(default_factory=dict)
    """Further keys of each endpoint."""
    environment: dict[str, str] = field(default_factory=dict)


class DaemonSubject:
    """dispatcherd, as many processes in one group as the setup says."""

    name = "dispatcherd"

    def __init__(
        self,
        parts: Parts,
        topic: str,
        plan: Plan,
        setup: Setup | None = None,
        sink: Sink | None = None,
        below: int = 0,
        owed: int = 0,
    ) -> None:
        """`below`: records of the topic that are not the plan's; `owed`: deliveries that are parked
        before it starts and not due before it ends."""
        self._below, self._owed = below, owed
        self.abrupt = False
        """Stop it with SIGKILL: it would wait for attempts that hang."""
        setup = setup or Setup()
        self._parts, self._topic, self._plan, self._setup = parts, topic, plan, setup
        self._sink = sink or parts.sink
        self.database = parts.database()
        config = self._config()
        self._daemons = [
            _made(parts.folder / "daemons", f"{topic}-{id(self)}-{n}", config)
            for n in range(setup.processes)
        ]

    def _config(self) -> dict[str, Any]:
        setup, plan = self._setup, self._plan
        endpoints = []
        for number in range(max(plan.endpoints, plan.fanout, setup.registered)):
            wanted = number < max(plan.endpoints, plan.fanout)
            entry = {
                "id": f"e{number}",
                "url": self._sink.url(number, setup.hosts),
                "event_types": plan.types_of(number) if wanted else [f"other.k{number}"],
                "secret": {"inline": SECRET},
                "concurrency": setup.concurrency,
                **setup.endpoint,
            }
            if setup.batch > 1:
                entry["batch"] = {"max_events": setup.batch}
            endpoints.append(entry)
        config: dict[str, Any] = {
            "kafka": {
                "bootstrap_servers": [self._parts.kafka.bootstrap],
                "topics": [self._topic],
                "group_id": self.database.dsn.rsplit("/", 1)[1],
            },
            "postgres": {"dsn": self.database.dsn},
            "network": {"allowed_networks": ["127.0.0.0/8"]},
            "allow_inline_secrets": True,
            "endpoints": endpoints,
        }
        for section, keys in setup.sections.items():
            config[section] = {**config.get(section, {}), **keys}
        return config

    def start(self) -> None:
        before = {name: os.environ.get(name) for name in self._setup.environment}
        os.environ.update(self._setup.environment)
        core = of_the_subject() if self._setup.own_core else contextlib.nullcontext()
        try:
            with core:
                for daemon in self._daemons:
                    daemon.start(wait=False)
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def wait_ready(self, timeout_seconds: float = 60) -> None:
        """Until each has joined."""
        for daemon in self._daemons:
            daemon.wait_ready(timeout_seconds)

    def pids(self) -> list[int]:
        return [daemon.pid for daemon in self._daemons]

    def settled(self) -> bool:
        # A parked or held delivery settles its record too: none may be left.
        return bool(
            self.database.value(
                "SELECT coalesce(sum(watermark), 0) >= $1 AND $2 = (SELECT coalesce(sum(owed), 0) "
                "FROM backlog) AND NOT EXISTS (SELECT FROM held_ranges) FROM progress",
                self._plan.events + self._below,
                self._owed,
            )
        )

    def published(self, events: int) -> None:
        """No more than so many of the plan's events were, after all."""
        self._plan = replace(self._plan, events=events)

    def wait_settled(self, seconds: float = 60) -> None:
        """Until `settled`. Raises Loss."""
        try:
            wait_for(self.settled, seconds, "everything recorded, nothing owed")
        except AssertionError as error:
            raise Loss(f"{error}; {self.log()}") from error

    def verify(self) -> dict[str, float]:
        row = self.database.fetch(
            "SELECT count(*) AS attempts, count(*) FILTER (WHERE r.name = 'ok') AS delivered, "
            "count(DISTINCT (a.webhook_id, a.endpoint_id)) FILTER (WHERE r.name = 'ok') "
            "AS distinct_delivered FROM attempts a JOIN reasons r ON r.id = a.reason"
        )[0]
        owed = self.database.value("SELECT count(*) FROM deliveries")
        wanted = self._plan.deliveries
        if row["distinct_delivered"] != wanted or owed != self._owed:
            raise Loss(
                f"recorded {dict(row)}, owed or dead {owed}; wanted {wanted} delivered and "
                f"{self._owed} owed"
            )
        return {"attempts": float(row["attempts"]), "parked": self.parked()}

    def parked(self) -> float:
        """How many deliveries were parked instead of sent at once, by the daemon's own metrics."""
        found = 0.0
        for daemon in self._daemons:
            found += sum(
                v for (name, _), v in daemon.metrics().items() if name == "dispatcherd_parked_total"
            )
        return found

    def alive(self) -> bool:
        return all(daemon.running() for daemon in self._daemons)

    def log(self) -> str:
        return "\n".join(daemon.log()[-1500:] for daemon in self._daemons)

    def stop(self) -> None:
        for daemon in self._daemons:
            if daemon.running() and not self.abrupt:
                daemon.sigterm()
        try:
            for daemon in self._daemons:
                if daemon.running() and not self.abrupt:
                    daemon.wait_exit(40)
        finally:
            for daemon in self._daemons:
                daemon.kill()
            self._parts.drop(self.database)


def _made(folder: Path, name: str, config: dict[str, Any]) -> Daemon:
    """JSON is YAML, and is written a hundred times faster where there are 100,000 endpoints."""
    daemon = Daemon(folder, name, {**config, "endpoints": []})
    daemon.path.write_text(json.dumps({**daemon.config, "endpoints": config["endpoints"]}))
    return daemon


class ProcessSubject:
    """A program that does the same work: started with a command, ended with SIGTERM."""

    def __init__(self, name: str, folder: Path, command: list[str]) -> None:
        self.name = name
        self._command = command
        self._log = folder / f"{name}-{id(self)}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT
            )

    def pids(self) -> list[int]:
        return [] if self._process is None else [self._process.pid]

    def settled(self) -> bool:
        return True

    def verify(self) -> dict[str, float]:
        return {}

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-3000:] if self._log.exists() else ""

    def stop(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)


class BaselineSubject(ProcessSubject):
    """What a Python user writes in a day (baseline.py): records each outcome with an INSERT."""

    def __init__(self, parts: Parts, topic: str, plan: Plan) -> None:
        self._parts, self._plan = parts, plan
        self.database = Database(parts.database().dsn)
        assert plan.endpoints == plan.fanout == 1
        super().__init__(
            "baseline", parts.folder,
            [sys.executable, "-m", "bench.baseline", parts.kafka.bootstrap, topic,
             self.database.dsn, parts.sink.url(0), SECRET],
        )  # fmt: skip

    def settled(self) -> bool:
        return int(self.database.value("SELECT count(*) FROM outcomes")) >= self._plan.deliveries

    def verify(self) -> dict[str, float]:
        found = self.database.value("SELECT count(DISTINCT webhook_id) FROM outcomes WHERE ok")
        if found != self._plan.deliveries:
            raise Loss(f"baseline recorded {found} of {self._plan.deliveries}")
        return {}

    def stop(self) -> None:
        super().stop()
        self._parts.drop(self.database)


def memory_bytes(subject: Subject) -> tuple[int, int]:
    """Resident now and at its highest, over all its processes."""
    pairs = [cpu.resident_bytes(pid) for pid in subject.pids()]
    return sum(now for now, _ in pairs), sum(peak for _, peak in pairs)


def wait_until_delivered(subject: DaemonSubject, sink: Sink, wanted: int, seconds: float) -> None:
    """Wait for so many distinct arrivals. Raises Loss."""

    def arrived() -> bool:
        if not subject.alive():
            raise Loss(f"it ended: {subject.log()}")
        return bool(sink.count()["unique"] >= wanted)

    try:
        wait_for(arrived, seconds, f"{wanted} arrivals")
    except AssertionError as error:
        raise Loss(f"{error}; {sink.count()}; {subject.log()}") from error
