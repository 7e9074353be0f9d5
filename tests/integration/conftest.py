"""The real Postgres for the tests of the recording side."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.rig.postgres import PostgresServer
from tests.rig.store import Store
from tests.rig.store import store as store_on


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all of them: they do it no harm."""
    server = PostgresServer(durable=False)
    server.start()
    yield server
    server.remove()


@pytest.fixture
def dsn(postgres: PostgresServer) -> str:
    """Of a fresh database."""
    return postgres.create_database().dsn


@pytest_asyncio.fixture
async def store(dsn: str) -> AsyncIterator[Store]:
    """A process that has registered."""
    async with store_on(dsn) as one:
        yield one
