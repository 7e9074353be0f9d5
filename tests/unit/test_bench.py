"""What the bench makes of its measures, and the results that are published."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bench.compared import compared
from bench.results import Report, Result, load
from bench.scenarios import baseline, drain, limit, peers
from bench.stolen import SECONDS, TAKES, least_robbed
from bench.table import markdown

PUBLISHED = Path(__file__).parents[2] / "bench" / "published"


def _published() -> Report:
    return load(PUBLISHED / "results.json")


def test_the_published_table_is_what_the_measures_come_to() -> None:
    assert (PUBLISHED / "results.md").read_text() == markdown(_published())


def test_what_is_published_is_of_whole_runs_in_which_nothing_was_lost() -> None:
    report = _published()
    assert not report.quick
    assert not [result.scenario for result in report.results if result.failure]


def test_every_published_picture_is_there_and_no_other() -> None:
    shown = set(re.findall(r"\((\S+\.svg)\)", (PUBLISHED / "results.md").read_text()))
    assert shown == {path.name for path in PUBLISHED.glob("*.svg")}


@pytest.mark.parametrize(
    ("stolen", "kept", "takes"),
    [((0.0,), 0.0, 1), ((0.5, 0.05), 0.05, 2), ((0.5, 0.2, 0.3), 0.2, 3)],
)
def test_what_the_hypervisor_disturbed_is_measured_again_and_the_least_disturbed_counts(
    stolen: tuple[float, ...], kept: float, takes: int
) -> None:
    left = iter(stolen)
    found = least_robbed(lambda: {SECONDS: next(left)}, SECONDS)
    assert (found[SECONDS], found[TAKES]) == (kept, takes)


def test_what_tells_nothing_of_the_hypervisor_is_measured_once() -> None:
    made: list[dict[str, Any]] = []

    def measure() -> dict[str, Any]:
        made.append({})
        return made[-1]

    assert least_robbed(measure, SECONDS) == {TAKES: 1}
    assert len(made) == 1


def _result(scenario: str, cpu_us: dict[str, list[float]]) -> Result:
    made = Result(scenario, "")
    made.runs = [
        {"variant": n, "cpu_us": value} for n, values in cpu_us.items() for value in values
    ]
    return made


def test_what_stands_beside_the_daemon_is_a_multiple_of_it_in_the_same_scenario() -> None:
    ways = {name: [90.0] for name in peers.WAYS} | {next(iter(peers.WAYS)): [60.0]}
    [made] = compared(
        [
            _result("baseline", {drain.ONE: [20.0], baseline.BASELINE: [200.0]}),
            _result("peers", {peers.DAEMON: [30.0], **ways}),
            _result(
                "limit",
                {
                    limit.DAEMON: [40.0, 20.0, 30.0], limit.IN_C: [6.0], limit.IN_PYTHON: [9.0],
                    limit.SIGNED: [15.0], limit.ALONE: [12.0], limit.REFERENCE: [150.0],
                },
            ),
        ]
    )  # fmt: skip
    [drawing] = made.drawings
    assert [y for _, y in drawing.lines[0].points] == [0.2, 0.3, 0.4, 0.5, 1.0, 2.0, 5.0, 10.0]


def test_there_is_no_comparison_without_anything_beside_the_daemon() -> None:
    assert compared([_result("drain", {drain.ONE: [20.0]})]) == []
