"""The samples of examples/ as processes: built and run by the commands of their own READMEs.

A sample's README has one `sh` block: a line that exports its configuration, lines that build, and
a last line that runs. What a reader is told to type is what is run here, in a copy under
.parts, which keeps what was built until the sample's files change.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.rig.waiting import free_port, wait_for

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
RECEIVERS = EXAMPLES / "receivers"
PRODUCERS = EXAMPLES / "producers"
BUILT = ROOT / ".parts" / "samples"
_MADE = {"node_modules", "target", "dist", "classes", "state"}
"""Folders of what a reader has built in place: no part of a sample."""


@dataclass(frozen=True)
class Sample:
    """One folder of examples/receivers."""

    folder: str
    language: str
    tools: tuple[str, ...]
    """Executables without which it cannot be built or run."""
    version: str
    """The command line that says which toolchain it runs on."""
    lacks: dict[str, str] = field(default_factory=dict)
    """Checks that it cannot pass, with the reason."""

    @property
    def source(self) -> Path:
        return RECEIVERS / self.folder

    def missing(self) -> str | None:
        """Which tools are missing; None when it can be built."""
        return absent(self.folder, self.tools)

    def toolchain(self) -> str:
        """The version of what it ran on."""
        done = subprocess.run(
            ["sh", "-c", self.version], capture_output=True, text=True, timeout=60, check=True
        )
        found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
        assert found is not None, done
        return found[0]


SAMPLES = (
    Sample("python", "Python", ("python3",), "python3 --version"),
    Sample("node", "Node.js", ("node",), "node --version"),
    Sample("express", "Node.js, Express", ("node", "npm"), "node --version"),
    Sample("typescript", "TypeScript", ("node", "npm"), "node --version"),
    Sample("go", "Go", ("go",), "go version"),
    Sample("java", "Java", ("java", "javac"), "java -version"),
    Sample("rust", "Rust, axum", ("cargo",), "cargo --version"),
    Sample(
        "php", "PHP", ("php",), "php --version",
        lacks={
            "endless body": "the web server that comes with PHP reads a body to its end first",
            "slow body": "the web server that comes with PHP waits without limit",
        },
    ),
    Sample("ruby", "Ruby, WEBrick", ("ruby",), "ruby --version"),
    Sample("csharp", "C#, Mono", ("mcs", "mono"), "mono --version"),
    Sample("shell", "bash, openssl", ("bash", "openssl", "socat", "jq"), "openssl version"),
)  # fmt: skip


def absent(name: str, tools: Iterable[str]) -> str | None:
    """Which of the tools are missing; None when all are there."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return f"{name} needs {', '.join(missing)} (make parts)" if missing else None


def commands(source: Path) -> tuple[list[str], str]:
    """The lines that build a sample, and the line that runs it, from its README."""
    [block] = re.findall(r"^```sh\n(.*?)^```", (source / "README.md").read_text(), re.M | re.S)
    first, *build, run = block.splitlines()
    assert first.startswith("export "), f"{source}/README.md does not begin with exports"
    return build, run


def build(source: Path) -> Path:
    """The folder in which a sample can be run; built at most once for the same files."""
    target = BUILT / source.relative_to(EXAMPLES)
    target.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    files = [p for p in source.rglob("*") if p.is_file() and not _MADE & {*p.parts}]
    for path in sorted(files):
        digest.update(str(path.relative_to(source)).encode() + path.read_bytes())
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = target.with_suffix(".built")
        if stamp.exists() and stamp.read_text() == digest.hexdigest():
            return target
        stamp.unlink(missing_ok=True)
        ignore = shutil.ignore_patterns(*_MADE)
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignore)
        run("\n".join(commands(source)[0]), target)
        stamp.write_text(digest.hexdigest())
    return target


def run(lines: str, folder: Path, **environ: str) -> str:
    """Run a sample's commands to their end; what they print."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", lines], cwd=folder, capture_output=True, text=True,
        timeout=300, stdin=subprocess.DEVNULL, env={**os.environ, **environ},
    )  # fmt: skip
    assert done.returncode == 0, f"{folder}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def _own_port() -> int:
    """A free port that no other sample was given: they are all started before any is waited for."""
    while (port := free_port()) in _given:
        pass
    _given.add(port)
    return port


_given: set[int] = set()


class Running:
    """A sample that listens."""

    def __init__(self, sample: Sample, secrets: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.sample = sample
        self.port = _own_port()
        self._log = folder / f"{sample.folder}.log"
        state = folder / sample.folder
        state.mkdir()
        environ = {**os.environ, "PORT": str(self.port), "WEBHOOK_SECRET": secrets,
                   "STATE_DIRECTORY": str(state)}  # fmt: skip
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", commands(sample.source)[1]],
                cwd=build(sample.source),
                env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/webhooks"

    def wait_ready(self) -> None:
        """Until it answers."""
        wait_for(self._answers, 60, f"{self.sample.folder} ready")

    def _answers(self) -> bool:
        assert self._process.poll() is None, f"{self.sample.folder} ended: {self.log()}"
        try:
            return self.get("/healthz")[0] == 200
        except OSError:
            return False

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def processed(self) -> list[str]:
        """The ids that it has handled, in order."""
        status, body = self.get("/processed")
        assert status == 200, (status, body)
        found: list[str] = json.loads(body)["processed"]
        return found

    def log(self) -> str:
        """All that it has said."""
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        """End it and whatever it has started."""
        with contextlib.suppress(ProcessLookupError):  # nothing of it is left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
