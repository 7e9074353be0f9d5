"""Apache Kafka 4.1 in KRaft mode: one real broker on loopback, fetched through Maven."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from tests.rig.need import need as need_part
from tests.rig.proxy import Proxy
from tests.rig.waiting import free_port, wait_for

_COORDINATOR_STARTS = {
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}
"""What a broker answers for a group whose offsets it has not loaded yet."""

ROOT = Path(__file__).resolve().parents[2]
POM = ROOT / "tests" / "kafka" / "pom.xml"
LIBRARIES = ROOT / ".parts" / "kafka" / "lib"
FORMATTED = ROOT / ".parts" / "kafka" / "formatted"
"""A broker's data before its first start, to copy: making it takes a Java of its own."""
CLASSES = ROOT / ".parts" / "kafka" / "classes.jsa"
"""Java's archive of the classes that a broker loads: with it one starts in half the time. Java goes
without where it is not of these jars."""
_WITH_CLASSES = f"-XX:SharedArchiveFile={CLASSES}"


def missing() -> str | None:
    """Why a broker cannot be had here; None when it can."""
    absent = [name for name in ("java", "mvn") if shutil.which(name) is None]
    if absent and not any(LIBRARIES.glob("kafka_*.jar")):
        return f"Apache Kafka needs {' and '.join(absent)}, which this machine has not"
    return None


def need() -> None:
    """Skips the test, or in CI fails it, where no broker can be had."""
    need_part(missing())


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """One test process at a time."""
    LIBRARIES.parent.mkdir(parents=True, exist_ok=True)
    with (LIBRARIES.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fetch() -> None:
    """Bring the broker's jars, once, also when several test processes ask for them."""
    with _locked():
        if any(LIBRARIES.glob("kafka_*.jar")):
            return
        subprocess.run(
            ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies",
             f"-DoutputDirectory={LIBRARIES}"],
            check=True, timeout=600, stdin=subprocess.DEVNULL,
        )  # fmt: skip


def _write(path: Path, properties: dict[str, str]) -> None:
    path.write_text("\n".join(f"{key}={value}" for key, value in properties.items()))


class Security(Protocol):
    """Listeners beside the plain one, and who may use them: tests/rig/secured_kafka.py."""

    users: Sequence[str]
    """As StorageTool takes them."""

    def add_to(self, properties: dict[str, str]) -> None:
        """What it changes in a broker's properties."""


