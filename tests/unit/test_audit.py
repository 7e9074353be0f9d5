"""`make audit`: what a list knows of the pins; that there is none is not taken for no finding."""

from __future__ import annotations

import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from supply.audit import CLEAN, COULD_NOT_LOOK, FOUND, main

TODAY = datetime(2026, 6, 1, tzinfo=UTC)


def advisory(**changes: Any) -> dict[str, Any]:
    """Of a package that does not exist."""
    return {
        "id": "TEST-1",
        "modified": "2026-05-30T10:00:00Z",
        "summary": "It lets\nanybody in.",
        "affected": [
            {
                "package": {"ecosystem": "PyPI", "name": "Leaky_Thing"},
                "ranges": [
                    {
                        "type": "ECOSYSTEM",
                        "events": [{"introduced": "1.0"}, {"fixed": "1.10"}, {"introduced": "2.0"}],
                    }
                ],
                "versions": ["0.9"],
            }
        ],
        **changes,
    }


def audit(folder: Path, pinned: str, *advisories: dict[str, Any]) -> int:
    """With these as JSON files."""
    listed = folder / "advisories"
    listed.mkdir()
    for number, one in enumerate(advisories):
        (listed / f"{number}.json").write_text(json.dumps(one))
    (folder / "pins.txt").write_text(f"# pins\nother==1.0\n{pinned}\n")
    return main(["--advisories", str(listed), "--pins", str(folder / "pins.txt")], TODAY)


@pytest.mark.parametrize(
    ("version", "expected"),
    [("0.8", CLEAN), ("0.9", FOUND), ("1.0", FOUND), ("1.9", FOUND), ("1.9.post1", FOUND),
     ("1.10", CLEAN), ("1.99", CLEAN), ("2.0", FOUND), ("3.1", FOUND)],
)  # fmt: skip
def test_a_pin_is_found_where_the_advisory_says_that_it_is_affected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], version: str, expected: int
) -> None:
    assert audit(tmp_path, f"leaky-thing=={version}", advisory()) == expected
    said = capsys.readouterr().out
    if expected == FOUND:
        assert f"leaky-thing {version}: TEST-1: It lets anybody in." in said
        assert "fixed in: 1.10" in said
    else:
        assert "nothing known for 2 pins, by 1 advisories, the newest of 2026-05-30" in said


def test_the_last_affected_version_is_affected_and_the_next_is_not(tmp_path: Path) -> None:
    one = advisory()
    events = [{"introduced": "0"}, {"last_affected": "1.5"}]
    one["affected"][0]["ranges"][0]["events"] = events
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert audit(tmp_path / "a", "leaky-thing==1.5", one) == FOUND
    assert audit(tmp_path / "b", "leaky-thing==1.6", one) == CLEAN


@pytest.mark.parametrize(
    "changes",
    [
        {"withdrawn": "2026-05-31T00:00:00Z"},
        {
            "affected": [
                {"package": {"ecosystem": "npm", "name": "leaky-thing"}, "versions": ["1.0"]}
            ]
        },
        {"affected": [{"package": {"ecosystem": "PyPI", "name": "leaky"}, "versions": ["1.0"]}]},
    ],
    ids=["withdrawn", "of_another_ecosystem", "of_another_name"],
)
def test_what_does_not_concern_the_pin_is_not_found(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    assert audit(tmp_path, "leaky-thing==1.0", advisory(**changes)) == CLEAN


def test_an_old_list_that_knows_nothing_is_no_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = advisory(modified="2026-04-01T00:00:00Z")
    assert audit(tmp_path, "leaky-thing==1.10", old) == COULD_NOT_LOOK
    assert "that list is 61 days old" in capsys.readouterr().err


def test_an_old_list_that_knows_something_is_an_answer(tmp_path: Path) -> None:
    old = advisory(modified="2026-04-01T00:00:00Z")
    assert audit(tmp_path, "leaky-thing==1.0", old) == FOUND


def test_without_a_list_it_says_that_it_could_not_look(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == COULD_NOT_LOOK
    assert main(["--advisories", str(tmp_path)]) == COULD_NOT_LOOK
    assert main(["--advisories", str(tmp_path / "none.zip")]) == COULD_NOT_LOOK
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    assert main(["--advisories", str(tmp_path / "broken.zip")]) == COULD_NOT_LOOK
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("COULD NOT LOOK") == 4


def test_a_list_as_a_zip_of_yaml_is_read_alike(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("vulns/leaky/TEST-1.yaml", yaml.safe_dump(advisory()))
    (tmp_path / "pins.txt").write_text("leaky.thing==1.2\n")
    arguments = ["--advisories", str(tmp_path / "all.zip"), "--pins", str(tmp_path / "pins.txt")]
    assert main(arguments, TODAY) == FOUND
