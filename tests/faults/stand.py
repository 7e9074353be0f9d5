"""The stand: broker and Postgres behind proxies, receivers with a journal, members, events.

`Parts` may serve several runs, one after another; a `Stand` is one run on its own topic, database
and receivers. Leaves out: what is done to it (tools, scenarios).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.ledger import Fault, Ledger
from tests.faults.members import Member
from tests.faults.publisher import Publisher
from tests.faults.sampling import Sampler
from tests.rig.daemon import Daemon, config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import PostgresServer
from tests.rig.proxy import Proxy
from tests.rig.receivers import Receivers
from tests.rig.waiting import free_port, wait_for

STOP_SECONDS = 10.0
MEMORY_BYTES = 250_000_000
MOODY = ("moody", "moody-batch")
"""Those whose manner changes."""
_PLAIN = ("steady", "batch", *MOODY)
"""The first is the bystander."""
_SETTLE_SECONDS = 120.0


@dataclass(frozen=True)
class Setting:
    """How big a run is."""

    members: tuple[str, ...] = ("first", "second")
    events_per_second: float = 60.0
    partitions: int = 8
    session_seconds: float = 3.0
    rebalance_seconds: float = 6.0
    """How long the group waits for a member that has to let go."""
    longest_seconds: float = 8.0
    """Of a fault that lasts: a frozen server, a receiver's manner."""
    settle_seconds: float = _SETTLE_SECONDS
    memory_bytes: int = MEMORY_BYTES
    unrecorded_rows: int = 500
    """Outcomes that may wait for Postgres."""
    endpoints: tuple[str, ...] = _PLAIN
    timeout_seconds: float = 3.0
    """Of one attempt, at every endpoint."""
    concurrency: int = 10
    """Of one endpoint, in each member."""
    batch: int = 20
    """Events in one request, at those endpoints that take batches."""
    schedule_seconds: tuple[float, ...] = (0, 0.5, 1, 2, 3)
    """Waits before an attempt; the last one repeats."""


class Parts:
    """A broker and a server that may be broken, each with a proxy before it."""

    def __init__(self, kafka: KafkaBroker, kafka_proxy: Proxy, server: PostgresServer) -> None:
        self.kafka, self.kafka_proxy, self.server = kafka, kafka_proxy, server
        self.broker_needed = threading.Lock()
        """Held by whoever takes the broker away, and by whoever must find it there."""
        self.postgres_proxy = Proxy(server.port)

    @classmethod
    def own(cls, folder: Path) -> Parts:
        """Started for this, and ended by `stop`."""
        proxy = Proxy(free_port())
        kafka, server = KafkaBroker(folder / "kafka", proxy), PostgresServer(durable=True)
        kafka.start()
        server.start()
        return cls(kafka, proxy, server)

    def heal(self) -> None:
        """Both let through and running again."""
        self.kafka_proxy.heal()
        self.postgres_proxy.heal()
        self.server.thaw()

    def stop(self) -> None:
        """End everything."""
        self.kafka.stop()
        self.server.remove()
        self.kafka_proxy.stop()
        self.postgres_proxy.stop()


