"""Options; and async tests run on the event loop that the daemon runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop


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
