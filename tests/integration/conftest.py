"""The real Postgres for the tests of the recording side."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.rig.postgres import PostgresServer
from tests.rig.store import Store
from tests.rig.store import store as store_on


@pytest.fixture
def dsn(postgres_server: PostgresServer) -> str:
    """Of a fresh database."""
    return postgres_server.create_database().dsn


@pytest_asyncio.fixture
async def store(dsn: str) -> AsyncIterator[Store]:
    """A process that has registered."""
    async with store_on(dsn) as one:
        yield one
