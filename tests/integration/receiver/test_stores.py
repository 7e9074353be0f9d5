"""Each event once, in every store: memory, SQLite, PostgreSQL, Redis. All of them really run."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import redis.asyncio

from dispatcherd.receiver import (
    AsyncRedisStore,
    LeaseLost,
    MemoryStore,
    Receiver,
    RedisStore,
    Request,
    SqlStore,
    StoreFull,
)
from dispatcherd.receiver.store import Claim, State
from dispatcherd.receiver.testing import RequestFactory
from tests.rig.need import need
from tests.rig.postgres import PostgresServer
from tests.rig.waiting import free_port, wait_for

DAY = 86_400.0


class RedisServer:
    """One redis-server on loopback."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._arguments = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1",
                           "--dir", str(folder), "--appendonly", "yes", "--appendfsync", "always",
                           "--save", ""]  # fmt: skip
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._arguments, stdout=subprocess.DEVNULL)
        wait_for(self.answers, 20, "redis-server")

    def answers(self) -> bool:
        try:
            return bool(self.client().ping())
        except redis.ConnectionError:
            return False

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)


def _need_redis() -> None:
    if shutil.which("redis-server") is None:
        why = "redis-server is missing: apt-get install -y redis-server"
        need(why)


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The shared server."""
    _need_redis()
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server to break."""
    _need_redis()
    server = RedisServer(tmp_path)
    yield server
    server.kill()


@pytest.fixture(scope="module")
def postgres(postgres_server: PostgresServer) -> str:
    return postgres_server.create_database().dsn


class Blocking:
    """An AsyncStore asked synchronously."""

    def __init__(self, server: RedisServer, **options: Any) -> None:
        self._server = server
        self._options = options

    def _ask(self, step: str, *arguments: Any) -> Any:
        async def ask() -> Any:
            async with redis.asyncio.Redis(port=self._server.port) as client:
                return await getattr(AsyncRedisStore(client, **self._options), step)(*arguments)

        return asyncio.run(ask())

    def claim(self, key: str, lease_seconds: float) -> Claim:
        answer: Claim = self._ask("claim", key, lease_seconds)
        return answer

    def complete(self, claim: Claim) -> bool:
        return bool(self._ask("complete", claim))

    def release(self, claim: Claim) -> bool:
        return bool(self._ask("release", claim))


Make = Callable[..., Any]


