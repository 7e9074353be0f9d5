"""A broker that asks for TLS and a password, or for TLS and a client certificate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcherd.config.load import parse_config
from dispatcherd.config.secrets import load_secrets
from dispatcherd.consume import Consumer
from dispatcherd.errors import LogUnavailable
from tests.rig import kafka as kafka_part
from tests.rig.authority import Authority
from tests.rig.daemon import Daemon, config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database
from tests.rig.receivers import Receivers
from tests.rig.secured_kafka import PASSWORD, USERNAME, Secured
from tests.rig.waiting import wait_for


class Stand:
    """A broker with both listeners, and what a client needs for either."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "authority")
        self.stranger = Authority(folder / "stranger", "a stranger")
        self.secured = Secured(folder, self.authority)
        self.broker = KafkaBroker(folder / "kafka", security=self.secured)
        self._folder = folder

    def sasl(self, mechanism: str, password: str = PASSWORD) -> dict[str, Any]:
        """The keys of `kafka` for the listener with passwords."""
        path = self._folder / f"password-{len(password)}"
        path.write_text(f"{password}\n")
        return {
            "bootstrap_servers": [self.secured.sasl],
            "tls": {"ca_file": str(self.authority.file())},
            "sasl": {
                "mechanism": mechanism,
                "username": USERNAME,
                "password": {"file": str(path)},
            },
        }

    def mutual(self) -> dict[str, Any]:
        """The keys of `kafka` for the listener with client certificates."""
        certificate, key = self.authority.issue(["dispatcherd"])
        own = {"cert_file": str(certificate), "key_file": str(key)}
        return {
            "bootstrap_servers": [self.secured.mutual],
            "tls": {"ca_file": str(self.authority.file()), **own},
        }


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    kafka_part.need()
    made = Stand(tmp_path_factory.mktemp("secured"))
    made.broker.start()
    yield made
    made.broker.stop()


@pytest.mark.parametrize("listener", ["SCRAM-SHA-256", "certificate"])
def test_events_are_published_and_delivered_over_a_secured_listener(
    stand: Stand,
    database: Database,
    receivers: Receivers,
    topic: str,
    daemon: Callable[..., Daemon],
    listener: str,
) -> None:
    stand.broker.create_topic(topic, 2)
    kafka = stand.mutual() if listener == "certificate" else stand.sasl(listener)
    endpoints = [{"id": "all", "url": receivers.url("all")}]
    config = config_for("", database.dsn, topic, endpoints, kafka=kafka)
    one = daemon(config).start()
    event = '{"id": "evt_1", "type": "order.created", "data": {}}'
    published = one.command("publish", "--topic", topic, event)
    assert published.returncode == 0, published.stderr
    wait_for(lambda: receivers.accepted("all") == 1, 30, "the delivery")
    group = config["kafka"]["group_id"]
    wait_for(lambda: sum(stand.broker.committed(group, topic).values()) == 1, 30, "the commit")
    one.stop()
    assert PASSWORD not in one.log()


async def asked(kafka: dict[str, Any]) -> str:
    """The cluster's id, as the daemon asks for it at its start."""
    config = parse_config({"kafka": kafka})
    password = load_secrets(config, {}).sasl_password
    return await Consumer(config.kafka, 1_000_000, password).cluster_id()


MISTAKES: dict[str, tuple[Callable[[Stand], dict[str, Any]], str]] = {
    "password": (
        lambda stand: stand.sasl("SCRAM-SHA-256", "not-the-password"),
        "does not accept kafka.sasl.username and kafka.sasl.password",
    ),
    "password_plain": (
        lambda stand: stand.sasl("PLAIN", "not-the-password"),
        "does not accept kafka.sasl.username and kafka.sasl.password",
    ),
    "mechanism": (lambda stand: stand.sasl("SCRAM-SHA-512"), "not enabled kafka.sasl.mechanism"),
    "authority": (
        lambda stand: stand.sasl("PLAIN") | {"tls": {"ca_file": str(stand.stranger.file())}},
        "is of no authority in kafka.tls.ca_file",
    ),
    "the_systems_authorities": (
        lambda stand: stand.sasl("PLAIN") | {"tls": {}},
        "is of no authority in the system's: see kafka.tls.ca_file",
    ),
    "name": (
        lambda stand: (
            stand.sasl("PLAIN")
            | {"bootstrap_servers": [stand.secured.sasl.replace("127.0.0.1", "localhost")]}
        ),
        "is for another name: write that name in kafka.bootstrap_servers",
    ),
    "no_certificate": (
        lambda stand: stand.mutual() | {"tls": {"ca_file": str(stand.authority.file())}},
        "a certificate in kafka.tls.cert_file",
    ),
    "plain_to_tls": (
        lambda stand: {"bootstrap_servers": [stand.secured.sasl]},
        "does this port want kafka.tls?",
    ),
    "tls_to_plain": (
        lambda stand: {"bootstrap_servers": [stand.broker.bootstrap], "tls": {}},
        "is this its TLS port",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_what_the_broker_refuses_is_said_with_the_key_to_look_at(
    stand: Stand, mistake: str
) -> None:
    wrong, said = MISTAKES[mistake]
    with pytest.raises(LogUnavailable) as caught:
        await asked(wrong(stand))
    assert said in str(caught.value)
    assert "not-the-password" not in str(caught.value) and PASSWORD not in str(caught.value)
    assert await asked(stand.sasl("PLAIN"))
