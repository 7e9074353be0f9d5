"""dispatcherd as a service inside a throwaway systemd, installed the way systemd/README.md says.

What is not as there: /opt/dispatcherd holds this source tree and this interpreter, bound read-only,
instead of an environment that pip made; and the debug hook: SIGUSR1 blocks the loop for 4 s,
SIGUSR2 for ten minutes.
"""

from __future__ import annotations

import http.client
import re
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.rig.systemd import Systemd
from tests.rig.waiting import free_port, wait_for

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "systemd"
UNIT = "dispatcherd.service"
_HIDDEN = ("/home", "/root", "/run", "/tmp")
"""What the sandbox shows empty: an interpreter in there is bound to where it can be seen."""

_LAUNCHER = """\
#!/bin/sh
export PYTHONPATH=/opt/dispatcherd/source:/opt/dispatcherd/site-packages
export LD_LIBRARY_PATH=/opt/dispatcherd/python/lib
exec {python} /opt/dispatcherd/bin/launch.py "$@"
"""
_LAUNCH = """\
import signal, time
signal.signal(signal.SIGUSR1, lambda *_: time.sleep(4))
signal.signal(signal.SIGUSR2, lambda *_: time.sleep(600))
from dispatcherd.__main__ import main
main()
"""


def binds() -> list[tuple[Path, str]]:
    """What of this machine is shown inside, and where."""
    found = [(ROOT, "/opt/dispatcherd/source")]
    found.append((Path(sysconfig.get_path("purelib")), "/opt/dispatcherd/site-packages"))
    if _bound_python():
        found.append((Path(sys.base_prefix), "/opt/dispatcherd/python"))
    return found


def _bound_python() -> bool:
    return any(Path(sys.base_prefix).is_relative_to(folder) for folder in _HIDDEN)


def python() -> str:
    """The interpreter's path inside."""
    name = f"bin/python{sys.version_info.major}.{sys.version_info.minor}"
    return f"/opt/dispatcherd/python/{name}" if _bound_python() else f"{sys.base_prefix}/{name}"


def _commands() -> str:
    """The block of README.md that installs user and units."""
    found = re.findall(r"^```sh\n(.*?)^```", (UNITS / "README.md").read_text(), re.M | re.S)
    assert len(found) == 1, found
    return str(found[0])


def install(machine: Systemd) -> None:
    """Program, user, units."""
    machine.write("/opt/dispatcherd/bin/launch.py", _LAUNCH)
    machine.write("/opt/dispatcherd/bin/dispatcherd", _LAUNCHER.format(python=python()), 0o755)
    machine.run("sh", "-euxc", f"cd /opt/dispatcherd/source\n{_commands()}")
    # Enabled, it is also kept in systemd's memory after a stop, with how it ended.
    machine.systemctl("enable", "dispatcherd.service")
    machine.systemctl("daemon-reload")


class Service:
    """The service, as its operator sees it."""

    def __init__(self, machine: Systemd, unit: str = UNIT) -> None:
        self.machine = machine
        self.unit = unit
        self.port = free_port()
        self._seen = len(machine.journal(unit))

    def configure(self, config: dict[str, Any]) -> None:
        """Write /etc/dispatcherd/config.yaml."""
        text = yaml.safe_dump({**config, "admin": {"port": self.port}})
        path = "/etc/dispatcherd/config.yaml"
        self.machine.write(path, text, 0o640)
        self.machine.run("chown", "root:dispatcherd", path)

    def command(self, *arguments: str) -> str:
        """A command of the program, as the service's user."""
        return self.machine.run(
            "runuser", "-u", "dispatcherd", "--", "env",
            "DISPATCHERD_CONFIG=/etc/dispatcherd/config.yaml",
            "/opt/dispatcherd/bin/dispatcherd", *arguments,
        ).stdout  # fmt: skip

    def drop_in(self, name: str, text: str) -> None:
        """Add one; `end` removes it."""
        self.machine.write(f"/etc/systemd/system/{self.unit}.d/test-{name}.conf", text)
        self.machine.systemctl("daemon-reload")

    def start(self) -> None:
        """`systemctl start`, which returns when the service has said READY."""
        done = self.machine.systemctl("start", self.unit, check=False)
        assert done.returncode == 0, (done.stderr, self.log()[-3000:])

    def show(self) -> dict[str, str]:
        """Its properties."""
        return self.machine.show(self.unit)

    def status(self) -> str:
        """What it says of itself in `systemctl status`."""
        return self.show().get("StatusText", "")

    def pid(self) -> int:
        """The main process, by its number inside."""
        return int(self.show()["MainPID"])

    def kill(self, signal: str) -> None:
        """Send a signal to the main process."""
        self.machine.run("kill", f"-{signal}", str(self.pid()))

    def wait_restarted(self, times: int = 1) -> dict[str, str]:
        """Until it has been restarted and is ready again; its properties then."""

        def again() -> dict[str, str] | None:
            shown = self.show()
            done = int(shown["NRestarts"]) >= times and shown["ActiveState"] == "active"
            return shown if done else None

        return wait_for(again, 60, f"{self.unit} restarted ({self.log()[-2000:]})") or {}

    def journal(self) -> list[dict[str, Any]]:
        """Its journal since this object was made."""
        return self.machine.journal(self.unit)[self._seen :]

    def log(self) -> str:
        """The messages of its journal."""
        return "\n".join(str(entry.get("MESSAGE")) for entry in self.journal())

    def wait_logged(self, text: str) -> None:
        """Until a message holds it: the journal is written a moment after what it speaks of."""
        wait_for(lambda: text in self.log(), 30, f"{text!r} in the journal of {self.unit}")

    def metric(self, name: str, labels: str = "") -> float:
        """One value from /metrics; 0 when there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and ",".join(sample.labels.values()) == labels:
                    return sample.value
        return 0.0

    def end(self) -> None:
        """Stopped, forgotten, and without this test's drop-ins."""
        self.machine.systemctl("kill", "--signal=KILL", self.unit, check=False)
        self.machine.systemctl("stop", self.unit, check=False)
        self.machine.systemctl("reset-failed", self.unit, check=False)
        for path in self.machine.inside(f"/etc/systemd/system/{self.unit}.d").glob("test-*.conf"):
            path.unlink()
        shutil.rmtree(self.machine.inside("/etc/dispatcherd/secrets"), ignore_errors=True)
        self.machine.systemctl("daemon-reload")
