"""Every file in `bad` is refused with key, value and remedy; every file in `good` is accepted.

A file says itself what is expected of it, in YAML in the comment at its top:

    # expect:            (bad) each problem, in order, and no other; {path} is the file itself
    # - key: kafka.topcis
    #   value: (a list)
    #   remedy: Did you mean `topics`?
    # effective:         (good) dotted key → value in what check-config prints
    # environ:           variables beside BILLING_SECRET, which is always set
    # never:             texts that must not be printed, whatever happens

{folder} is a folder with secrets and certificates.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from dispatcherd.cli.main import cli

HERE = Path(__file__).parent
BAD = sorted((HERE / "bad").glob("*.yaml"))
GOOD = sorted((HERE / "good").glob("*.yaml"))
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
THROUGH_THE_PROCESS = ["unknown_key_near", "file_not_utf8", "secret_too_short", "url_metadata"]


def told(path: Path) -> dict[str, Any]:
    """What the comment at the top of a file says."""
    lines = []
    for line in path.read_text("utf-8", "replace").splitlines():
        if not line.startswith("# "):
            break
        lines.append(line.removeprefix("# "))
    said = yaml.safe_load("\n".join(lines))
    assert isinstance(said, dict), f"{path}: no `# expect:` or `# effective:` at its top"
    return said


def environment(said: dict[str, Any], folder: Path) -> dict[str, str | None]:
    """The variables of a case; None unsets one of ours that happens to be set."""
    found: dict[str, str | None] = {k: None for k in os.environ if k.startswith("DISPATCHERD_")}
    found["CREDENTIALS_DIRECTORY"] = None
    found["BILLING_SECRET"] = SECRET
    for name, value in said.get("environ", {}).items():
        found[name] = value.replace("{folder}", str(folder))
    return found


def no_secret(said: dict[str, Any], text: str) -> None:
    for secret in [*said.get("never", []), SECRET.removeprefix("whsec_")]:
        assert secret not in text


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Secrets as files and as credentials."""
    made = tmp_path_factory.mktemp("config")
    (made / "credentials").mkdir()
    (made / "credentials" / "billing").write_text("whsec_hunter2hunter2hunter2hunter2hunter2g\n")
    (made / "credentials" / "postgres").write_text("hunter2\n")
    return made


def make_certificates(folder: Path) -> None:
    """A client certificate with its key, which is its own CA."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not on this machine: no certificate to try the TLS keys with")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-subj", "/CN=tests", "-keyout", folder / "client.key", "-out",
         folder / "client.pem"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    shutil.copy(folder / "client.pem", folder / "ca.pem")


def test_there_is_a_file_for_each_of_many_mistakes() -> None:
    assert len(BAD) >= 50
    assert len({path.read_bytes() for path in BAD}) == len(BAD)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_mistake_is_refused_with_its_key_its_value_and_a_remedy(path: Path, folder: Path) -> None:
    said = told(path)
    result = CliRunner().invoke(
        cli, ["check-config", "--config", str(path)], env=environment(said, folder)
    )
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == len(said["expect"]), result.stderr
    for line, expected in zip(lines, said["expect"], strict=True):
        key = expected["key"].replace("{path}", str(path))
        assert line.startswith(f"config: {key} = {expected['value']}: "), line
        assert line.endswith(f". {expected['remedy']}"), line
        trouble = line.removeprefix(f"config: {key} = {expected['value']}: ")
        assert len(trouble.removesuffix(f". {expected['remedy']}")) > 5, line
    no_secret(said, result.output)


@pytest.mark.parametrize("command", ["check-config", "run"])
@pytest.mark.parametrize("name", THROUGH_THE_PROCESS)
def test_the_process_refuses_a_mistake_with_exit_code_2(
    name: str, command: str, folder: Path
) -> None:
    path = HERE / "bad" / f"{name}.yaml"
    said = told(path)
    variables = environment(said, folder)
    done = subprocess.run(
        [sys.executable, "-m", "dispatcherd", command, "--config", str(path)],
        capture_output=True, text=True, timeout=60,
        env={**{k: v for k, v in os.environ.items() if k not in variables},
             **{k: v for k, v in variables.items() if v is not None}},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    for expected in said["expect"]:
        key = expected["key"].replace("{path}", str(path))
        assert f"config: {key} = {expected['value']}: " in done.stderr
        assert expected["remedy"] in done.stderr
    assert "Traceback" not in done.stderr
    no_secret(said, done.stderr)


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_what_is_right_is_accepted_and_shown_without_its_secrets(
    path: Path, folder: Path, tmp_path: Path
) -> None:
    said = told(path)
    if path.stem == "tls":
        make_certificates(folder)
    text = path.read_text("utf-8").replace("{folder}", str(folder))
    (tmp_path / "config.yaml").write_text(text)
    result = CliRunner().invoke(
        cli,
        ["check-config", "--config", str(tmp_path / "config.yaml")],
        env=environment(said, folder),
    )
    assert result.exit_code == 0, result.output
    assert "ok: " in result.stderr
    shown = yaml.safe_load(result.stdout)
    for key, value in said["effective"].items():
        wanted = value.replace("{folder}", str(folder)) if isinstance(value, str) else value
        assert at(shown, key) == wanted, key
    no_secret(said, result.output)


def at(document: Any, key: str) -> Any:
    for step in key.split("."):
        document = document[int(step) if step.isdigit() else step]
    return document


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_what_check_config_prints_is_a_configuration_itself(
    path: Path, folder: Path, tmp_path: Path
) -> None:
    """The second time with the first output as the file, and nothing in the environment."""
    said = told(path)
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(path.read_text("utf-8").replace("{folder}", str(folder)))
    arguments = ["check-config", "--no-secrets", "--config"]
    variables = environment(said, folder)
    shown = CliRunner().invoke(cli, [*arguments, str(first)], env=variables)
    assert shown.exit_code == 0, shown.output
    second.write_text(
        shown.stdout.replace("allow_inline_secrets: false", "allow_inline_secrets: true")
    )
    bare = {k: None for k in variables if k.startswith("DISPATCHERD_")}
    again = CliRunner().invoke(cli, [*arguments, str(second)], env=bare)
    assert again.exit_code == 0, again.output
    assert again.stdout == second.read_text()
