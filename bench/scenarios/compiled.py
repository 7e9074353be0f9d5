"""What compiling the hot modules buys: the same drain with plain and with compiled modules.

`make compiled` builds build/compiled; both variants run from the same sources, taking turns.
"""

from __future__ import annotations

import dataclasses
import subprocess
from functools import partial

from bench.native import ROOT, Missing
from bench.results import Result, ratio, ratio_at_equal_pace
from bench.scenarios.drain import BATCHES, ONE, THOUSAND, cases, filled, once
from bench.session import Session

TREE = ROOT / "build" / "compiled"


def run(session: Session, result: Result) -> None:
    """See the module."""
    _build()
    chosen = {
        name: case for name, case in cases(session).items() if name in (ONE, THOUSAND, BATCHES)
    }
    for name, case in chosen.items():
        topic = filled(session, case.plan)
        # -P keeps the folder that the bench runs in out of the daemon's path.
        environment = {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(TREE)}
        compiled = dataclasses.replace(
            case, setup=dataclasses.replace(case.setup, environment=environment)
        )
        plain, fast = f"{name}, plain", f"{name}, compiled"
        variants = {
            plain: partial(once, session, topic, case),
            fast: partial(once, session, topic, compiled),
        }
        runs = session.interleave(result, variants, session.runs(5))
        session.parts.kafka.delete_topic(topic)
        result.figures_of(
            runs,
            (
                ("cpu_us", "dispatcherd", "µs"),
                ("per_cpu_second", "per CPU-second", ""),
                ("postgres_us", "Postgres", "µs"),
                ("peak_mb", "memory", "MB"),
            ),
        )
        share = ratio(runs[fast], runs[plain], "cpu_us")
        even = ratio_at_equal_pace(runs[fast], runs[plain], "cpu_us")
        result.notes.append(
            f"{name}: compiled uses {share:.2f} of the CPU of plain ({even:.2f} at equal pace)."
        )


def _build() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "compiled"], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise Missing(f"a compiler for Python's extensions: {done.stderr[-500:]}")
