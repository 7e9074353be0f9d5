"""A throwaway systemd as PID 1 of its own namespaces, on a copy-on-write view of this machine.

Invariant: the real tree, /run, /tmp and the machine's own systemd are never touched, and when its
PID 1 dies (which it does with this process, whatever becomes of it), every process and mount of it
is gone. The network is this machine's, so that parts on loopback can be reached from inside.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psutil

from tests.rig.need import need as need_part
from tests.rig.waiting import wait_for

BOOT = Path(__file__).with_name("systemd_boot.sh")
SYSTEMD = Path("/lib/systemd/systemd")
_UNSHARE = ("unshare", "-m", "-p", "-f", "-i", "-u", "--cgroup", "--kill-child=KILL")
_OLDEST = 250
_GROUP = "dispatcherd-test"
_HYBRID = {"memory", "name=systemd"}
"""Hierarchies of cgroup version 1: where the kernel has the memory controller in there, systemd
limits memory only with both of them beside the unified one."""


def missing(least: int = _OLDEST) -> str | None:
    """Which package is missing; None when systemd is installed and new enough."""
    found = shutil.which("systemd-analyze")
    if found is None or not SYSTEMD.exists():
        return "systemd is not installed (Debian: apt install systemd, or: make parts)"
    version = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=10)
    number = re.match(r"systemd (\d+)", version.stdout)
    assert number is not None, version
    return None if int(number[1]) >= least else f"systemd {number[1]} is older than {least}"


def need() -> None:
    """Skips the test, or in CI fails it, where no package is there."""
    need_part(missing())


def unable(folder: Path) -> str | None:
    """Why this machine (kernel, container, user) cannot carry a systemd of ours; None if it can."""
    if os.geteuid() != 0:
        return "a throwaway systemd needs root"
    absent = [p for p in ("unshare", "nsenter", "setpriv", "pivot_root") if shutil.which(p) is None]
    if absent:
        return f"a throwaway systemd needs {', '.join(absent)} (util-linux)"
    try:
        cgroup = _Cgroup()
    except OSError as error:
        return f"a throwaway systemd needs a cgroup2 of its own: {error}"
    folder.mkdir(parents=True)
    try:
        command = [*cgroup.enter(), *_UNSHARE, "sh", str(BOOT), "probe", str(folder)]
        tried = subprocess.run(command, capture_output=True, text=True, timeout=30)
    finally:
        cgroup.remove()
    last = [line for line in tried.stderr.splitlines() if line.strip()][-2:]
    return f"a throwaway systemd: {'; '.join(last)}" if tried.returncode else None


def unable_to_limit_memory() -> str | None:
    """Why MemoryMax= of a systemd of ours would not be enforced here; None when it would."""
    try:
        if not _HYBRID.issubset(_own_groups()):
            available = (_parent() / "cgroup.controllers").read_text().split()
            if "memory" not in available:
                raise OSError("the memory controller is in no hierarchy that we could hand on")
            (_parent() / "cgroup.subtree_control").write_text("+memory")
    except OSError as error:
        return f"MemoryMax= of a throwaway systemd: {error}"
    return None


def remains(folder: Path, pid: int) -> list[str]:
    """What is left of a systemd that a process made in a folder: mounts and groups."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    parents = [_own_groups()[name] for name in ("", *_HYBRID) if name in _own_groups()]
    groups = [str(group) for parent in parents for group in parent.glob(f"{_GROUP}-{pid}")]
    return [line for line in mounts if str(folder) in line] + groups


def sweep() -> None:
    """Remove the empty groups of makers that were killed."""
    own = _own_groups()
    for parent in [own[name] for name in ("", *_HYBRID) if name in own]:
        for group in parent.glob(f"{_GROUP}-*"):
            if not psutil.pid_exists(int(group.name.rpartition("-")[2])):
                _remove(group)


def _own_groups() -> dict[str, Path]:
    """Hierarchy → this process's own group in it: "" for the unified one, a controller's name, or
    `name=systemd`."""
    mounted: dict[str, list[str]] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, (kind, _, options) = *line.partition(" - ")[:2], line.partition(" - ")[2].split()
        if kind in ("cgroup", "cgroup2"):
            for name in [""] if kind == "cgroup2" else options.split(","):
                mounted.setdefault(name, fields.split())
    found = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, own = line.split(":", 2)
        for name in names.split(","):
            if name in mounted:
                found[name] = Path(mounted[name][4]) / os.path.relpath(own, mounted[name][3])
    return found


