"""For all tests: options, and the real parts that they share, one of each in a test process.

The event loop is the daemon's, and no test fails by how long it took.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
import uvloop
from hypothesis import settings

from tests.rig import kafka as kafka_part
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import PostgresServer
from tests.rig.proxy import Proxy
from tests.rig.waiting import free_port

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """See pytest."""
    parser.addoption(
        "--matrix", action="store_true",
        help="write examples/MATRIX.md from this run of test_sample_receivers.py",
    )  # fmt: skip


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """See pytest-asyncio."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def kafka_proxy() -> Iterator[Proxy]:
    """Before the shared broker, for who bootstraps from `kafka.proxied`."""
    proxy = Proxy(free_port())
    yield proxy
    proxy.stop()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory, kafka_proxy: Proxy) -> Iterator[KafkaBroker]:
    """The shared broker: for tests that do it no harm."""
    kafka_part.need()
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka"), kafka_proxy)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The shared server: for tests that do it no harm."""
    server = PostgresServer(durable=False)
    server.start()
    yield server
    server.remove()
