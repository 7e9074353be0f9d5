"""A short selection of the fault bench: every kind of fault, mixed, for a few seconds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import report
from tests.faults.run import run
from tests.faults.scenarios import SCENARIOS, mixed
from tests.faults.stand import Parts, Setting
from tests.rig import kafka as kafka_part

SEED = 5
SECONDS = 6.0


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    why = kafka_part.missing()
    if why is not None and os.environ.get("CI"):
        pytest.fail(f"in CI nothing may be missing: {why}")
    if why is not None:
        pytest.skip(why)
    made = Parts(tmp_path)
    yield made
    made.stop()


def test_every_promise_holds_through_a_short_mix_of_faults(parts: Parts, tmp_path: Path) -> None:
    short = replace(
        SCENARIOS["soak"],
        act=mixed(pause_seconds=2.0),
        setting=Setting(session_seconds=1.5, longest_seconds=2.0),
    )
    result = run(short, parts, tmp_path, SEED, SECONDS, None, print)
    assert result.held, report.trouble(result)
    assert result.lost == 0 and result.published > 100
    struck = {name.partition(":")[0] for name in result.faults}
    assert {"member", "kafka", "postgres", "receiver"} <= struck, result.faults
