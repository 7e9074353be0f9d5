"""What commands share: the options, and how errors become words and exit codes.

Invariant: an error that is meant for a person is printed without a traceback. Leaves out: the
commands (main, keys, receiving).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from dispatcherd.config.model import Config
from dispatcherd.errors import CatalogueError, ConfigError, DispatcherdError

CONFIG_OPTION = click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False),
    envvar="DISPATCHERD_CONFIG",
    help="Path of config.yaml (or $DISPATCHERD_CONFIG).",
)
_MOST_PROBLEMS = 50
JSON_OPTION = click.option(
    "--json", "as_json", is_flag=True, help="One JSON document or line each."
)
CATALOGUE_OPTION = click.option(
    "--path",
    type=click.Path(file_okay=False),
    help="The directory of the catalogue; default: catalogue.path of the configuration.",
)


def explained(command: Callable[..., Any]) -> Callable[..., Any]:
    """Errors that are meant for a person are printed, and become exit codes."""

    @wraps(command)
    def run(*args: Any, **options: Any) -> Any:
        try:
            return command(*args, **options)
        except (ConfigError, CatalogueError) as error:
            of = "config" if isinstance(error, ConfigError) else "catalogue"
            for problem in error.problems[:_MOST_PROBLEMS]:
                _complain(f"{of}: {problem}")
            if len(error.problems) > _MOST_PROBLEMS:
                _complain(f"{of}: {len(error.problems)} problems in all")
            sys.exit(2)
        except DispatcherdError as error:
            _complain(f"dispatcherd: {error}")
            sys.exit(1)
        except KeyboardInterrupt:
            sys.exit(130)

    return run


def _complain(text: str) -> None:
    from dispatcherd.log import under_journald

    click.echo(("<3>" if under_journald(sys.stderr, os.environ) else "") + text, err=True)


def read_config(path: str | None) -> Config:
    """The configuration of a command; without a path, defaults and environment."""
    from dispatcherd.config.load import load_config

    return load_config(path, os.environ)


def plain(text: str) -> str:
    """What a stranger sent must not steer the terminal: nothing but line breaks and tabs."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
