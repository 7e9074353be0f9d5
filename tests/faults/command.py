"""The command itself (`python -m tests.faults` guards it): run scenarios, say what held.

Exit codes: 0 every promise held, 1 one did not (or the bench could not go on), 2 usage.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import sys
import tempfile
import time
from pathlib import Path

from tests.faults import report
from tests.faults.run import Result, run
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.stand import Parts
from tests.rig import kafka as kafka_part

_OVERHEAD_SECONDS = 420.0
"""Of one scenario beside its faults: building, undoing the last ones, settling, checking."""


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description="The fault bench: real Kafka, real Postgres, real processes, and a checker.",
    )
    parser.add_argument("--list", action="store_true", help="name the scenarios, and end")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=list(SCENARIOS), help="these scenarios"
    )
    parser.add_argument(
        "--seed", nargs="+", type=int, default=[1], metavar="N",
        help="what the draws begin with; several: the soak once with each (default 1)",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="how long faults strike (default: see --list)"
    )
    parser.add_argument(
        "--isolation", type=float, metavar="RATIO",
        help="fail where one endpoint's fault raises the others' p99 by more than this",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="results as JSON, to stdout")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put results into this document")
    parser.add_argument(
        "--results", nargs="+", type=Path, metavar="FILE",
        help="run nothing: take what earlier runs have written with --json",
    )  # fmt: skip
    return parser.parse_args(argv)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _plan(options: argparse.Namespace) -> list[tuple[Scenario, int]]:
    chosen = [SCENARIOS[name] for name in options.only or SCENARIOS]
    plan = [(one, options.seed[0]) for one in chosen if one.name != "soak"]
    return plan + [(one, seed) for one in chosen if one.name == "soak" for seed in options.seed]


def _run_all(options: argparse.Namespace, folder: Path) -> list[Result]:
    results: list[Result] = []
    parts: Parts | None = None
    try:
        for scenario, seed in _plan(options):
            if parts is None:
                _say("starting Kafka and Postgres")
                parts = Parts.own(folder / f"parts{len(results)}")
            seconds = options.seconds or scenario.seconds
            # Nothing here waits without a bound; if something does all the same, it is shown.
            faulthandler.dump_traceback_later(seconds + _OVERHEAD_SECONDS, exit=True)
            _say(f"{scenario.name}: {scenario.says} (row {scenario.rows}, seed {seed})")
            result = run(scenario, parts, folder, seed, seconds, options.isolation, _say)
            faulthandler.cancel_dump_traceback_later()
            results.append(result)
            _say(report.line(result))
            if not result.held:
                _say(report.trouble(result))
                parts.stop()
                parts = None  # what is broken in one run must not be another's
    finally:
        if parts is not None:
            parts.stop()
    return results


def main(argv: list[str]) -> int:
    """The command."""
    options = _arguments(argv)
    if options.list:
        print(report.listing(SCENARIOS.values()))
        return 0
    why = kafka_part.missing()
    if options.results:
        read = [json.loads(path.read_text()) for path in options.results]
        results = [Result.of(document) for documents in read for document in documents]
    elif why is not None:
        print(f"the fault bench cannot run: {why}", file=sys.stderr)
        return 2
    else:
        results = _run_all(options, Path(tempfile.mkdtemp(prefix="dispatcherd-faults-")))
    if options.write is not None:
        report.write(options.write, results)
    if options.json:
        print(json.dumps([result.document() for result in results], indent=2))
    else:
        print(report.table(results))
    return 0 if all(result.held for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
