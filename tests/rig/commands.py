"""The program's commands as processes: with a configuration, with stdin, on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import yaml


class Commands:
    """`dispatcherd <command>` with one configuration."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._environ = {k: v for k, v in os.environ.items() if not k.startswith("DISPATCHERD_")}
        self.path = folder / "config.yaml"
        self.path.write_text(yaml.safe_dump(config))

    def line(self, *arguments: str) -> list[str]:
        """The command as a list of words."""
        return [sys.executable, "-m", "dispatcherd", *arguments, "--config", str(self.path)]

    def run(
        self, *arguments: str, stdin: bytes = b"", timeout_seconds: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """To its end; its output as text. No command may print a traceback."""
        done = subprocess.run(
            self.line(*arguments), input=stdin, capture_output=True, timeout=timeout_seconds,
            env=self._environ,
        )  # fmt: skip
        stdout, stderr = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in stderr, stderr
        return subprocess.CompletedProcess(done.args, done.returncode, stdout, stderr)

    def ok(self, *arguments: str, stdin: bytes = b"") -> str:
        """Its output; fails unless the exit code is 0."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Not waited for."""
        return subprocess.Popen(
            self.line(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self._environ
        )

    def on_terminal(self, *arguments: str, columns: int = 80) -> str:
        """What a person sees on a terminal of that width."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environ = {**self._environ, "TERM": "dumb"}
        environ.pop("COLUMNS", None)
        process = subprocess.Popen(
            self.line(*arguments), stdin=slave, stdout=slave, stderr=slave, env=environ
        )
        os.close(slave)
        try:
            shown = _read_all(master, time.monotonic() + 60)
        finally:
            os.close(master)
            process.kill()
            process.wait(10)
        return shown.decode().replace("\r\n", "\n")


def _read_all(descriptor: int, deadline: float) -> bytes:
    """Until the other side is closed."""
    content = b""
    while True:
        readable, _, _ = select.select([descriptor], [], [], max(0, deadline - time.monotonic()))
        assert readable, f"the terminal is still open after 60 s: {content!r}"
        try:
            part = os.read(descriptor, 65_536)
        except OSError:  # EIO: the last process that had it open has ended
            return content
        if not part:
            return content
        content += part
