"""Child processes of the demo: none outlives it.

Invariant: a child is in a session of its own (a Ctrl-C reaches the demo alone, which then ends its
children), and the kernel ends it when the demo dies without having done so. Leaves out: what the
children do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dispatcherd.errors import DispatcherdError

_TETHER = str(Path(__file__).with_name("tether.py"))


class DemoFailed(DispatcherdError):
    """Something that the demo needs is missing or did not work: what, and what to do."""


class User(NamedTuple):
    """A system user, by number."""

    uid: int
    gid: int


def environment() -> dict[str, str]:
    """The demo's environment for its children, without settings that are meant for a daemon."""
    return {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHERD")}


class Child:
    """One process, its output in a file."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @classmethod
    async def start(
        cls,
        name: str,
        argv: Sequence[str],
        log: Path,
        *,
        user: User | None = None,
        when_orphaned: signal.Signals = signal.SIGKILL,
        piped: bool = False,
        cwd: Path | None = None,
    ) -> Child:
        """Start it; `piped` gives it a stdin and a stdout of ours. Raises DemoFailed."""
        uid, gid = user or (-1, -1)
        orders = [when_orphaned.value, os.getpid(), uid, gid]
        pipe = asyncio.subprocess.PIPE
        with log.open("ab") as output:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", _TETHER, *map(str, orders), *argv),
                    stdin=pipe if piped else asyncio.subprocess.DEVNULL,
                    stdout=pipe if piped else output,
                    stderr=output,
                    env=environment(),
                    start_new_session=True,
                    cwd=cwd,
                )
            except OSError as error:
                raise DemoFailed(f"{name} could not be started: {error}") from error
        return cls(name, process, log)

    def running(self) -> bool:
        """Whether it lives."""
        return self.process.returncode is None

    def check(self) -> None:
        """Raise DemoFailed, with its last words, if it has ended."""
        if not self.running():
            raise DemoFailed(
                f"{self.name} ended with code {self.process.returncode}. The end of its log:\n"
                f"{self.last_words()}"
            )

    def last_words(self, lines: int = 15) -> str:
        """The end of its log."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) or "(empty)"

    async def stop(self, number: signal.Signals, timeout_seconds: float) -> int | None:
        """Signal it and wait; its exit code, or None when it took too long and was killed."""
        if self.running():
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                self.process.send_signal(number)
            try:
                await asyncio.wait_for(self.process.wait(), timeout_seconds)
            except TimeoutError:
                await self.kill()
                return None
        return self.process.returncode

    async def kill(self) -> None:
        """SIGKILL to it and what it started, and wait for the end."""
        if self.running():
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                os.killpg(self.process.pid, signal.SIGKILL)  # it leads a session, so a group too
            await self.process.wait()

    def usage(self) -> tuple[float, int]:
        """(CPU seconds so far, most bytes ever resident), by the kernel's account (proc(5))."""
        folder = Path("/proc", str(self.process.pid))
        times = (folder / "stat").read_text().rpartition(")")[2].split()
        ticks = int(times[11]) + int(times[12])
        peak = re.search(r"VmHWM:\s+(\d+) kB", (folder / "status").read_text())
        return ticks / os.sysconf("SC_CLK_TCK"), int(peak[1]) * 1_024 if peak else 0
