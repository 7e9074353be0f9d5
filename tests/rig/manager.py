"""A service manager's end of sd_notify(3): a datagram socket that keeps what was said."""

from __future__ import annotations

import os
import socket
from pathlib import Path


class ManagerSocket:
    """Bound at a path or, with `abstract`, in the abstract namespace."""

    def __init__(self, folder: Path, abstract: bool = False) -> None:
        name = f"@dispatcherd-test-{os.getpid()}-{id(self)}" if abstract else str(folder / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + name[1:] if abstract else name)
        self.socket.setblocking(False)
        self.environ = {"NOTIFY_SOCKET": name}
        """What systemd would set."""

    def heard(self) -> list[dict[str, str]]:
        """Each datagram since the last call, as its assignments."""
        found = []
        while True:
            try:
                text = self.socket.recv(65_536).decode()
            except BlockingIOError:
                return found
            lines = text.split("\n")
            assert all("=" in line for line in lines), text
            found.append(dict(line.split("=", 1) for line in lines))

    def fill(self) -> None:
        """Until its buffer takes nothing more."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.setblocking(False)
            try:
                while True:
                    s.sendto(b"FILLER=1", self.socket.getsockname())
            except BlockingIOError:
                pass

    def close(self) -> None:
        """Nobody listens any more."""
        self.socket.close()
