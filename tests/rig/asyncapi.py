"""AsyncAPI's own JSON Schemas of its documents, from the npm package `@asyncapi/specs`."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".parts" / "asyncapi"
PACKAGE = "@asyncapi/specs@6.11.1"
SCHEMA = FOLDER / "node_modules" / "@asyncapi" / "specs" / "schemas" / "3.0.0-without-$id.json"


def missing() -> str | None:
    """Why they cannot be had here; None when they can."""
    if SCHEMA.exists() or shutil.which("npm") is not None:
        return None
    return "AsyncAPI's schemas need npm, which this machine has not"


def schema() -> dict[str, Any]:
    """Of documents of version 3.0.0; fetched once, also when several test processes ask."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not SCHEMA.exists():
            subprocess.run(
                ["npm", "install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts",
                 "--prefix", str(FOLDER), PACKAGE],
                check=True, timeout=300, stdin=subprocess.DEVNULL, capture_output=True,
            )  # fmt: skip
    found: dict[str, Any] = json.loads(SCHEMA.read_text())
    return found
