"""The compiled modules do what the plain ones do: the same tests, against both."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TREE = ROOT / "build" / "compiled"

_SELECTION = (
    "tests/unit/test_answer.py",
    "tests/unit/test_batch.py",
    "tests/unit/test_decode.py",
    "tests/unit/test_decode_refusals.py",
    "tests/unit/test_host_slots.py",
    "tests/unit/test_lane.py",
    "tests/unit/test_lane_history.py",
    "tests/unit/test_metrics.py",
    "tests/unit/test_offsets.py",
    "tests/unit/test_outcome.py",
    "tests/unit/test_sign.py",
    "tests/unit/test_wheel.py",
    "tests/integration/test_exchange_broken.py",
    "tests/integration/test_exchange_ends.py",
    "tests/acceptance/test_the_way_of_an_event.py",
    "tests/acceptance/test_bad_records.py",
)
_LEFT_OUT = "not (exchange and reference) and not millions_of_operations"
"""The reference exchange is not compiled; the wheel is tried against its model in another way too.

This is what runs in `make test`; `make test-compiled` runs everything."""


def _need_compiler() -> None:
    if ROOT.name == "compiled":
        pytest.skip("this is the compiled tree")
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    missing = [
        name
        for name, there in (("gcc", shutil.which("gcc")), (str(headers), headers.exists()))
        if not there
    ]
    if missing:
        why = f"no {' and no '.join(missing)}: the modules cannot be compiled here"
        if os.environ.get("CI"):
            pytest.fail(f"in CI nothing may be missing: {why}")
        pytest.skip(why)


def _compiled_sources() -> dict[str, ast.Module]:
    tree = ast.parse((ROOT / "setup.py").read_text())
    [listed] = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "COMPILED"
    ]
    assert len(listed) > 15
    return {n: ast.parse((ROOT / "dispatcherd" / f"{n}.py").read_text()) for n in listed}


def test_compiled_modules_hold_no_coroutines() -> None:
    """mypyc 2.4 corrupts memory where one waits while an exception is being handled."""
    for name, source in _compiled_sources().items():
        waiting = [n.name for n in ast.walk(source) if isinstance(n, ast.AsyncFunctionDef)]
        assert not waiting, f"{name}: {waiting}"


def test_constant_tuples_of_compiled_modules_are_of_any_length_to_the_compiler() -> None:
    """mypyc 2.4 leaves a longer one unset whose length is part of its type, and tells only when it
    is read."""
    for name, source in _compiled_sources().items():
        inferred = [
            ast.unparse(node.target)
            for node in source.body
            if isinstance(node, ast.AnnAssign)
            and ast.unparse(node.annotation) == "Final"
            and isinstance(node.value, ast.Tuple)
        ]
        assert not inferred, f"{name}: annotate as Final[tuple[..., ...]]: {inferred}"


def test_the_compiled_modules_pass_the_tests_of_the_plain_ones() -> None:
    _need_compiler()
    made = subprocess.run(
        ["make", "--no-print-directory", "compiled"],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-3000:]
    said = subprocess.run(
        [sys.executable, "-m", "dispatcherd", "version"],
        cwd=TREE, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert said.stdout.strip().endswith("(compiled)"), said
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         "-k", _LEFT_OUT, *_SELECTION],
        cwd=TREE, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
