"""Ties a child to its parent's life: `python tether.py SIGNAL PARENT UID GID PROGRAM ARGUMENT…`.

Sets the user, asks the kernel to send SIGNAL when the parent dies, whatever killed it
(PR_SET_PDEATHSIG, prctl(2)), and becomes PROGRAM under the same process id. A program of its own,
because code between fork and exec is not safe in a process with threads; of the standard library
alone, because it runs by its path. UID -1: the user stays.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """Never returns."""
    number, parent, uid, gid = (int(text) for text in argv[:4])
    libc = _libc()  # first: another user may not be able to read what Python imports
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if libc is not None:
        libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)  # last: a change of user clears it
    if os.getppid() != parent:  # it died before the kernel knew
        signal.raise_signal(signal.SIGKILL)
    os.execv(argv[4], argv[4:])


def _libc() -> Any:
    """None where Python was built without ctypes: then only an orderly end ends the child too."""
    try:
        import ctypes
    except ImportError:
        return None
    return ctypes.CDLL(None)


if __name__ == "__main__":
    main(sys.argv[1:])
