"""Keys and what is published of them: `keys new`, `keys public`, `facts`.

Invariant: a secret is written to a file that nobody else can read, and never over another one.
Leaves out: where secrets are read from by the daemon (config.secrets).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

from dispatcherd.cli.options import CONFIG_OPTION, JSON_OPTION, explained, read_config
from dispatcherd.errors import DispatcherdError


class KeyFileError(DispatcherdError):
    """A key could not be written or read."""


@click.group()
def keys() -> None:
    """Secrets and keys to sign with."""


@keys.command("new")
@click.option("--hmac", "kind", flag_value="hmac", default=True, help="whsec_… (the default).")
@click.option("--ed25519", "kind", flag_value="ed25519", help="whsk_…, with a public whpk_….")
@click.option(
    "--out", type=click.Path(dir_okay=False), help="Write it to this new file (mode 0600)."
)
@JSON_OPTION
@explained
def keys_new(kind: str, out: str | None, as_json: bool) -> None:
    """Make a secret; print it, or write it to a file and print only what is public of it."""
    import orjson

    from dispatcherd.receiver.signing import new_key_pair, new_secret

    secret, public = new_key_pair() if kind == "ed25519" else (new_secret(), None)
    if out is not None:
        _write_new(Path(out), secret)
    if as_json:
        shown = {"secret": secret} if out is None else {"file": out}
        shown |= {} if public is None else {"public_key": public}
        click.echo(orjson.dumps(shown))
        return
    if out is None:
        click.echo(secret)
    else:
        click.echo(f"written to {out}", err=True)
    if public is not None:
        click.echo(public if out is not None else f"its public key: {public}", err=out is None)


@keys.command("public")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@explained
def keys_public(file: str) -> None:
    """Print the public key (whpk_…) of the private key (whsk_…) in FILE; - is stdin."""
    from dispatcherd.keys import public_key

    try:
        with click.open_file(file) as source:
            text = source.read(65_536).strip()
        click.echo(public_key(text))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise KeyFileError(f"{file}: {why}. Name the file of a whsk_ key") from error


@click.command()
@CONFIG_OPTION
@click.option("--out", type=click.Path(dir_okay=False), help="Write it to this file instead.")
@explained
def facts(config_path: str | None, out: str | None) -> None:
    """Print the facts that receivers need (addresses, public keys, headers, schedule) as JSON.

    The daemon serves the same document at /.well-known/dispatcherd.json of its admin port.
    """
    import orjson

    from dispatcherd.admin.facts import document

    content = orjson.dumps(document(read_config(config_path)), option=orjson.OPT_INDENT_2) + b"\n"
    if out is None:
        click.echo(content, nl=False)
    else:
        _replace(Path(out), content)


def _write_new(path: Path, secret: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secret + "\n")
    except FileExistsError as error:
        raise KeyFileError(f"{path} exists and is kept. Name another file") from error
    except OSError as error:
        raise KeyFileError(f"{path} cannot be written: {error.strerror}") from error


def _replace(path: Path, content: bytes) -> None:
    """Whoever reads the file meanwhile sees the old document or the new one, whole."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".facts-", delete=False) as file:
            file.write(content)
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
    except OSError as error:
        raise KeyFileError(f"{path} cannot be written: {error.strerror}") from error
