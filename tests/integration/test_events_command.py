"""`dispatcherd events …`: what it prints, its exit codes, and an earlier state in a real git."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from dispatcherd.cli.main import cli
from dispatcherd.events import SAMPLE

ORDER = """\
type: order.created
description: An order was placed.
versions:
  "1":
    schema:
      type: object
      required: [order]
      properties:
        order: {type: string, description: Its number.}
        state: {type: string, enum: [open, paid], description: How it stands.}
    example: {order: A-1, state: open}
"""


Run = Callable[..., Result]


def run_alone(*arguments: str) -> Result:
    """A command without a configuration."""
    return CliRunner(env={"DISPATCHERD_CONFIG": None}).invoke(cli, arguments)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command with a configuration that names the catalogue in `events`."""
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "order.yaml").write_text(ORDER)
    config = {"kafka": {"topics": ["t"]}, "catalogue": {"path": str(tmp_path / "events")}}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return lambda *arguments: run_alone(*arguments, "--config", str(path))


def ok(done: Result) -> str:
    """What it printed; fails unless the exit code is 0."""
    assert done.exit_code == 0, done.output
    return done.stdout


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def change(folder: Path, old: str, new: str) -> None:
    """Edit the file."""
    file = folder / "events" / "order.yaml"
    assert file.read_text().count(old) == 1
    file.write_text(file.read_text().replace(old, new))


def test_check_finds_a_good_catalogue_in_order(run: Run) -> None:
    assert ok(run("events", "check")) == "ok: 1 event types in 1 versions\n"


def test_check_names_each_finding_and_fails(run: Run, tmp_path: Path) -> None:
    change(tmp_path, ", description: Its number.", "")
    change(tmp_path, "state: open}", "state: shut}")
    done = run("events", "check")
    assert done.exit_code == 1 and done.stderr == "2 problems\n"
    first, second = done.stdout.splitlines()
    assert f"{tmp_path}/events/order.yaml:9: versions.1.schema.properties.order: " in first
    assert f"{tmp_path}/events/order.yaml:11: versions.1.example.state: " in second
    found = json.loads(run("events", "check", "--json").stdout)
    assert [problem["line"] for problem in found["problems"]] == [9, 11]
    assert all(problem["remedy"] for problem in found["problems"])


def test_check_holds_the_files_against_a_commit(run: Run, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "Nothing yet")
    git(tmp_path, "tag", "empty")
    git(tmp_path, "add", "events")
    git(tmp_path, "commit", "-q", "-m", "Events")
    against = ("events", "check", "--against")
    assert ok(run(*against, "main")) == "ok: 1 event types in 1 versions\n"

    change(tmp_path, "[open, paid]", "[open, paid, sent]")
    assert "compatible: order.created version 1: data.state: there is a new value" in ok(
        run(*against, "main")
    )
    change(tmp_path, "[open, paid, sent]", "[open, sent]")
    change(tmp_path, "[order]", "[order, state]")
    done = run(*against, "main")
    assert done.exit_code == 1
    assert f"{tmp_path}/events/order.yaml:7: versions.1.schema.required: data.state: it is " in (
        done.stdout
    )
    assert (
        'order.yaml:10: versions.1.schema.properties.state.enum: data.state: the value "paid"'
        in (done.stdout)
    )
    assert "describe the change in a new one" in done.stdout

    git(tmp_path, "checkout", "-q", "events")
    change(tmp_path, '"1":', '"2":')
    done = run(*against, "main")
    assert done.exit_code == 1 and "versions: version 1 is gone" in done.stdout

    done = run(*against, "empty")
    assert done.exit_code == 0 and "empty has no catalogue" in done.stderr
    done = run(*against, "nowhere")
    assert done.exit_code == 1 and "nowhere: neither a directory nor a commit" in done.stdout


def test_check_holds_the_files_against_a_directory(run: Run, tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.mkdir()
    (before / "order.yaml").write_text(ORDER)
    old = ORDER.replace("order.created", "order.paid")
    (before / "paid.yaml").write_text(old)
    deprecated = ORDER.replace('"1":', '"1":\n    deprecated: Unused.')
    (before / "gone.yaml").write_text(deprecated.replace("order.created", "order.gone"))
    done = run("events", "check", "--against", str(before))
    assert done.exit_code == 1
    assert f"{before}/paid.yaml: the event type order.paid is gone. Put it back" in done.stdout
    assert "compatible: order.gone: it is gone, and was deprecated" in done.stdout
    assert "order.created" not in done.stdout


def test_check_without_a_catalogue_is_a_wrong_command_line() -> None:
    done = run_alone("events", "check")
    assert done.exit_code == 2 and "--path" in done.stderr


def test_list_and_show_without_a_catalogue_take_that_of_the_demo_and_say_so() -> None:
    done = run_alone("events", "list")
    assert done.exit_code == 0 and "the one of the demo" in done.stderr
    assert "order.created" in done.stdout and "1 (deprecated), 2" in done.stdout
    assert "13 event types" in done.stdout


def test_show_has_the_fields_and_the_example(run: Run) -> None:
    shown = ok(run("events", "show", "order.created"))
    assert "order.created version 1\nAn order was placed.\n" in shown
    assert [line.split()[:3] for line in shown.splitlines() if line.startswith("state")] == [
        ["state", "string", "optional"]
    ]
    assert json.loads(shown[shown.index("{") :]) == {"order": "A-1", "state": "open"}
    found: dict[str, Any] = json.loads(ok(run("events", "show", "order.created", "--json")))
    assert found["version"] == "1" and found["schema"]["type"] == "object"
    done = run("events", "show", "order.creatd")
    assert done.exit_code == 1 and "Did you mean order.created?" in done.stderr


def test_render_writes_a_document_for_each_format(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "site"
    names = ["index.html", "events.md", "asyncapi.json", "openapi.json"]
    written = ok(run("events", "render", "--out", str(out), "--title", "Our events"))
    assert written.split() == [str(out / name) for name in names]
    for name in names:
        text = (out / name).read_text()
        assert "Our events" in text and "order.created" in text
    ok(run("events", "render", "--format", "markdown", "--out", str(tmp_path / "one")))
    assert [file.name for file in (tmp_path / "one").iterdir()] == ["events.md"]


def test_render_to_a_place_that_cannot_be_written_fails_in_words(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("events", "render", "--out", str(tmp_path / "file" / "below"))
    assert done.exit_code == 1 and "cannot be written" in done.stderr


def test_a_configuration_with_a_catalogue_that_cannot_be_used_is_refused(
    run: Run, tmp_path: Path
) -> None:
    ok(run("check-config", "--quiet"))
    change(tmp_path, "type: object", "type: objekt")
    done = run("check-config")
    assert done.exit_code == 2
    assert done.stderr.startswith(f"catalogue: {tmp_path}/events/order.yaml:6: ")
    assert run("run").exit_code == 2


def test_the_catalogue_of_the_demo_is_in_order() -> None:
    done = run_alone("events", "check", "--path", str(SAMPLE))
    assert done.exit_code == 0, done.stdout