@pytest.fixture(params=["memory", "sqlite", "postgres", "redis", "redis.asyncio"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes a store of each kind, on ids of this test's own."""
    kind = request.param

    def sql(connect: Callable[[], Any], paramstyle: str, **options: Any) -> SqlStore:
        table = f"ids_{uuid.uuid4().hex[:8]}"
        store = SqlStore(connect, paramstyle=paramstyle, table=table, **options)
        store.create_table()
        store.create_table()  # harmless
        return store

    if kind == "memory":
        return MemoryStore
    if kind == "sqlite":
        path = tmp_path / "ids.db"
        return lambda **o: sql(
            lambda: sqlite3.connect(path, timeout=30, check_same_thread=False), "qmark", **o
        )
    if kind == "postgres":
        dsn = request.getfixturevalue("postgres")
        return lambda **o: sql(lambda: psycopg.connect(dsn), "format", **o)
    server = request.getfixturevalue("redis_server")
    if kind == "redis":
        return lambda **o: RedisStore(server.client(), prefix=f"{uuid.uuid4()}:", **o)
    return lambda **o: Blocking(server, prefix=f"{uuid.uuid4()}:", **o)


def state(store: Any, key: str, lease_seconds: float = DAY) -> State:
    found: State = store.claim(key, lease_seconds).state
    return found


def test_a_completed_id_is_done_and_a_released_one_is_free(make: Make) -> None:
    store = make()
    first = store.claim("a", DAY)
    assert (first.state, state(store, "a"), state(store, "b")) == (
        State.GRANTED, State.BUSY, State.GRANTED,
    )  # fmt: skip
    assert store.complete(first)
    assert state(store, "a") is State.DONE
    second = store.claim("c", DAY)
    assert store.release(second)
    assert state(store, "c") is State.GRANTED


def test_busy_says_for_how_long_at_most(make: Make) -> None:
    store = make()
    store.claim("a", 100)
    busy = store.claim("a", 100)
    assert busy.state is State.BUSY and 0 < busy.retry_after_seconds <= 100


def test_a_lease_that_ran_out_is_someone_elses(make: Make) -> None:
    store = make()
    lost = store.claim("a", 0.05)
    wait_for(lambda: state(store, "a") is State.GRANTED, 10, "the lease ends")
    # Whoever had it before can neither complete nor release it now.
    assert not store.complete(lost)
    assert not store.release(lost)
    assert state(store, "a") is State.BUSY


def test_a_lease_that_ran_out_and_that_nobody_took_still_completes(make: Make) -> None:
    store = make()
    late = store.claim("a", 0.05)
    probe = store.claim("b", 0.05)
    wait_for(lambda: state(store, "b") is State.GRANTED, 10, "leases of that time end")
    assert probe.state is State.GRANTED
    assert store.complete(late)
    assert state(store, "a") is State.DONE


def test_a_completed_id_is_forgotten_in_the_end(make: Make) -> None:
    store = make(retention_seconds=0.05)
    assert store.complete(store.claim("a", DAY))
    wait_for(lambda: state(store, "a") is State.GRANTED, 10, "the id is forgotten")


def test_settling_again_after_a_lost_answer_changes_nothing(make: Make) -> None:
    store = make()
    claim = store.claim("a", DAY)
    assert store.complete(claim)
    if not isinstance(store, MemoryStore):  # it has no answers to lose
        assert store.complete(claim)
    assert not store.release(claim)
    assert state(store, "a") is State.DONE


def test_of_many_claims_at_once_exactly_one_is_granted(make: Make) -> None:
    store = make()
    for round_ in range(5):
        claims: list[Claim] = []
        start = threading.Barrier(8)

        def claim(key: str, claims: list[Claim] = claims, start: Any = start) -> None:
            start.wait(30)
            claims.append(store.claim(key, DAY))

        threads = [threading.Thread(target=claim, args=(f"k{round_}",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        states = sorted(claim.state.value for claim in claims)
        assert states == ["busy"] * 7 + ["granted"]


def test_a_process_that_dies_with_a_claim_loses_it_and_not_the_event(
    tmp_path: Path, signed_request: RequestFactory
) -> None:
    """The real thing: SIGKILL inside a handler, then the sender's next attempt."""
    path = tmp_path / "ids.db"
    dying = f"""
import os, signal, sqlite3, sys
from dispatcherd.receiver import Receiver, Request, SqlStore
store = SqlStore(lambda: sqlite3.connect({str(path)!r}, check_same_thread=False))
store.create_table()
webhook = Receiver([{signed_request.secret!r}], store=store, lease_seconds=0.2)
webhook.on("*")(lambda event: os.kill(os.getpid(), signal.SIGKILL))
headers, body = eval(sys.stdin.read())
webhook.handle(Request(headers, body))
"""
    request = signed_request()
    told = repr((request.headers, request.body)).encode()
    died = subprocess.run([sys.executable, "-c", dying], input=told, timeout=60, check=False)
    assert died.returncode == -9
    store = SqlStore(lambda: sqlite3.connect(path, check_same_thread=False))
    webhook = Receiver([signed_request.secret], store=store)
    seen: list[str] = []
    webhook.on("*")(lambda event: seen.append(event.id))
    taken = Request(request.headers, request.body)
    wait_for(lambda: webhook.handle(taken).status == 200, 20, "the lease ends")
    assert seen == [request.id]
    assert webhook.handle(taken).status == 200 and len(seen) == 1
    store.close()


# --- SQL -------------------------------------------------------------------------------------


def test_work_and_its_completion_are_one_transaction(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    store = SqlStore(lambda: sqlite3.connect(path, check_same_thread=False))
    store.create_table()
    with closing(sqlite3.connect(path)) as app:
        app.execute("CREATE TABLE orders (id TEXT)")
        claim = store.claim("a", 0.01)
        app.execute("INSERT INTO orders VALUES ('kept')")
        store.complete_with(app, claim)
        app.commit()
        assert state(store, "a") is State.DONE
        lost = store.claim("b", 0.01)
        wait_for(lambda: state(store, "b") is State.GRANTED, 10, "the lease ends")
        app.execute("INSERT INTO orders VALUES ('twice')")
        with pytest.raises(LeaseLost, match="roll back"):
            store.complete_with(app, lost)
        app.rollback()
        assert app.execute("SELECT id FROM orders").fetchall() == [("kept",)]


def test_a_handler_completes_in_its_own_transaction(
    postgres: str, signed_request: RequestFactory
) -> None:
    table = f"ids_{uuid.uuid4().hex[:8]}"
    store = SqlStore(lambda: psycopg.connect(postgres), paramstyle="format", table=table)
    store.create_table()
    webhook = Receiver([signed_request.secret], store=store)

    @webhook.on("*")
    def handler(event: Any) -> None:
        with psycopg.connect(postgres) as app:
            app.execute("CREATE TABLE IF NOT EXISTS done (id text)")
            app.execute("INSERT INTO done VALUES (%s)", (event.id,))
            store.complete_with(app, event.claim)

    request = signed_request()
    for _ in range(2):
        assert webhook.handle(Request(request.headers, request.body)).status == 200
    with psycopg.connect(postgres) as app:
        rows = app.execute("SELECT id FROM done").fetchall()
    assert rows == [(request.id,)]
    store.close()


def test_connections_that_died_in_the_pool_are_replaced(postgres: str) -> None:
    table = f"ids_{uuid.uuid4().hex[:8]}"
    store = SqlStore(lambda: psycopg.connect(postgres), paramstyle="format", table=table)
    store.create_table()
    claim = store.claim("a", DAY)
    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
    assert store.complete(claim)
    assert state(store, "a") is State.DONE
    store.close()


def test_rows_whose_time_has_passed_are_deleted(tmp_path: Path) -> None:
    now = [1_000.0]
    path = tmp_path / "ids.db"
    store = SqlStore(
        lambda: sqlite3.connect(path, check_same_thread=False),
        retention_seconds=10,
        now=lambda: now[0],
    )
    store.create_table()
    for n in range(50):
        store.complete(store.claim(f"k{n}", 5))
    now[0] += 100
    store.claim("last", 5)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT id FROM webhook_ids").fetchall() == [("last",)]
    store.close()


@pytest.mark.parametrize("table", ["", "a b", "a;b", 'a"', "a.b.c", "1a"])
def test_a_table_name_that_is_none_is_refused(table: str) -> None:
    with pytest.raises(ValueError, match="is no table name"):
        SqlStore(lambda: sqlite3.connect(":memory:"), table=table)
    with pytest.raises(ValueError, match="paramstyle"):
        SqlStore(lambda: sqlite3.connect(":memory:"), paramstyle="pyformat")


# --- memory and Redis ------------------------------------------------------------------------


def test_memory_is_bounded_and_never_drops_work_in_progress() -> None:
    store = MemoryStore(max_items=3)
    held = [store.claim(f"held{n}", DAY) for n in range(2)]
    for n in range(100):
        assert store.complete(store.claim(f"done{n}", DAY))
        assert len(store) <= 3
    assert state(store, "done99") is State.DONE
    assert [state(store, claim.key) for claim in held] == [State.BUSY] * 2
    store.claim("third", DAY)
    with pytest.raises(StoreFull, match="all 3 places"):
        store.claim("fourth", DAY)


def test_memory_makes_room_from_leases_that_ran_out() -> None:
    now = [0.0]
    store = MemoryStore(max_items=2, now=lambda: now[0])
    for key in "ab":
        store.claim(key, 5)
    now[0] = 6
    assert [state(store, key) for key in "cd"] == [State.GRANTED] * 2
    assert len(store) == 2


def test_while_redis_is_down_nothing_is_accepted_and_afterwards_all_is(
    own_redis: RedisServer, signed_request: RequestFactory
) -> None:
    server = own_redis
    webhook = Receiver([signed_request.secret], store=RedisStore(server.client()))
    seen: list[str] = []
    webhook.on("*")(lambda event: seen.append(event.id))
    done, later = (signed_request() for _ in range(2))
    taken = [Request(request.headers, request.body) for request in (done, later)]
    assert webhook.handle(taken[0]).status == 200
    server.kill()
    assert [webhook.handle(one).status for one in taken] == [503, 503]
    server.start()
    assert [webhook.handle(one).status for one in taken] == [200, 200]
    assert seen == [done.id, later.id]
