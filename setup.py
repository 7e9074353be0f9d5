"""Builds plain Python, or, asked for by DISPATCHERD_COMPILE=1, the modules on the way of an event
compiled with mypyc: same sources, same behaviour, a tenth to a third less CPU. Needs a C compiler
and Python's headers. Everything else about the distribution stands in pyproject.toml.
"""

import os
import sys

from setuptools import setup

# Only modules without coroutines: compiled ones (mypyc 2.4) corrupt memory where one waits while an
# exception is being handled. Their constants are `Final`: C variables then, where other names of a
# module are looked up in its dictionary each time.
COMPILED = (
    "batch",
    "budget",
    "complete",
    "concurrency",
    "decode",
    "delivery",
    "endpoints",
    "exchange/answer",
    "exchange/fast",
    "exchange/http11",
    "filter",
    "intake",
    "lane",
    "metrics",
    "offsets",
    "outcome",
    "overflow",
    "parking",
    "quota",
    "record/buffer",
    "record/gathering",
    "record/holding",
    "route",
    "send",
    "sign",
    "slots",
    "wheel",
)

extensions = []
needs = []
if os.environ.get("DISPATCHERD_COMPILE") == "1":
    # pip asks first what the build needs, and installs it before it builds.
    if "egg_info" in sys.argv:
        needs = ["mypy>=1.18,<3"]
    else:
        from mypyc.build import mypycify

        extensions = mypycify(
            ["--ignore-missing-imports", *(f"dispatcherd/{name}.py" for name in COMPILED)],
            opt_level="3",
            debug_level="0",
        )

setup(ext_modules=extensions, setup_requires=needs)
