"""`python -m tests.faults`: the command in a process of its own, and nothing of it left behind.

Brokers, servers, members and receivers are processes too; when the bench is killed or aborts, they
would go on. The kernel hands them to this process (PR_SET_CHILD_SUBREAPER, prctl(2)), which ends
them.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import subprocess
import sys

import psutil

_PR_SET_CHILD_SUBREAPER = 36


def main(argv: list[str]) -> int:
    """Its exit code; 1 when it did not end by itself."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    bench = subprocess.Popen([sys.executable, "-m", "tests.faults.command", *argv])
    signal.signal(signal.SIGTERM, lambda *_: bench.kill())
    try:
        code = bench.wait()
    except KeyboardInterrupt:  # the terminal told the bench as well
        code = bench.wait()
    for left in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()
    if code < 0:
        print(f"the bench was ended by {signal.Signals(-code).name}", file=sys.stderr)
    return code if code >= 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