@dataclass
class Stand:
    """One run: what is done to it is noted in `faults`."""

    parts: Parts
    folder: Path
    topic: str
    setting: Setting
    began: float = field(default_factory=time.time)
    faults: list[Fault] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    """What the scenario itself has measured: name with unit → value."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.journal = self.folder / "arrivals"
        self.receivers = Receivers(self.journal)
        self.group = f"group-{self.topic}"
        setting, parts = self.setting, self.parts
        parts.kafka.create_topic(self.topic, setting.partitions, {"max.message.bytes": "2000000"})
        self.partitions = setting.partitions
        self.database = parts.server.create_database()
        names = (*setting.members, "newcomer")
        config = self._config()
        self.members = {name: Member(self.folder, name, config, STOP_SECONDS) for name in names}
        self._migrate(config)
        self.publisher = Publisher(
            parts.kafka.bootstrap, self.topic, setting.partitions, setting.events_per_second
        )
        self.sampler = Sampler(
            self.database, parts.kafka.bootstrap, self.group, self.topic, self.members.values(),
            setting.memory_bytes,
        )  # fmt: skip

    def _config(self) -> dict[str, Any]:
        proxy, server = self.parts.postgres_proxy, self.parts.server
        dsn = self.database.dsn.replace(f":{server.port}/", f":{proxy.port}/")
        session = self.setting.session_seconds
        kafka = {
            "session_timeout_seconds": session,
            "heartbeat_interval_seconds": session / 4,
            "rebalance_timeout_seconds": self.setting.rebalance_seconds,
            "request_timeout_seconds": self.setting.rebalance_seconds + 4,
            "metadata_max_age_seconds": 2,
        }
        postgres = {
            "statement_timeout_seconds": 4.0,
            "lock_timeout_seconds": 2.0,
            "connect_timeout_seconds": 3.0,
        }
        limits = {
            "unrecorded_rows": self.setting.unrecorded_rows,
            "lane_deliveries": 500,
            "park_after_seconds": 2.0,
        }
        return config_for(
            self.parts.kafka.proxied, dsn, self.topic,
            [self._endpoint(name) for name in self.endpoints],
            kafka=kafka, postgres=postgres, limits=limits, shutdown_timeout_seconds=STOP_SECONDS,
        )  # fmt: skip

    def _endpoint(self, name: str) -> dict[str, Any]:
        setting = self.setting
        made: dict[str, Any] = {
            "id": name,
            "url": self.receivers.url(name),
            "timeout_seconds": setting.timeout_seconds,
            "concurrency": setting.concurrency,
            "retry": {"schedule_seconds": list(setting.schedule_seconds), "max_attempts": 1_000},
        }
        if "batch" in name:
            made["batch"] = {"max_events": setting.batch, "max_wait_seconds": 0.1}
        return made

    def _migrate(self, config: dict[str, Any]) -> None:
        """The schema, and what the bench adds to it: every change of progress, the moment of each
        row, an index for its questions."""
        Daemon(self.folder, "migrate", config).migrate()
        for statement in _ADDED.split(";;"):
            self.database.execute(statement)

    # --- running ---------------------------------------------------------------------------

    @property
    def endpoints(self) -> tuple[str, ...]:
        return self.setting.endpoints

    def start(self) -> None:
        """Members, then events, until the first have been accepted."""
        for name in self.setting.members:
            self.members[name].start(wait=False)
        for name in self.setting.members:
            assert self.members[name].wait_ready(), f"{name}: {self.members[name].log()[-2000:]}"
        self.sampler.start()
        self.publisher.start()
        wait_for(lambda: self.accepted() > 0, 30, "the first event to arrive")

    def accepted(self) -> int:
        """How many events the bystander has accepted."""
        return self.receivers.accepted(self.bystander)

    @property
    def bystander(self) -> str:
        """The endpoint that nothing is ever done to."""
        return self.endpoints[0]

    def wait_work(self, timeout_seconds: float = 60.0) -> None:
        """Until one more event is accepted than now: work goes on."""
        before = self.accepted()
        wait_for(lambda: self.accepted() > before or self.broken, timeout_seconds, "work to go on")

    @property
    def broken(self) -> bool:
        """A promise was seen to be broken while the run went on: no need to go on."""
        return self.sampler.broken.is_set()

    @contextmanager
    def fault(self, name: str, part: str, target: str = "") -> Iterator[Fault]:
        """Note a fault for as long as the block lasts."""
        fault = Fault(name, part, target, time.time())
        self.faults.append(fault)
        try:
            yield fault
        finally:
            fault.ended = time.time()

    def current(self) -> list[Fault]:
        """Faults that are on now."""
        return [fault for fault in self.faults if fault.ended is None]

    # --- ending ----------------------------------------------------------------------------

    def settle(self) -> bool:
        """Undo every fault, publish no more, and wait until everything has arrived. False: it did
        not in time; what is missing, the checker says."""
        self.parts.heal()
        for name in self.endpoints[1:]:
            self.receivers.manner(name, "ok")
        for member in self.members.values():
            member.thaw()
        self.publisher.stop()
        try:
            wait_for(
                lambda: self.broken or self._settled(), self.setting.settle_seconds, "all settled"
            )
        except AssertionError:
            return False
        return not self.broken

    def _settled(self) -> bool:
        marks = self.sampler.watermarks()
        ends = self.parts.kafka.end_offsets(self.topic)
        return marks == ends and self.database.value("SELECT count(*) FROM deliveries") == 0

    def stop_members(self) -> None:
        """SIGTERM to all that run."""
        for member in self.members.values():
            member.stop()

    def close(self) -> None:
        """End what still runs."""
        self.sampler.stop()
        for member in self.members.values():
            member.thaw()
            member.kill()
        self.receivers.stop()

    def ledger(self) -> Ledger:
        """An empty ledger of this run; `gathering` fills it."""
        return Ledger(
            self.endpoints, self.began, time.time(), self.setting.timeout_seconds,
            STOP_SECONDS, self.setting.memory_bytes,
        )  # fmt: skip


_ADDED = """
CREATE SCHEMA bench;;
CREATE TABLE bench.steps (
    seq bigint GENERATED ALWAYS AS IDENTITY, at timestamptz NOT NULL DEFAULT clock_timestamp(),
    partition int NOT NULL, epoch bigint NOT NULL, watermark bigint, incarnation bigint);;
CREATE FUNCTION bench.step() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO bench.steps (partition, epoch, watermark, incarnation)
    VALUES (NEW.partition, NEW.epoch, NEW.watermark, NEW.incarnation);
    RETURN NULL; END $$;;
CREATE TRIGGER steps AFTER INSERT OR UPDATE ON dispatcherd.progress
    FOR EACH ROW EXECUTE FUNCTION bench.step();;
ALTER TABLE dispatcherd.attempts ADD COLUMN recorded timestamptz DEFAULT clock_timestamp();;
CREATE INDEX bench_attempts ON dispatcherd.attempts
    (partition, "offset", endpoint_id) WHERE kind = 1
"""
