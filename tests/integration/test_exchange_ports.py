"""Out of ephemeral ports: a named failure for what has none, and nothing of it stays."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def test_out_of_ports_is_named_and_heals() -> None:
    """In a network namespace with 12 ports: 24 requests at once, then 24 in turn."""
    probe = ["unshare", "-n", sys.executable, "-m", "tests.rig.few_ports"]
    can = subprocess.run(["unshare", "-n", "true"], capture_output=True, text=True)
    if can.returncode:
        pytest.skip(f"a network namespace cannot be made here: {can.stderr.strip()}")
    done = subprocess.run(probe, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["short"] == {"no_port": 12}
    assert seen["kept"] == {"0": 12, "200": 12}
    assert seen["again"] == {"200": 24}
