"""An earlier state of a catalogue: another directory, or the same one at a commit of git.

Invariant: reads only; the working tree and git's index stay as they are. Leaves out: comparing
(compatibility).
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from dispatcherd.errors import CatalogueError, CatalogueProblem
from dispatcherd.events.files import SUFFIXES, read
from dispatcherd.events.source import Source

_TIMEOUT_SECONDS = 60


def earlier(path: str | Path, against: str) -> list[Source]:
    """The files of the state that `against` names: a directory, or a commit, branch or tag of the
    repository that `path` lies in. Empty when the directory did not exist in that commit.

    Raises CatalogueError.
    """
    if Path(against).is_dir():
        return read(against)
    _git(path, against, "rev-parse", "--verify", "--quiet", f"{against}^{{commit}}")
    listed = _git(path, against, "ls-tree", "-z", "--name-only", against, "./").decode()
    names = [name for name in listed.split("\0") if Path(name).suffix in SUFFIXES]
    return [
        Source(f"{against}:{name}", _text(_git(path, against, "show", f"{against}:./{name}")))
        for name in names
    ]


def _git(path: str | Path, against: str, *arguments: str) -> bytes:
    try:
        done = subprocess.run(
            ["git", "-C", str(path), *arguments],
            capture_output=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise _refused(against, "no directory, and git is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise _refused(against, f"git did not answer within {_TIMEOUT_SECONDS} s") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        words = f": {said[-1]}" if said else ""
        raise _refused(
            against, f"neither a directory nor a commit of the repository of {path}{words}"
        )
    return done.stdout


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")  # of what is past nothing can be mended


def _refused(against: str, trouble: str) -> CatalogueError:
    remedy = "Name a directory, or a branch, tag or commit that is fetched here"
    return CatalogueError([CatalogueProblem(against, None, "", trouble, remedy)])
