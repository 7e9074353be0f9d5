"""A limit of memory for one process, kept by the kernel: what MemoryMax= of systemd is."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from tests.rig.waiting import wait_for

_ROOT = Path("/sys/fs/cgroup")


class MemoryLimit:
    """A control group below this process's own. Whatever in it needs more is killed."""

    def __init__(self, most_bytes: int) -> None:
        """Raises OSError where this machine lets nobody make such a group."""
        name = f"dispatcherd-memory-{os.getpid()}-{secrets.token_hex(3)}"
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        own = dict(line.split(":", 2)[1:] for line in lines)
        if "memory" in own:  # version 1
            self.group = _ROOT / "memory" / own["memory"].lstrip("/") / name
            if not self.group.parent.exists():  # seen from a namespace
                self.group = _ROOT / "memory" / name
            self.group.mkdir()
            (self.group / "memory.limit_in_bytes").write_text(str(most_bytes))
        else:
            parent = _ROOT / own[""].lstrip("/")
            if "memory" not in (parent / "cgroup.subtree_control").read_text():
                (parent / "cgroup.subtree_control").write_text("+memory")
            self.group = parent / name
            self.group.mkdir()
            (self.group / "memory.max").write_text(str(most_bytes))
            (self.group / "memory.swap.max").write_text("0")

    def prefix(self) -> list[str]:
        """The beginning of a command that runs within it."""
        return ["sh", "-c", f'echo $$ >"{self.group}/cgroup.procs" && exec "$@"', "sh"]

    def kills(self) -> int:
        """How often the kernel had to kill."""
        for name in ("memory.events", "memory.oom_control"):
            path = self.group / name
            if path.exists():
                fields = dict(line.split() for line in path.read_text().splitlines())
                return int(fields.get("oom_kill", 0))
        raise AssertionError(f"{self.group} does not say")

    def remove(self) -> None:
        """Once everything in it has ended."""
        procs = self.group / "cgroup.procs"
        wait_for(lambda: not procs.read_text().strip(), 20, f"{self.group} to be empty")
        self.group.rmdir()
