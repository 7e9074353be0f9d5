"""The quick starts of the site, typed in from top to bottom as a reader would.

Every `sh` block of a page is run in one shell, in order; a `text` block below one is what it must
have printed, where `…` stands for anything. Only what builds the environment is left out (it is the
one that runs the test), and addresses of this machine's parts are put in.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database
from tests.rig.waiting import free_port

ROOT = Path(__file__).parents[2]
START = ROOT / "docs" / "start"
_ENVIRONMENT = {"make env", ". .venv/bin/activate"}
_MARK = "--- block"


@dataclass
class Block:
    """Commands, and what they must print, line by line in this order."""

    commands: str
    printed: list[str] = field(default_factory=list)


def blocks(page: str) -> list[Block]:
    """Those of one quick start."""
    found: list[Block] = []
    for token in MarkdownIt("commonmark").parse((START / page).read_text()):
        if token.type == "fence" and token.info == "sh":
            found.append(Block(token.content))
        elif token.type == "fence" and token.info == "text":
            found[-1].printed = token.content.splitlines()
    assert found and any(block.printed for block in found)
    return found


def matches(line: str, printed: str) -> bool:
    """Whether a line came out as the page says."""
    pattern = ".*".join(re.escape(part) for part in line.split("…"))
    return re.fullmatch(pattern, printed.rstrip()) is not None


def check(block: Block, output: str) -> None:
    """Fails, with the whole output, unless every line of the page is there, in its order."""
    lines = iter(output.splitlines())
    for line in block.printed:
        if line != "…":
            assert any(matches(line, printed) for printed in lines), f"no {line!r} in: {output}"


class Reader:
    """Somebody at a terminal, in a source tree that holds only the page's files."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self._folder = folder
        for name, line in (("dispatcherd", "-m dispatcherd"), ("python", "")):
            program = folder / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {line} "$@"\n')
            program.chmod(0o755)
        self._environ = {k: v for k, v in os.environ.items() if not k.startswith("DISPATCHERD_")}
        self._environ |= {"PYTHONPATH": str(ROOT), "PATH": f"{folder}/bin:{os.environ['PATH']}"}
        self._environ |= environ

    def follow(self, page: str, changes: dict[str, str], timeout_seconds: float) -> None:
        """Type the page in; `changes` are put in place of what stands there."""
        tree = self._folder / START.relative_to(ROOT)
        tree.mkdir(parents=True)
        for source in START.iterdir():
            text = source.read_text()
            for theirs, ours in changes.items():
                text = text.replace(theirs, ours)
            (tree / source.name).write_text(text)
        todo = blocks(page)
        script = ["set -euo pipefail", "exec 2>&1"]
        for number, block in enumerate(todo):
            commands = "\n".join(c for c in block.commands.splitlines() if c not in _ENVIRONMENT)
            for theirs, ours in changes.items():
                commands = commands.replace(theirs, ours)
            script += [f"echo; echo '{_MARK} {number}'", commands]
        script.append(f"echo; echo '{_MARK} end'")
        code, output = self._type("\n".join(script), timeout_seconds)
        parts = re.split(rf"^{_MARK} .*\n", output, flags=re.M)[1:]
        assert code == 0 and len(parts) == len(todo) + 1, output
        for block, part in zip(todo, parts, strict=False):
            check(block, part)

    def _type(self, script: str, timeout_seconds: float) -> tuple[int, str]:
        output = self._folder / "output.txt"
        with output.open("wb") as file:
            shell = subprocess.Popen(
                ["bash", "-c", script], cwd=self._folder, env=self._environ, stdout=file,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            try:
                code = shell.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                pytest.fail(f"it takes too long: {output.read_text()}")
            finally:
                _end_session(shell.pid)
        return code, output.read_text()


def _end_session(leader: int) -> None:
    """Whatever a page that failed has left running; nothing after one that went well."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


def test_a_line_that_was_not_printed_would_be_noticed() -> None:
    check(Block("", ["a … c", "…", "d"]), "x\na b c\ny\nd\n")
    for wrong in ("d\na b c\n", "a b c\n", "a b\nd\n"):
        with pytest.raises(AssertionError, match="no '"):
            check(Block("", ["a … c", "d"]), wrong)


def test_the_receivers_quick_start_ends_with_a_forgery_refused(tmp_path: Path) -> None:
    if shutil.which("openssl") is None or shutil.which("curl") is None:
        pytest.fail("the page needs openssl and curl")
    Reader(tmp_path).follow("receiver.md", {"8000": str(free_port())}, 60)


def test_the_operators_quick_start_ends_with_a_delivery_that_was_retried(
    kafka: KafkaBroker, empty_database: Database, topic: str, tmp_path: Path
) -> None:
    kafka.create_topic(topic, 2)
    admin = free_port()
    reader = Reader(
        tmp_path, DISPATCHERD_ADMIN__PORT=str(admin), DISPATCHERD_KAFKA__GROUP_ID=f"group-{topic}"
    )
    changes = {
        "127.0.0.1:9092": kafka.bootstrap,
        "[orders]": f"[{topic}]",
        "--topic orders": f"--topic {topic}",
        "postgresql:///dispatcherd": empty_database.dsn,
        "127.0.0.1:8000": f"127.0.0.1:{(port := free_port())}",
        '"127.0.0.1", 8000': f'"127.0.0.1", {port}',
        "127.0.0.1:9464": f"127.0.0.1:{admin}",
        # On a busy machine the default's five seconds pass between two lines of the page.
        "{env: WEBHOOK_SECRET}": "{env: WEBHOOK_SECRET}\n    retry: {schedule_seconds: [0, 300]}",
    }
    reader.follow("operator.md", changes, 120)


def test_the_producers_quick_start_ends_with_an_event_in_the_topic(tmp_path: Path) -> None:
    reader = Reader(tmp_path, TMPDIR=str(tmp_path))
    reader.follow("producer.md", {"demo --keep": "demo --keep --events 100"}, 180)
