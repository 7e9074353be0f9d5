"""A short selection of the fault bench: faults of every part, mixed, for a few seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.faults import report
from tests.faults.run import run
from tests.faults.scenarios import QUICK_SLOTS, SCENARIOS, mixed
from tests.faults.stand import Parts, Setting
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import PostgresServer
from tests.rig.proxy import Proxy

SEED = 5
SECONDS = 6.0


def test_every_promise_holds_through_a_short_mix_of_faults(
    kafka: KafkaBroker, kafka_proxy: Proxy, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    parts = Parts(kafka, kafka_proxy, own_postgres)
    short = replace(
        SCENARIOS["soak"],
        act=mixed(pause_seconds=2.0, slots=QUICK_SLOTS),
        setting=Setting(session_seconds=1.5, longest_seconds=2.0),
    )
    result = run(short, parts, tmp_path, SEED, SECONDS, None, print)
    assert result.held, report.trouble(result)
    assert result.lost == 0 and result.published > 100
    struck = {name.partition(":")[0] for name in result.faults}
    assert {"member", "kafka", "postgres"} <= struck, result.faults
