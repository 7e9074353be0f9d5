"""The sample receivers of examples/receivers, each run against the real daemon and against forgers.

One daemon sends to all of them: single events, and batches that it signs with two secrets.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from tests.acceptance.checks import wait_settled
from tests.rig import sample_matrix
from tests.rig.daemon import Daemon, config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.need import need
from tests.rig.postgres import Database, PostgresServer
from tests.rig.producer import events, publish
from tests.rig.sample_checks import CHECKS, NEXT, SECRETS, STRANGE, Dribble
from tests.rig.samples import RECEIVERS, SAMPLES, Running, Sample, build
from tests.rig.waiting import wait_for

SINGLE, BATCHED = range(20), range(100, 120)
"""The numbers of the events that go out one a request, and in batches."""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Running]]:
    """Every sample whose tools are here, built and listening."""
    folder = tmp_path_factory.mktemp("samples")
    here = [sample for sample in SAMPLES if sample.missing() is None]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(build, [sample.source for sample in here]))
    with ExitStack() as stack:
        running = []
        for sample in here:
            running.append(Running(sample, SECRETS, folder))
            stack.callback(running[-1].stop)
        for one in running:
            one.wait_ready()
        yield {one.sample.folder: one for one in running}


@pytest.fixture(scope="module")
def passed(request: pytest.FixtureRequest) -> Iterator[set[tuple[str, str]]]:
    """(sample, check) that held; with --matrix the table is written from it at the end."""
    held: set[tuple[str, str]] = set()
    yield held
    if request.config.getoption("--matrix"):
        sample_matrix.PATH.write_text(sample_matrix.render(SAMPLES, held))


@pytest.fixture(scope="module")
def dribbles(started: dict[str, Running]) -> dict[str, Dribble]:
    """At each sample a request that does not go on, while the others are made."""
    return {name: Dribble(running) for name, running in started.items()}


def endpoints_of(running: Running) -> list[dict[str, Any]]:
    """A sample's two: one event a request; batches while the secret is rotated."""
    name = running.sample.folder
    return [
        {"id": name, "url": running.url, "event_types": ["order.*"]},
        {"id": f"{name}-batch", "url": running.url, "event_types": ["invoice.*"],
         "batch": {"max_events": 8, "max_wait_seconds": 0.2},
         "secret": None, "secrets": [{"inline": STRANGE}, {"inline": NEXT}]},
    ]  # fmt: skip


@pytest.fixture(scope="module")
def recorded(
    started: dict[str, Running],
    dribbles: dict[str, Dribble],
    kafka: KafkaBroker,
    postgres_server: PostgresServer,
    migrated: Database,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Counter[tuple[str, str]]]:
    """All events sent to all samples by one daemon: (endpoint, outcome's reason) → attempts."""
    database = postgres_server.create_database(copy_of=migrated)
    topic = "samples"
    kafka.create_topic(topic, 2)
    endpoints = [one for running in started.values() for one in endpoints_of(running)]
    patient = {"timeout_seconds": 60}  # on a busy machine the shell's processes take a while
    config = config_for(
        kafka.bootstrap, database.dsn, topic, [{**patient, **one} for one in endpoints]
    )
    daemon = Daemon(tmp_path_factory.mktemp("daemon"), "samples", config).start()
    try:
        publish(kafka.bootstrap, topic, events(SINGLE, "order.created", partitions=2))
        publish(kafka.bootstrap, topic, events(BATCHED, "invoice.paid", partitions=2))
        wait_settled(kafka, database, topic)
        database.wait_until("SELECT count(*) FROM deliveries WHERE state = 1", 0)
        yield Counter(
            {
                (row["endpoint"], row["reason"]): row["n"]
                for row in database.fetch(
                    "SELECT e.name AS endpoint, r.name AS reason, count(*) AS n FROM attempts a "
                    "JOIN endpoints e ON e.id = a.endpoint_id JOIN reasons r ON r.id = a.reason "
                    "GROUP BY 1, 2"
                )
            }
        )
    finally:
        daemon.kill()


def find(started: dict[str, Running], sample: Sample) -> Running:
    """The running one; skips by name where its tools are missing, and in CI fails."""
    need(sample.missing())
    return started[sample.folder]


each_sample = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.folder)


@each_sample
@pytest.mark.parametrize(
    ("what", "endpoint", "numbers"),
    [("events", "{}", SINGLE), ("batches", "{}-batch", BATCHED)],
    ids=["events", "batches"],
)
def test_what_the_daemon_sends_is_accepted_at_once_and_handled_once(
    sample: Sample,
    what: str,
    endpoint: str,
    numbers: range,
    started: dict[str, Running],
    recorded: Counter[tuple[str, str]],
    passed: set[tuple[str, str]],
) -> None:
    running = find(started, sample)
    ids = {f"e{number}" for number in numbers}
    wait_for(lambda: ids <= set(running.processed()), 20, f"{sample.folder} has handled them")
    assert Counter(one for one in running.processed() if one in ids) == Counter(ids)
    name = endpoint.format(sample.folder)
    attempts = {key: n for key, n in recorded.items() if key[0] == name}
    assert attempts == {(name, "ok"): len(numbers)}
    passed.add((sample.folder, sample_matrix.FROM_THE_DAEMON[what]))


@pytest.mark.parametrize(
    ("sample", "check"),
    [
        pytest.param(sample, check, id=f"{sample.folder}-{check}")
        for sample in SAMPLES
        for check in CHECKS
        if check not in sample.lacks
    ],
)
def test_a_request(
    sample: Sample,
    check: str,
    started: dict[str, Running],
    dribbles: dict[str, Dribble],
    passed: set[tuple[str, str]],
) -> None:
    CHECKS[check](find(started, sample))
    passed.add((sample.folder, check))


@pytest.mark.parametrize(
    "sample",
    [sample for sample in SAMPLES if sample_matrix.SLOW_BODY not in sample.lacks],
    ids=lambda sample: sample.folder,
)
def test_a_body_that_does_not_come_is_given_up(
    sample: Sample,
    started: dict[str, Running],
    dribbles: dict[str, Dribble],
    passed: set[tuple[str, str]],
) -> None:
    find(started, sample)
    dribbles[sample.folder].assert_ended()
    passed.add((sample.folder, sample_matrix.SLOW_BODY))


def test_the_table_of_the_examples_has_the_samples_and_the_checks_that_are_run() -> None:
    table = dict(sample_matrix.committed())
    versions = table.pop("ran on")
    assert table == sample_matrix.expected(SAMPLES), "make matrix writes it anew"
    assert set(versions) == {sample.folder for sample in SAMPLES}
    assert all(re.fullmatch(r"\d+(\.\d+)+", version) for version in versions.values())


def test_every_folder_of_the_examples_is_a_sample_that_is_run() -> None:
    folders = {path.name for path in RECEIVERS.iterdir() if path.is_dir()}
    assert folders == {sample.folder for sample in SAMPLES}
