"""The commands on the database, as processes, on a real Postgres; rows made by SQL."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dispatcherd import __version__
from tests.rig.commands import Commands
from tests.rig.postgres import Database, PostgresServer
from tests.rig.proxy import Proxy
from tests.rig.waiting import free_port

LONG_ID = "evt_" + "0123456789abcdef" * 15
"""244 characters: three lines of an 80-column terminal."""


@pytest.fixture
def database(postgres_server: PostgresServer) -> Database:
    return postgres_server.create_database()


@pytest.fixture
def commands(database: Database, tmp_path: Path) -> Callable[..., Commands]:
    def make(**postgres: Any) -> Commands:
        config = {"kafka": {"topics": ["t"]}, "postgres": {"dsn": database.dsn, **postgres}}
        return Commands(tmp_path, config)

    return make


@pytest.fixture
def filled(commands: Callable[..., Commands], database: Database) -> Commands:
    """Migrated, with deliveries owed and dead at two endpoints, one of them removed since."""
    made = commands()
    made.ok("migrate")
    database.execute(
        "INSERT INTO topics (name, partitions, id_key) VALUES ('t', 2, '\\x00');"
        "INSERT INTO event_types (name) VALUES ('order.created'), ('user.created');"
        "INSERT INTO endpoints (name, spec, removed_at) VALUES "
        """('billing', '{"url": "https://billing.example.com/hook"}', NULL),"""
        """('crm', '{"url": "https://crm.example.com/hook"}', NULL),"""
        """('old', '{"url": "https://old.example.com/hook"}', now())"""
    )
    rows = [
        # offset, id, type, endpoint, state, reason (numbers as stored), status, attempts
        (1, "evt_1", 1, 1, 1, 5, 500, 3),
        (2, "evt_2", 1, 1, 2, 5, 500, 10),
        (3, "evt_3", 2, 1, 2, 7, 410, 1),
        (4, LONG_ID, 2, 2, 1, 10, 0, 1),
        (5, "evt_5", 1, 3, 2, 44, 0, 0),
    ]
    for offset, name, kind, endpoint, state, reason, status, attempts in rows:
        body = "INSERT INTO bodies VALUES (1, 0, $1, $2, $3, '1', '', 1, '[]', '{}')"
        database.execute(body, offset, name, kind)
        database.execute(
            'INSERT INTO deliveries (topic_id, partition, "offset", endpoint_id, state, reason, '
            "status, attempts, due) VALUES (1, 0, $1, $2, $3, $4, $5, $6, '2026-01-02 03:04:05Z')",
            offset, endpoint, state, reason, status, attempts,
        )  # fmt: skip
    return made


def requested(database: Database) -> dict[str, int]:
    """Webhook id → what is asked of it."""
    rows = database.fetch(
        "SELECT webhook_id, request FROM deliveries JOIN bodies "
        'USING (topic_id, partition, "offset") '
        "WHERE request IS NOT NULL AND request_no IS NOT NULL"
    )
    return {row["webhook_id"]: row["request"] for row in rows}


# --- migrate ---------------------------------------------------------------------------------


def test_migrate_run_twice_does_nothing_the_second_time(
    commands: Callable[..., Commands], database: Database
) -> None:
    first, second = commands().ok("migrate"), commands().ok("migrate")
    assert "applied 0001 initial" in first
    assert "applied" not in second
    assert second.endswith("; 0 new days\n")
    assert database.value("SELECT count(*) FROM reasons") > 20


def test_four_migrations_at_once_apply_each_file_once(
    commands: Callable[..., Commands], database: Database
) -> None:
    mine = commands()
    started = [mine.start("migrate") for _ in range(4)]
    ended = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0] * 4, ended
    applied = b"".join(stdout for stdout, _ in ended).count(b"applied 0001 ")
    assert applied == 1
    numbers = [row["number"] for row in database.fetch("SELECT number FROM schema_migrations")]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("command", ["migrate", "deliveries", "run"])
def test_a_schema_newer_than_the_code_is_refused_with_the_remedy(
    commands: Callable[..., Commands], database: Database, command: str
) -> None:
    commands().ok("migrate")
    tables = database.value("SELECT count(*) FROM pg_tables WHERE schemaname = 'dispatcherd'")
    database.execute("INSERT INTO schema_migrations (number, name) VALUES (9999, 'later')")
    refused = commands().run(command)
    assert refused.returncode == 1
    assert "version 9999, newer than" in refused.stderr
    assert "Install the dispatcherd that migrated it" in refused.stderr
    assert tables == database.value(
        "SELECT count(*) FROM pg_tables WHERE schemaname = 'dispatcherd'"
    )


@pytest.mark.parametrize("command", ["run", "deliveries", "endpoints list", "retry --all"])
def test_a_schema_older_than_the_code_is_refused_naming_migrate(
    commands: Callable[..., Commands], command: str
) -> None:
    refused = commands().run(*command.split())
    assert refused.returncode == 1
    assert "version 0" in refused.stderr
    assert "Run: dispatcherd migrate" in refused.stderr


def test_the_schema_may_have_a_name_that_sql_uses(commands: Callable[..., Commands]) -> None:
    mine = commands(schema_name="user")
    assert "schema user is at version" in mine.ok("migrate")
    assert "applied" not in mine.ok("migrate")
    assert mine.ok("deliveries") == "0 owed, 0 dead letters\n"


def test_a_role_that_may_not_migrate_is_told_so(
    commands: Callable[..., Commands], database: Database
) -> None:
    database.execute("DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN")
    refused = commands(dsn=database.dsn.replace("postgres@", "reader@")).run("migrate")
    assert refused.returncode == 1
    assert "permission denied" in refused.stderr


# --- a database that is not there ------------------------------------------------------------


def test_a_database_that_refuses_is_an_error_in_words(commands: Callable[..., Commands]) -> None:
    failed = commands(dsn=f"postgresql://u@127.0.0.1:{free_port()}/x").run("deliveries")
    assert failed.returncode == 1
    assert failed.stderr.startswith("dispatcherd: Postgres: ConnectionRefusedError")
    assert "Check that it runs, and postgres.dsn: postgresql://u@127.0.0.1:" in failed.stderr


def test_a_database_that_does_not_exist_is_an_error_in_words(
    commands: Callable[..., Commands], postgres_server: PostgresServer
) -> None:
    failed = commands(dsn=postgres_server.dsn("nowhere")).run("migrate")
    assert failed.returncode == 1
    assert 'database "nowhere" does not exist' in failed.stderr


@pytest.mark.parametrize("command", ["migrate", "deliveries", "retry --all", "endpoints list"])
def test_a_database_that_does_not_answer_is_given_up(
    commands: Callable[..., Commands], postgres_server: PostgresServer, command: str
) -> None:
    proxy = Proxy(postgres_server.port)
    try:
        proxy.go_dark()
        dsn = postgres_server.dsn().replace(f":{postgres_server.port}/", f":{proxy.port}/")
        failed = commands(dsn=dsn, connect_timeout_seconds=1).run(*command.split())
        assert failed.returncode == 1
        assert failed.stderr.startswith("dispatcherd: Postgres: TimeoutError")
    finally:
        proxy.stop()


def test_the_daemon_gives_up_on_parts_that_do_not_come_with_the_reason(
    commands: Callable[..., Commands], tmp_path: Path, database: Database
) -> None:
    commands().ok("migrate")
    gone = f"127.0.0.1:{free_port()}"
    for kafka, dsn, part in (
        (gone, database.dsn, "Kafka"),
        (gone, f"postgresql://u@{gone}/x", "Postgres"),
    ):
        config = {
            "kafka": {"topics": ["t"], "bootstrap_servers": [kafka]},
            "postgres": {"dsn": dsn},
            "admin": {"port": 0},
            "start_timeout_seconds": 1,
        }
        failed = Commands(tmp_path / part, config).run("run")
        assert failed.returncode == 1
        last = json.loads(failed.stderr.splitlines()[-1])
        assert last["event"] == "failed"
        assert part in last["error"]


# --- deliveries ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ("", {"evt_1", "evt_2", "evt_3", LONG_ID, "evt_5"}),
        ("--state owed", {"evt_1", LONG_ID}),
        ("--state dead", {"evt_2", "evt_3", "evt_5"}),
        ("--endpoint billing", {"evt_1", "evt_2", "evt_3"}),
        ("--endpoint billing --state dead --type user.created", {"evt_3"}),
        ("--type user.created", {"evt_3", LONG_ID}),
        ("--id evt_2", {"evt_2"}),
        ("--id evt_2 --endpoint crm", set()),
        ("--type no.such", set()),
        ("--endpoint old", {"evt_5"}),
    ],
)
def test_deliveries_shows_what_every_filter_admits(
    filled: Commands, filters: str, ids: set[str]
) -> None:
    rows = [
        json.loads(line)
        for line in filled.ok("deliveries", "--json", *filters.split()).splitlines()
    ]
    assert {row["id"] for row in rows} == ids
    table = filled.ok("deliveries", *filters.split()).splitlines()
    assert {line.split()[0] for line in table[1:-1]} == ids
    owed = sum(row["state"] == "owed" for row in rows)
    assert table[-1].startswith(f"{owed} owed, {len(rows) - owed} dead letter")


def test_deliveries_tells_machines_everything(filled: Commands) -> None:
    (row,) = map(json.loads, filled.ok("deliveries", "--json", "--id", "evt_1").splitlines())
    assert row.items() >= {
        "id": "evt_1", "endpoint": "billing", "type": "order.created", "state": "owed",
        "reason": "status_server_error", "status": 500, "attempts": 3,
        "due": "2026-01-02T03:04:05+00:00", "topic": "t", "partition": 0, "offset": 1,
        "request": None,
    }.items()  # fmt: skip


def test_deliveries_says_what_its_limit_hides(filled: Commands) -> None:
    shown = filled.ok("deliveries", "--limit", "2").splitlines()
    assert len(shown) == 4
    assert shown[-1] == "2 owed, 3 dead letters; 2 shown, --limit 5 shows all"


@pytest.mark.parametrize("columns", [40, 80, 300])
def test_no_id_is_cut_on_a_terminal(filled: Commands, columns: int) -> None:
    shown = filled.on_terminal("deliveries", columns=columns)
    words = shown.split()
    for name in ("evt_1", "evt_2", "evt_3", LONG_ID, "evt_5"):
        assert name in words
    for word in ("billing", "order.created", "status_server_error", "endpoint_removed", "410"):
        assert word in words
    assert "…" not in shown
    assert "2 owed, 3 dead letters" in shown
    if columns == 80:
        assert all(len(line) <= 80 for line in shown.splitlines() if LONG_ID not in line)


def test_an_endpoint_that_never_was_is_an_error_and_not_an_empty_answer(filled: Commands) -> None:
    for command in ("deliveries", "retry"):
        failed = filled.run(command, "--endpoint", "biling")
        assert failed.returncode == 1
        assert "no endpoint 'biling' is registered" in failed.stderr
        assert "dispatcherd endpoints list" in failed.stderr


def test_a_wrong_option_is_exit_code_2(filled: Commands) -> None:
    assert filled.run("deliveries", "--state", "lost").returncode == 2
    assert filled.run("deliveries", "--limit", "0").returncode == 2


# --- retry -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ("--all", {"evt_2", "evt_3"}),
        ("--all --state all", {"evt_1", "evt_2", "evt_3", LONG_ID}),
        ("--all --state owed", {"evt_1", LONG_ID}),
        ("--endpoint billing", {"evt_2", "evt_3"}),
        ("--endpoint crm", set()),
        ("--endpoint crm --state owed", {LONG_ID}),
        ("--type user.created", {"evt_3"}),
        ("--id evt_1", {"evt_1"}),
        ("--id evt_1 --state dead", set()),
        ("--id evt_2 --endpoint billing", {"evt_2"}),
    ],
)
def test_retry_asks_for_what_its_filters_admit(
    filled: Commands, database: Database, filters: str, ids: set[str]
) -> None:
    told = json.loads(filled.ok("retry", "--json", *filters.split()))
    assert requested(database) == dict.fromkeys(ids, 1)
    assert told["matched"] == len(ids)
    assert told["daemons"] == 0


def test_retry_says_that_no_daemon_runs_and_what_is_left_alone(filled: Commands) -> None:
    assert filled.ok("retry", "--all").splitlines() == [
        "2 deliveries due now",
        "1 more were left alone: their endpoint is removed, and they can only be discarded",
        "no daemon is running: it takes effect when one starts",
    ]
    assert filled.ok("retry", "--id", "evt_2").startswith("1 delivery due now\n")


def test_discard_takes_the_dead_letters_of_a_removed_endpoint_too(
    filled: Commands, database: Database
) -> None:
    assert filled.ok("retry", "--all", "--discard").startswith("3 deliveries will be discarded\n")
    assert requested(database) == {"evt_2": 2, "evt_3": 2, "evt_5": 2}
    assert "(discard asked for)" in filled.ok("deliveries", "--id", "evt_5")


@pytest.mark.parametrize("arguments", ["", "--state owed", "--discard", "--all --endpoint billing"])
def test_retry_without_saying_which_asks_for_nothing(
    filled: Commands, database: Database, arguments: str
) -> None:
    refused = filled.run("retry", *arguments.split())
    assert refused.returncode == 2
    assert "--endpoint, --type or --id" in refused.stderr
    assert requested(database) == {}


# --- endpoints, version ----------------------------------------------------------------------


def test_endpoints_are_listed_with_what_is_owed_to_each(filled: Commands) -> None:
    rows = {}
    for line in filled.ok("endpoints", "list", "--json").splitlines():
        row = json.loads(line)
        rows[row["endpoint"]] = (row["url"], row["owed"], row["dead"])
    assert rows == {
        "billing": ("https://billing.example.com/hook", 1, 2),
        "crm": ("https://crm.example.com/hook", 1, 0),
    }
    shown = filled.on_terminal("endpoints", "list")
    assert "https://billing.example.com/hook" in shown
    assert shown.splitlines()[-1] == "2 endpoints"


def test_an_endpoint_is_removed_once(filled: Commands, database: Database) -> None:
    assert filled.ok("endpoints", "remove", "crm").startswith("removed crm")
    assert database.value("SELECT removed_at IS NOT NULL FROM endpoints WHERE name = 'crm'")
    again = filled.run("endpoints", "remove", "crm")
    assert again.returncode == 1
    assert "no endpoint 'crm' is registered" in again.stderr
    assert "crm" not in filled.ok("endpoints", "list")


def test_version_names_the_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dispatcherd", "version"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, f"dispatcherd {__version__}\n")