def _parent() -> Path:
    """This process's own group in the unified hierarchy; raises OSError when there is none."""
    own = _own_groups()
    if "" not in own:
        raise OSError("no cgroup2 is mounted")
    return own[""]


class _Cgroup:
    """A group below this process's own, for everything of one systemd; `hybrid`: one in each
    hierarchy of the first version, too, that systemd needs for limiting memory."""

    def __init__(self, hybrid: bool = False) -> None:
        name = f"{_GROUP}-{os.getpid()}"
        self.path = _parent() / name
        own = _own_groups()
        self._all = [self.path, *(own[h] / name for h in sorted(_HYBRID) if hybrid)]
        sweep()
        for path in self._all:
            path.mkdir(exist_ok=True)

    def enter(self) -> list[str]:
        """The beginning of a command that runs in the group, and dies with this process."""
        joins = " && ".join(f'echo $$ >"{path}/cgroup.procs"' for path in self._all)
        return ["sh", "-c", f'{joins} && exec "$@"', "sh", "setpriv", "--pdeathsig", "KILL"]

    def populated(self) -> bool:
        """Whether a process is left in it."""
        return "populated 1" in (self.path / "cgroup.events").read_text()

    def remove(self) -> None:
        """Remove it, with all that systemd made below it."""
        wait_for(lambda: not self.populated(), 20, f"{self.path} to be empty")
        for path in self._all:
            _remove(path)


def _remove(group: Path) -> None:
    for folder, _, _ in os.walk(group, topdown=False):
        os.rmdir(folder)


class Systemd:
    """One running systemd; `binds` are (directory here, path inside), read-only. With
    `limits_memory` its MemoryMax= is enforced, where `unable_to_limit_memory` has no objection."""

    def __init__(
        self, folder: Path, binds: list[tuple[Path, str]], limits_memory: bool = False
    ) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        hybrid = limits_memory and _HYBRID.issubset(_own_groups())
        self._cgroup = _Cgroup(hybrid)
        self._log = folder.with_suffix(".log")
        pairs = [f"{source}:{target}" for source, target in binds]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._cgroup.enter(), *_UNSHARE, "sh", str(BOOT), "boot", str(folder), *pairs],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "HIERARCHY": "hybrid" if hybrid else "unified"},
            )  # fmt: skip
        try:
            wait_for(self._is_up, 30, "a throwaway systemd")
            self.systemctl("start", "systemd-journald.socket", "systemd-journald-dev-log.socket")
        except BaseException:
            self.stop()
            raise

    def _is_up(self) -> bool:
        ended = self._process.poll()
        assert ended is None, f"it ended with {ended}: {self._log.read_text()}"
        children = psutil.Process(self._process.pid).children()
        if not children or children[0].name() != "systemd":
            return False
        self.pid = children[0].pid
        return self.run("systemctl", "is-system-running", check=False).stdout.strip() == "running"

    def run(
        self, *command: str, check: bool = True, timeout_seconds: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """A command inside, as root."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.pid), "-m", "-p", "-i", "-u", "-C", "-r", "-w",
             "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8",
             "SYSTEMD_UNIT_PATH=/etc/systemd/system", "SYSTEMD_COLORS=0", "SYSTEMD_PAGER=",
             *command],
            capture_output=True, text=True, timeout=timeout_seconds, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert not check or done.returncode == 0, (command, done.returncode, done.stderr)
        return done

    def systemctl(
        self, *arguments: str, check: bool = True, timeout_seconds: float = 90
    ) -> subprocess.CompletedProcess[str]:
        """`systemctl` inside."""
        return self.run("systemctl", *arguments, check=check, timeout_seconds=timeout_seconds)

    def show(self, unit: str) -> dict[str, str]:
        """All properties of a unit."""
        text = self.systemctl("show", unit).stdout
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def journal(self, unit: str) -> list[dict[str, Any]]:
        """What the unit and systemd about it have logged, oldest first."""
        text = self.run("journalctl", "-o", "json", "-u", unit).stdout
        return [json.loads(line) for line in text.splitlines()]

    def inside(self, path: str) -> Path:
        """A path inside, seen from here."""
        return Path(f"/proc/{self.pid}/root") / path.lstrip("/")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """A file inside."""
        target = self.inside(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def stop(self) -> None:
        """Kill PID 1: the kernel ends everything else in its namespaces."""
        for child in self._children():
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        self._process.kill()
        self._process.wait(20)
        self._cgroup.remove()

    def _children(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self._process.pid).children()
        except psutil.NoSuchProcess:
            return []
