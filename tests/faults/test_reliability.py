"""docs/reliability.md names tests and scenarios that exist, and every row of the list of faults."""

from __future__ import annotations

import ast
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.faults import report
from tests.faults.check import Isolation
from tests.faults.run import Result
from tests.faults.scenarios import SCENARIOS

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "reliability.md"
TEXT = DOCUMENT.read_text()
CODES = sorted(set(re.findall(r"`([^`\n]+)`", TEXT)))
TESTS = [code for code in CODES if code.startswith("tests/")]
ROWS = 39


def names_in(path: Path) -> set[str]:
    """The functions of a file."""
    tree = ast.parse(path.read_text())
    return {n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))}


def exists(code: str) -> bool:
    """Whether `path` or `path::name` leads to a test."""
    file, _, name = code.partition("::")
    path = ROOT / file
    return path.is_file() and (not name or name in names_in(path))


@pytest.mark.parametrize("code", TESTS)
def test_every_test_that_the_document_names_exists(code: str) -> None:
    assert exists(code), f"docs/reliability.md names {code}, which does not exist"


def test_a_test_that_does_not_exist_would_be_noticed() -> None:
    assert len(TESTS) > 50
    assert not exists("tests/faults/test_checker.py::test_that_never_was")
    assert not exists("tests/faults/test_never.py")


def test_every_scenario_stands_in_the_document_and_every_one_in_it_exists() -> None:
    named = set(re.findall(r"ONLY=([a-z0-9-]+)", TEXT))
    assert named == set(SCENARIOS)


def test_every_row_has_its_tests_or_says_that_there_is_none() -> None:
    section = TEXT.split("## Fault by fault")[1].split("## The last run")[0]
    rows = dict(re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", section, re.M))
    assert [int(number) for number in rows] == list(range(1, ROWS + 1))
    for number, shown in rows.items():
        assert "`" in shown or "**no test**" in shown, f"row {number}: {shown}"


def test_results_read_back_are_the_results() -> None:
    one = Result("one-hangs", 7, isolation=Isolation(0.01, 0.02, 300, 400), faults={"x": 1})
    assert Result.of(json.loads(json.dumps(one.document()))) == one


def test_results_go_between_their_marks_and_nowhere_else(tmp_path: Path) -> None:
    copy = tmp_path / "reliability.md"
    copy.write_text(TEXT)
    one = Result("kills", 7, 60.0, published=1_000, deliveries=4_000, faults={"member: kill -9": 9})
    broken = Result(
        "soak", 8, 600.0, published=10, violations=["L: event e1 never reached billing"]
    )
    report.write(copy, [one, broken])
    written = copy.read_text()
    assert written.split(report.BEGIN)[0] == TEXT.split(report.BEGIN)[0]
    assert written.split(report.END)[1] == TEXT.split(report.END)[1]
    table = written.split(report.BEGIN)[1]
    assert "| kills | 7 | 60 | 9 | 1,000 |" in table and "seeds 7, 8" in table
    assert "1 of 2 scenarios held" in table and "no: L: event e1 never reached billing" in table
    assert report.markdown([one], datetime.now(UTC)) != report.markdown([broken], datetime.now(UTC))
