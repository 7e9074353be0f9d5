"""A wall clock that jumps, for one process: libfaketime, told by a file; monotonic time is real."""

from __future__ import annotations

from pathlib import Path

from tests.rig.need import need

_LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


class WallClock:
    """Its `environ` makes a process live by it."""

    def __init__(self, folder: Path) -> None:
        if not _LIBRARIES:
            why = "libfaketime is not installed (Debian: apt install faketime, or: make parts)"
            need(why)
        self._file = folder / "clock"
        self.jump(0)
        self.environ = {
            "LD_PRELOAD": str(_LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }

    def jump(self, seconds: int) -> None:
        """So far from the true time, from now on."""
        written = self._file.with_suffix(".new")
        written.write_text(f"{seconds:+d}")
        written.replace(self._file)
