"""A small disk of its own: a tmpfs that can be filled to the last byte, and emptied again."""

from __future__ import annotations

import errno
import subprocess
import tempfile
from pathlib import Path

import pytest


class SmallDisk:
    """Mounted from the beginning to `remove`; below /tmp, so that any user can reach it."""

    def __init__(self, megabytes: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dispatcherd-disk-"))
        self._ballast = self.folder / "ballast"
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "tmpfs"]
        done = subprocess.run([*mount, str(self.folder)], capture_output=True, text=True)
        if done.returncode:
            self.folder.rmdir()
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")

    def fill(self) -> None:
        """Until nothing more can be written."""
        with self._ballast.open("ab", buffering=0) as file:
            size = 1 << 20
            while size:
                try:
                    if file.write(bytes(size)) < size:
                        size //= 2
                except OSError as error:
                    assert error.errno == errno.ENOSPC, error
                    size //= 2

    def empty(self) -> None:
        """Take away what `fill` has put there."""
        self._ballast.unlink()

    def remove(self) -> None:
        """Unmount it, whatever is still open."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)
        self.folder.rmdir()
