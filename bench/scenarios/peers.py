"""Another engine at the same work: Benthos 4.60, signed, recording nothing (where Go is present).

Redpanda Connect itself is not measured: its licence is not an open-source one. Benthos core (MIT)
is the engine that it is built on; its Kafka input here is a minimal one (bench/peers/main.go). Runs
take turns with the daemon's on the same topic and sink.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

from bench import trial
from bench.load import Plan
from bench.native import ROOT, Missing
from bench.parts import Parts
from bench.results import Drawing, Line, Result, medians
from bench.scenarios.drain import Case, filled, once
from bench.session import Measures, Session
from bench.subjects import SECRET, ProcessSubject, Setup

_HERE = ROOT / "bench" / "peers"
_FOLDER = ROOT / ".parts" / "peers" / "benthos"
_MODULES = (
    "github.com/redpanda-data/benthos/v4/public/service@v4.60.0",
    "github.com/twmb/franz-go@v1.22.3",
)
DAEMON = "dispatcherd, recording"
WAYS = {
    f"Benthos, reads of {batch}": {"BENCH_BATCH": f"{batch}", "BENCH_IN_FLIGHT": f"{in_flight}"}
    for batch, in_flight in ((1, 10), (20, 10), (200, 4))
}
"""Settings of its own (an output sends a read's records together); the cheapest is compared."""


def built(session: Session) -> Path:
    """The peer, built once in a throwaway module. Raises Missing without Go, or without modules."""
    if shutil.which("go") is None:
        raise Missing("Go, which builds the peer")
    binary = _FOLDER / "peer"
    source = (_HERE / "main.go").read_bytes()
    if binary.exists() and (_FOLDER / "main.go").read_bytes() == source:
        return binary
    _FOLDER.mkdir(parents=True, exist_ok=True)
    (_FOLDER / "main.go").write_bytes(source)
    steps = [["go", "mod", "init", "peer"]] if not (_FOLDER / "go.mod").exists() else []
    steps += [["go", "get", module] for module in _MODULES]
    steps += [["go", "mod", "tidy"], ["nice", "go", "build", "-o", "peer", "."]]
    for step in steps:
        session.tell(" ".join(step))
        done = subprocess.run(
            step, cwd=_FOLDER, capture_output=True, text=True, timeout=1_800, check=False
        )
        if done.returncode:
            raise Missing(f"what `{' '.join(step)}` needs: {done.stderr[-500:]}")
    return binary


def run(session: Session, result: Result) -> None:
    """See the module."""
    binary = built(session)
    case = Case(Plan(session.size(300_000, 10_000)), Setup())
    topic = filled(session, case.plan)
    variants = {DAEMON: partial(once, session, topic, case)}
    for name, settings in WAYS.items():
        variants[name] = partial(_peer, session, binary, topic, case.plan, settings)
    runs = session.interleave(result, variants, session.runs(5))
    session.parts.kafka.delete_topic(topic)
    result.figures_of(
        runs,
        (
            ("cpu_us", "the program", "µs"),
            ("postgres_us", "Postgres", "µs"),
            ("kafka_us", "broker", "µs"),
            ("per_second", "per second", ""),
            ("peak_mb", "memory", "MB"),
        ),
    )
    best = min(WAYS, key=lambda name: medians(runs[name], "cpu_us"))
    result.check_ratio(
        f"CPU of {best}, of dispatcherd's", 2, runs[best], runs[DAEMON], "cpu_us", at_least=True
    )
    result.notes.append(
        "The target names Redpanda Connect; this is its engine with a leaner input, a stand-in."
    )
    words = [(name, medians(m, "cpu_us")) for name, m in runs.items()]
    lows = [min(run["cpu_us"] for run in m) for m in runs.values()]
    highs = [max(run["cpu_us"] for run in m) for m in runs.values()]
    result.drawings.append(
        Drawing("peers", "CPU per signed delivery", "", "µs", [Line("CPU", words, lows, highs)],
                kind="bars")
    )  # fmt: skip


class Peer(ProcessSubject):
    """The peer's process; it takes its settings from the environment."""

    def __init__(self, parts: Parts, binary: Path, environment: dict[str, str]) -> None:
        super().__init__("benthos", parts.folder, [str(binary), "run", str(_HERE / "benthos.yaml")])
        self._environment = environment

    def start(self) -> None:
        before = dict(os.environ)
        os.environ.update(self._environment)
        try:
            super().start()
        finally:
            os.environ.clear()
            os.environ.update(before)


def _peer(
    session: Session, binary: Path, topic: str, plan: Plan, settings: dict[str, str]
) -> Measures:
    parts = session.parts
    environment = {
        "BENCH_BROKER": parts.kafka.bootstrap,
        "BENCH_TOPIC": topic,
        "BENCH_GROUP": f"peer-{os.urandom(4).hex()}",
        "BENCH_URL": parts.sink.url(0),
        "BENCH_KEY": SECRET.removeprefix("whsec_"),
        **settings,
    }
    peer = Peer(parts, binary, environment)
    return trial.drain(parts, plan, peer, session.tell)
