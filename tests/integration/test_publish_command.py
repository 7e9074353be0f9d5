"""`dispatcherd publish` as a process, on a real broker: all of it arrives, or none was sent."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.rig.commands import Commands
from tests.rig.kafka import KafkaBroker
from tests.rig.proxy import Proxy
from tests.rig.waiting import free_port, wait_for

EVENT = '{"type":"order.created","id":"e%d","data":{"n":%d}}'


@pytest.fixture
def topic(kafka: KafkaBroker, request: pytest.FixtureRequest) -> str:
    name = f"t{abs(hash(request.node.nodeid)) % 10**10}"
    kafka.create_topic(name, 2)
    return name


@pytest.fixture
def commands(kafka: KafkaBroker, tmp_path: Path) -> Commands:
    return with_kafka(tmp_path, bootstrap_servers=[kafka.bootstrap])


def with_kafka(tmp_path: Path, **kafka: Any) -> Commands:
    return Commands(tmp_path, {"kafka": {"topics": ["unused"], **kafka}})


def records(kafka: KafkaBroker, topic: str) -> list[tuple[bytes | None, bytes]]:
    """(key, value) of every record of the topic."""
    ends = kafka.end_offsets(topic)
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "x", "log_level": 0})
    found: list[tuple[bytes | None, bytes]] = []
    try:
        consumer.assign([TopicPartition(topic, p, 0) for p in ends])

        def all_read() -> bool:
            found.extend((m.key(), m.value()) for m in consumer.consume(10_000, 0.5))
            return len(found) >= sum(ends.values())

        wait_for(all_read, 30, f"{ends} of {topic}")
    finally:
        consumer.close()
    return found


def test_events_from_arguments_arrive_as_they_were_given(
    commands: Commands, kafka: KafkaBroker, topic: str
) -> None:
    given = [EVENT % (1, 1), '{ "event" : "user.created", "data" : {"name": "Zoë"} }']
    said = commands.ok("publish", "--topic", topic, *given)
    assert said == f"published 2 events to {topic}\n"
    assert {value for _, value in records(kafka, topic)} == {text.encode() for text in given}


def test_every_line_of_a_file_arrives_once_with_the_key(
    commands: Commands, kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    lines = [EVENT % (n, n) for n in range(3_500)]
    file = tmp_path / "events.jsonl"
    file.write_text("\n\n".join(lines) + "\n   \n")
    said = commands.ok("publish", "--topic", topic, "--file", str(file), "--key", "acme")
    assert said == f"published 3500 events to {topic}\n"
    found = records(kafka, topic)
    assert [value.decode() for _, value in found] == lines  # one key: one partition, in order
    assert {key for key, _ in found} == {b"acme"}


def test_stdin_and_arguments_go_together(
    commands: Commands, kafka: KafkaBroker, topic: str
) -> None:
    given = "\r\n".join(EVENT % (n, n) for n in range(3)).encode()
    commands.ok("publish", "--topic", topic, "--file", "-", EVENT % (9, 9), stdin=given)
    ids = sorted(json.loads(value)["id"] for _, value in records(kafka, topic))
    assert ids == ["e0", "e1", "e2", "e9"]


def test_a_pipe_that_can_be_read_only_once_is_checked_and_sent(
    commands: Commands, kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(EVENT % (1, 1) + "\n",))
    writer.start()
    commands.ok("publish", "--topic", topic, "--file", str(pipe))
    writer.join(10)
    assert len(records(kafka, topic)) == 1


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"{", "not_json"),
        (b"[1]", "not_an_object"),
        (b'{"data":{}}', "no_type"),
        (b'{"type":"order created"}', "invalid_type"),
        (b'{"type":"a.b","x":"\xff"}', "not_utf8"),
        (b'{"type":"a.b","x":"' + b"y" * 1_048_576 + b'"}', "too_large"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_sent(
    commands: Commands, kafka: KafkaBroker, topic: str, bad: bytes, why: str
) -> None:
    given = b"".join(b"%s\n" % (EVENT % (n, n)).encode() for n in range(2_000)) + bad + b"\n"
    refused = commands.run("publish", "--topic", topic, "--file", "-", stdin=given)
    assert refused.returncode == 2
    assert f"line 2001 of stdin is no event ({why}): " in refused.stderr
    assert "nothing was sent" in refused.stderr
    assert set(kafka.end_offsets(topic).values()) == {0}


def test_an_event_as_large_as_the_daemon_takes_is_left_to_the_brokers_own_limit(
    commands: Commands, kafka: KafkaBroker, topic: str
) -> None:
    frame = '{"type":"a.b","x":"%s"}'
    largest = frame % ("y" * (1_048_576 - len(frame) + 2))
    refused = commands.run("publish", "--topic", topic, "--file", "-", stdin=largest.encode())
    assert refused.returncode == 1
    assert "MessageSizeTooLargeError" in refused.stderr
    kafka.create_topic(f"{topic}large", 1, {"max.message.bytes": "2000000"})
    commands.ok("publish", "--topic", f"{topic}large", "--file", "-", stdin=largest.encode())


@pytest.mark.parametrize("arguments", [[], ["--file", "-"], ["--file", "/nonexistent"]])
def test_nothing_to_publish_is_a_mistake_of_the_command_line(
    commands: Commands, arguments: list[str]
) -> None:
    assert commands.run("publish", "--topic", "t", *arguments).returncode == 2


def test_a_topic_that_does_not_exist_is_named(commands: Commands, kafka: KafkaBroker) -> None:
    failed = commands.run("publish", "--topic", "nowhere", EVENT % (1, 1))
    assert failed.returncode == 1
    assert f"Kafka at {kafka.bootstrap} shows no topic 'nowhere'. Create it" in failed.stderr


def test_bootstrap_takes_the_place_of_the_configured_brokers(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    mine = with_kafka(tmp_path, bootstrap_servers=["127.0.0.1:1"])
    mine.ok("publish", "--topic", topic, "--bootstrap", kafka.bootstrap, EVENT % (1, 1))
    refused = mine.run("publish", "--topic", topic, "--bootstrap", "broker", EVENT % (1, 1))
    assert refused.returncode == 2
    assert "kafka.bootstrap_servers[0] = 'broker': not host:port" in refused.stderr


def test_a_broker_that_is_not_there_is_an_error_in_words(tmp_path: Path) -> None:
    port = free_port()
    mine = with_kafka(tmp_path, bootstrap_servers=[f"127.0.0.1:{port}"])
    failed = mine.run("publish", "--topic", "t", EVENT % (1, 1))
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"dispatcherd: Kafka at 127.0.0.1:{port}: ")
    assert "kafka.bootstrap_servers" in failed.stderr


def test_a_broker_that_does_not_answer_is_given_up(kafka: KafkaBroker, tmp_path: Path) -> None:
    proxy = Proxy(int(kafka.bootstrap.rpartition(":")[2]))
    try:
        proxy.go_dark()
        mine = with_kafka(
            tmp_path,
            bootstrap_servers=[f"127.0.0.1:{proxy.port}"],
            request_timeout_seconds=2,
            rebalance_timeout_seconds=1,
        )
        failed = mine.run("publish", "--topic", "t", EVENT % (1, 1), timeout_seconds=50)
        assert failed.returncode == 1
        assert failed.stderr.startswith(f"dispatcherd: Kafka at 127.0.0.1:{proxy.port}")
    finally:
        proxy.stop()


@pytest.fixture
def own_broker(kafka: KafkaBroker, tmp_path: Path) -> Iterator[KafkaBroker]:
    """One to freeze; `kafka` has seen to it that there can be one."""
    own = KafkaBroker(tmp_path / "own")
    own.start()
    yield own
    own.thaw()
    own.stop()


def test_a_broker_that_freezes_on_the_way_is_given_up(
    own_broker: KafkaBroker, tmp_path: Path
) -> None:
    """What was acknowledged before is said, and that more may have been."""
    own_broker.create_topic("t", 1)
    mine = with_kafka(
        tmp_path,
        bootstrap_servers=[own_broker.bootstrap],
        request_timeout_seconds=2,
        rebalance_timeout_seconds=1,
    )
    events = tmp_path / "events.jsonl"
    events.write_text("".join(f"{EVENT % (n, n)}\n" for n in range(200_000)))
    process = mine.start("publish", "--topic", "t", "--file", str(events))
    try:
        wait_for(lambda: own_broker.end_offsets("t")[0] > 2_000, 60, "the first records")
        own_broker.freeze()
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1, stderr
    assert b"of 200000 were acknowledged; up to 1000 more may have been" in stderr
