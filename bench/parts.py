"""The real parts that the bench runs against: Kafka, Postgres, the sink; started when first asked.

Invariant: Postgres writes as durably as it does out of the box (fsync and synchronous_commit on),
the broker is compiled by the JVM as in production; everything lies in one folder that goes at the
end. Leaves out: who is measured (subjects) and with what (load).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from bench import cpu
from bench.native import Missing, Sink
from tests.rig import kafka as kafka_rig
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database, PostgresServer

_SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB", "max_connections": "100"}
"""As a database server of this size is set up; nothing that trades durability for speed."""


class BenchBroker(KafkaBroker):
    """The tests' broker with the heap and the compiler of a production one."""

    java = ("-Xms1g", "-Xmx1g", "-XX:+UseG1GC")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid


class BenchPostgres(PostgresServer):
    """The tests' server, durable, with room in memory."""

    def __init__(self, settings: dict[str, str]) -> None:
        super().__init__(durable=True)
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{key} = {value}\n" for key, value in settings.items())

    def start(self) -> None:
        super().start()
        self.pid = int((self._data / "postmaster.pid").read_text().split()[0])

    def last_words(self) -> str:
        """The end of its log."""
        return (self._data / "server.log").read_text(errors="replace")[-1500:]


class Parts:
    """A context: what was started is stopped, and the folder removed."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dispatcherd-bench-"))
        self._ending = ExitStack()
        self._topics = 0
        self._databases = 0

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @cached_property
    def kafka(self) -> BenchBroker:
        """The broker."""
        why = kafka_rig.missing()
        if why is not None:
            raise Missing(why)
        broker = BenchBroker(self.folder / "kafka")
        broker.start()
        self._ending.callback(broker.stop)
        return broker

    @cached_property
    def postgres(self) -> BenchPostgres:
        """The server."""
        server = BenchPostgres(_SETTINGS)
        self._ending.callback(server.remove)
        server.start()
        return server

    @cached_property
    def sink(self) -> Sink:
        """The sink."""
        sink = Sink()
        self._ending.callback(sink.close)
        return sink

    @cached_property
    def tls_sink(self) -> Sink:
        """A sink that speaks TLS, with the certificate at `certificate`."""
        key = self.folder / "key.pem"
        names = ",".join(f"IP:127.0.1.{n + 1}" for n in range(100))
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "30", "-subj", "/CN=bench", "-addext",
             f"subjectAltName=IP:127.0.0.1,{names}", "-keyout", str(key), "-out",
             str(self.certificate)],
            check=True, capture_output=True, timeout=30,
        )  # fmt: skip
        sink = Sink(tls=(self.certificate, key))
        self._ending.callback(sink.close)
        return sink

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"

    def topic(self, partitions: int = 8) -> str:
        """A new topic's name; the topic exists."""
        self._topics += 1
        name = f"bench-{self._topics}"
        self.kafka.create_topic(name, partitions)
        return name

    @cached_property
    def _template(self) -> str:
        """A database with the daemon's schema, migrated once and copied from then on."""
        database = self.postgres.create_database()
        path = self.folder / "migrate.yaml"
        path.write_text(yaml.safe_dump({"postgres": {"dsn": database.dsn}}))
        done = subprocess.run(
            [sys.executable, "-m", "dispatcherd", "migrate", "--config", str(path)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return database.dsn.rsplit("/", 1)[1]

    def database(self) -> Database:
        """A fresh database with the schema of today."""
        template = self._template
        self._databases += 1
        name = f"bench{self._databases}"
        self._server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return Database(self.postgres.dsn(name))

    def drop(self, database: Database) -> None:
        """Remove a database, so that the next run finds the disk as this one did."""
        name = database.dsn.rsplit("/", 1)[1]
        if "postgres" in self.ended():
            return  # whatever is wrong is being said already
        self._server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        self._server.execute("CHECKPOINT")

    def ended(self) -> dict[str, str]:
        """Parts that were started and run no more, with their last words: no run can be right."""
        words = {"postgres": lambda: self.postgres.last_words()}
        return {
            name: words.get(name, lambda: "")()
            for name in ("kafka", "postgres", "sink")
            if name in self.__dict__ and not Path(f"/proc/{getattr(self, name).pid}").exists()
        }

    @property
    def _server(self) -> Database:
        return Database(self.postgres.dsn())

    def pids(self) -> list[int]:
        """The processes of all parts; starts those that have not been."""
        postgres = self.postgres.pid
        return [self.kafka.pid, self.sink.pid, postgres, *cpu.children(postgres)]

    def clocks(self) -> dict[str, Any]:
        """The CPU clocks of the parts that are not measured for their own sake."""
        return {
            "postgres": lambda: cpu.family_seconds(self.postgres.pid),
            "kafka": lambda: cpu.process_seconds(self.kafka.pid),
            "sink": lambda: cpu.process_seconds(self.sink.pid),
        }
