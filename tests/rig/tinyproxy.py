"""A real egress proxy: Debian's tinyproxy, with name and password."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

from tests.rig.need import need
from tests.rig.waiting import free_port, wait_for

USERNAME, PASSWORD = "me", "hunter2-of-the-proxy"


class Tinyproxy:
    """On loopback; does CONNECT to one port alone. Skips the test, or in CI fails it, where it is
    missing."""

    def __init__(self, folder: Path, connect_port: int) -> None:
        if shutil.which("tinyproxy") is None:
            why = "tinyproxy (Debian's tinyproxy-bin) is not on this machine"
            need(why)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / "tinyproxy.log"
        configuration = folder / "tinyproxy.conf"
        configuration.write_text(
            f"Port {self.port}\nListen 127.0.0.1\nTimeout 20\nMaxClients 20\n"
            f'LogFile "{self._log}"\nLogLevel Connect\n'
            f"BasicAuth {USERNAME} {PASSWORD}\nConnectPort {connect_port}\n"
        )
        self._process = subprocess.Popen(["tinyproxy", "-d", "-c", str(configuration)])
        wait_for(self._answers, 20, "tinyproxy")

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def log(self) -> str:
        """What it was asked, in its words."""
        return self._log.read_text()

    def stop(self) -> None:
        """End it."""
        self._process.kill()  # in order it would first wait for its connections
        self._process.wait(10)
