"""The daemon as a multiple of what cannot be beaten: a bare loop in C, and one in Python.

All post the same bytes (a request of the daemon's, captured by the sink) to the same sink, with
as many under way at once, run by run in turn.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from bench import trial
from bench.cpu import machine_seconds
from bench.load import Plan
from bench.native import ROOT, built
from bench.results import Drawing, Line, Result, medians
from bench.scenarios.drain import filled
from bench.session import Measures, Session
from bench.stolen import SHARE
from bench.subjects import SECRET, DaemonSubject, Loss, Setup

DAEMON, IN_C, IN_PYTHON = "dispatcherd", "loop in C", "loop in Python"
SIGNED, ALONE = "loop in Python, signed", "dispatcherd's exchange alone, signed"
REFERENCE = "ClientSession in its place, signed"


def run(session: Session, result: Result) -> None:
    """See the module."""
    plan = Plan(session.size(300_000, 10_000))
    setup = Setup()
    topic = filled(session, plan)
    request = session.parts.folder / "request"

    def daemon() -> Measures:
        subject = DaemonSubject(session.parts, topic, plan, setup)
        measures = trial.drain(session.parts, plan, subject, session.tell)
        request.write_bytes(session.parts.sink.samples()[0])
        return measures

    count = session.size(300_000, 50_000)
    python = [sys.executable, "-m"]
    loops = {
        IN_C: ([str(built("bare"))], []),
        IN_PYTHON: ([*python, "bench.bare"], []),
        SIGNED: ([*python, "bench.bare"], [SECRET]),
        ALONE: ([*python, "bench.alone"], [SECRET, "fast"]),
        REFERENCE: ([*python, "bench.alone"], [SECRET, "reference"]),
    }
    variants = {DAEMON: daemon}  # the first: it gives the request that the loops post
    for name, (program, more) in loops.items():
        posts = count // 5 if name == REFERENCE else count
        variants[name] = partial(_loop, session, program, more, setup.concurrency, posts, request)
    runs = session.interleave(result, variants, session.runs(5))
    session.parts.kafka.delete_topic(topic)
    _report(result, runs)


def _loop(
    session: Session, program: list[str], more: list[str], connections: int, count: int, file: Path
) -> Measures:
    sink = session.parts.sink
    sink.reset(0)
    stolen, started = machine_seconds()[1], time.monotonic()
    done = subprocess.run(
        [*program, str(sink.port), str(connections), str(count), str(file), *more],
        capture_output=True, text=True, timeout=300, check=False, cwd=ROOT,
    )  # fmt: skip
    if done.returncode:
        raise Loss(f"{program[-1]}: {done.stderr[-1000:]}")
    cost: Measures = json.loads(done.stdout)
    if sink.count()["answered"] < count:
        raise Loss(f"{program[-1]}: {sink.count()['answered']} of {count} answered")
    return {
        SHARE: (machine_seconds()[1] - stolen) / (time.monotonic() - started),
        "cpu_us": cost["cpu_seconds"] / count * 1e6,
        "per_cpu_second": count / cost["cpu_seconds"],
        "per_second": count / cost["wall_seconds"],
    }


def _report(result: Result, runs: dict[str, list[Measures]]) -> None:
    result.figures_of(
        runs, (("cpu_us", "CPU each", "µs"), ("per_cpu_second", "per CPU-second", ""))
    )
    for name, target in ((IN_PYTHON, 2.0), (SIGNED, 2.0), (ALONE, 2.0), (IN_C, 5.0)):
        result.check_ratio(
            f"the whole way, of the {name}", target, runs[DAEMON], runs[name], "cpu_us"
        )
    result.drawings.append(
        Drawing(
            "limit", "CPU for one signed, recorded delivery, and for a bare exchange", "", "µs",
            kind="bars",
            lines=[
                Line(
                    "CPU",
                    [(name, medians(m, "cpu_us")) for name, m in runs.items()],
                    [min(run["cpu_us"] for run in m) for m in runs.values()],
                    [max(run["cpu_us"] for run in m) for m in runs.values()],
                )
            ],
        )
    )  # fmt: skip
