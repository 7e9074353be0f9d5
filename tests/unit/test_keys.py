"""A secret's text is a key, or it is refused without being shown."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from dispatcherd.cli.main import cli
from dispatcherd.keys import check_public_key, parse_key, public_key
from dispatcherd.receiver.verify import Verifier
from dispatcherd.sign import Signer

PRIVATE = (
    "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
)
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
RAW = base64.b64decode(PRIVATE.removeprefix("whsk_"))


def whsk(raw: bytes) -> str:
    return "whsk_" + base64.b64encode(raw).decode()


@pytest.mark.parametrize("text", [PRIVATE, PRIVATE.rstrip("="), whsk(RAW[:32])])
def test_a_private_key_is_taken_with_and_without_its_public_half_and_padding(text: str) -> None:
    headers = Signer([parse_key(text)]).headers("evt_1", 1, b"{}")
    assert Verifier([PUBLIC]).verify(headers, b"{}", 1).id == "evt_1"
    assert public_key(text) == PUBLIC


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (whsk(RAW[:33]), "33 bytes"),
        (whsk(RAW[:32] + bytes(32)), "do not belong together"),
        ("whsk_hunter2!", "not base64"),
        (PUBLIC, "only verifies"),
        ("whsec_hunter2!", "not base64"),
        ("hunter2", "16 are the least"),
    ],
)
def test_what_cannot_sign_is_refused_without_being_shown(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        parse_key(text)
    assert text.partition("_")[2][:12] not in str(caught.value) or "_" not in text
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", [PRIVATE, "whpk_", "whpk_AAAA", SECRET, "whpk_hunter2!"])
def test_only_a_public_key_is_published(text: str) -> None:
    check_public_key(PUBLIC)
    with pytest.raises(ValueError):
        check_public_key(text)


# --- the commands ----------------------------------------------------------------------------


def test_a_new_secret_is_printed_or_written_where_nobody_else_reads_it(tmp_path: Path) -> None:
    printed = CliRunner().invoke(cli, ["keys", "new"])
    assert isinstance(parse_key(printed.stdout.strip()), bytes)
    path = tmp_path / "secret"
    old = os.umask(0)
    try:
        written = CliRunner().invoke(cli, ["keys", "new", "--out", str(path)])
    finally:
        os.umask(old)
    assert written.exit_code == 0 and "whsec_" not in written.output
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert isinstance(parse_key(path.read_text().strip()), bytes)


def test_a_new_ed25519_key_goes_to_the_file_and_its_public_key_to_the_screen(
    tmp_path: Path,
) -> None:
    path = tmp_path / "key"
    made = CliRunner().invoke(cli, ["keys", "new", "--ed25519", "--out", str(path)])
    assert made.exit_code == 0, made.output
    check_public_key(made.stdout.strip())
    assert "whsk_" not in made.output
    shown = CliRunner().invoke(cli, ["keys", "public", str(path)])
    assert shown.stdout == made.stdout == public_key(path.read_text().strip()) + "\n"


def test_a_file_that_exists_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("mine")
    again = CliRunner().invoke(cli, ["keys", "new", "--out", str(path)])
    assert again.exit_code == 1 and "exists and is kept" in again.stderr
    assert path.read_text() == "mine"


def test_an_hmac_secret_has_no_public_key_and_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(SECRET)
    asked = CliRunner().invoke(cli, ["keys", "public", str(path)])
    assert asked.exit_code == 1 and "no Ed25519 private key" in asked.stderr
    assert path.read_text() not in asked.output
