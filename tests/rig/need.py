"""A part that this machine has not: said by name, and in CI a failure."""

from __future__ import annotations

import os

import pytest


def need(missing: str | None) -> None:
    """Skip the test for what is missing, or in CI fail it; None: nothing is."""
    if missing is None:
        return
    if os.environ.get("CI"):
        pytest.fail(f"in CI nothing may be missing: {missing}")
    pytest.skip(missing)
