#!/bin/sh
# Writes requirements.lock: the hashes of what dispatcherd needs to run, and of what builds it, at the
# versions of constraints.txt. `make lock`, after each change there. The index is asked, whichever is
# configured; the file names none.
set -eu
cd "$(dirname "$0")/.."
uv=$1
{
    echo "# Made by \`make lock\` of pyproject.toml and constraints.txt. To install exactly this:"
    echo "#     pip install --require-hashes --no-deps -r requirements.lock"
    echo "#     pip install --no-deps --no-build-isolation ."
    echo setuptools | "$uv" pip compile --quiet pyproject.toml - \
        --constraint constraints.txt --python-version 3.11 --universal --generate-hashes \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links
} >requirements.lock.new
mv requirements.lock.new requirements.lock