class KafkaBroker:
    """One broker; its data and its port outlive a restart.

    With a proxy, a second listener stands behind it: who bootstraps from `proxied` speaks to the
    broker through the proxy only, and everybody else goes past it.
    """

    java: ClassVar[tuple[str, ...]] = (
        "-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", _WITH_CLASSES,
    )  # fmt: skip
    """Options of its Java."""

    def __init__(
        self, folder: Path, proxy: Proxy | None = None, security: Security | None = None
    ) -> None:
        fetch()
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        port, controller = free_port(), free_port()
        self.bootstrap = f"127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._admin: AdminClient | None = None
        properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(folder / "data"),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "2",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "auto.create.topics.enable": "false",
            "log.cleaner.backoff.ms": "300",
        }
        if security is not None:
            security.add_to(properties)
        self.proxied = self.bootstrap
        if proxy is not None:
            self.proxied = f"127.0.0.1:{proxy.port}"
            properties["inter.broker.listener.name"] = "PLAINTEXT"
            properties["listeners"] += f",PROXIED://127.0.0.1:{proxy.target}"
            properties["advertised.listeners"] += f",PROXIED://{self.proxied}"
            properties["listener.security.protocol.map"] += ",PROXIED:PLAINTEXT"
        self._properties = folder / "server.properties"
        _write(self._properties, properties)
        if security is not None:
            self._format(self._properties, security.users)
        else:
            shutil.copytree(self._formatted(properties), folder / "data")

    def _command(self, *arguments: str) -> list[str]:
        return ["java", *self.java, "-cp", f"{LIBRARIES}/*", *arguments]

    def _format(self, properties: Path, users: Sequence[str] = ()) -> None:
        """Give a broker's data its cluster, and the cluster its users."""
        subprocess.run(
            self._command("kafka.tools.StorageTool", "format", "-t", "abcdefghijklmnopqrstuv",
                          "-c", str(properties), *users),
            check=True, capture_output=True, timeout=60, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def _formatted(self, properties: dict[str, str]) -> Path:
        """`FORMATTED`, made if it is not there yet."""
        with _locked():
            if not FORMATTED.exists():
                begun = FORMATTED.with_name("begun")
                shutil.rmtree(begun, ignore_errors=True)  # of a process that was killed over it
                own = self.folder / "formatted.properties"
                _write(own, {**properties, "log.dirs": str(begun)})
                self._format(own)
                begun.rename(FORMATTED)
        return FORMATTED

    def start(self) -> None:
        """Start, and wait until it answers."""
        command = self._command("kafka.Kafka", str(self._properties))
        if _WITH_CLASSES in command and not CLASSES.exists():
            self._archive_classes(command)
        self._launch(command)

    def _archive_classes(self, command: list[str]) -> None:
        """Make `CLASSES`, of what a broker has loaded when it ends."""
        begun = CLASSES.with_name("begun.jsa")
        at = command.index(_WITH_CLASSES)
        with _locked():
            if CLASSES.exists():
                return
            self._launch([*command[:at], f"-XX:ArchiveClassesAtExit={begun}", *command[at + 1 :]])
            self.stop()
            if begun.exists():  # not if it had to be killed
                begun.rename(CLASSES)

    def _launch(self, command: list[str]) -> None:
        with (self.folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        wait_for(self._answers, 60, f"Kafka on {self.bootstrap} (see {self.folder}/broker.log)")

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, "the broker ended"
        try:
            return bool(self.admin.list_topics(timeout=1).brokers)
        except KafkaException:
            self._admin = None
            return False

    @property
    def admin(self) -> AdminClient:
        """A client for administration."""
        if self._admin is None:
            self._admin = AdminClient(
                {"bootstrap.servers": self.bootstrap, "log_level": 0, "socket.timeout.ms": 10_000}
            )
        return self._admin

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def stop(self) -> None:
        """Stop in order."""
        if self._process is not None and self._process.poll() is None:
            self._signal(signal.SIGCONT)
            self._signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._signal(signal.SIGKILL)
        self._process.wait(10)
        self._process = None

    def restart(self) -> None:
        """Stop and start, same port, same data."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: it answers nothing and resets nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def create_topic(
        self, name: str, partitions: int = 8, config: dict[str, str] | None = None
    ) -> None:
        """Create a topic and wait until it has its leaders."""
        topic = NewTopic(name, partitions, 1, config=config or {})
        self.admin.create_topics([topic])[name].result(30)

        def has_leaders() -> bool:
            found = self.admin.list_topics(name, timeout=10).topics[name].partitions
            return len(found) == partitions and all(p.leader == 1 for p in found.values())

        wait_for(has_leaders, 30, f"leaders of {name}")

    def add_partitions(self, name: str, total: int) -> None:
        """Grow a topic."""
        self.admin.create_partitions([NewPartitions(name, total)])[name].result(30)

    def delete_topic(self, name: str) -> None:
        """Delete a topic and wait until it is gone."""
        self.admin.delete_topics([name])[name].result(30)
        wait_for(
            lambda: name not in self.admin.list_topics(timeout=10).topics, 30, f"{name} to be gone"
        )

    def delete_records(self, name: str, partition: int, before: int) -> None:
        """Do what retention does."""
        target = TopicPartition(name, partition, before)
        for future in self.admin.delete_records([target]).values():
            future.result(30)

    def delete_group(self, group: str) -> None:
        """Forget a group's offsets."""
        self.admin.delete_consumer_groups([group])[group].result(30)

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """The group's offsets, by partition."""
        asked = [ConsumerGroupTopicPartitions(group)]

        def ask() -> list[TopicPartition] | None:
            try:
                answer = self.admin.list_consumer_group_offsets(asked)[group].result(30)
            except KafkaException as error:
                if error.args[0].code() in _COORDINATOR_STARTS:
                    return None
                raise
            return [*answer.topic_partitions, None]

        found = wait_for(ask, 30, f"the coordinator of {group}")[:-1]
        return {p.partition: p.offset for p in found if p.topic == topic and p.offset >= 0}

    def offsets(self, topic: str, partition: int) -> list[int]:
        """The offset of every record that a partition holds, those of aborted transactions too."""
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": "tests-looking",
             "isolation.level": "read_uncommitted", "enable.partition.eof": True}
        )  # fmt: skip
        try:
            consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
            found = []
            while True:
                message = consumer.poll(30)
                assert message is not None, f"{topic} cannot be read to its end"
                error = message.error()
                if error is None:
                    found.append(message.offset())
                elif error.code() == KafkaError._PARTITION_EOF:
                    return found
                else:
                    raise KafkaException(error)
        finally:
            consumer.close()

    def end_offsets(self, topic: str) -> dict[int, int]:
        """The end of each partition."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "tests-looking"})
        try:
            partitions = self.admin.list_topics(topic, timeout=10).topics[topic].partitions
            return {
                p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1]
                for p in partitions
            }
        finally:
            consumer.close()
