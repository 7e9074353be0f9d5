"""What the documents say is so: commands exist, examples run, keys and figures are the program's.

A fenced block's language says what is done with it; CONTRIBUTING.md, "Documents", lists them.
"""

from __future__ import annotations

import ast
import base64
import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import click
import orjson
import pytest
import yaml
from standardwebhooks.webhooks import WebhookVerificationError

from dispatcherd import __version__, batch
from dispatcherd.admin import gauges
from dispatcherd.admin.exposition import Exposition
from dispatcherd.cli.main import cli
from dispatcherd.config.model import (
    STANDARD_SCHEDULE_SECONDS,
    Config,
    DecodeConfig,
    EndpointConfig,
    LimitsConfig,
    RetryConfig,
)
from dispatcherd.decode import Decoder
from dispatcherd.delivery import Claim, Event, OutcomeKind
from dispatcherd.events.files import parse, read
from dispatcherd.events.lint import lint
from dispatcherd.metrics import Metrics
from dispatcherd.sign import Signer
from tests.acceptance.scene import Scene
from tests.rig.documents import (
    blocks,
    check_command,
    codes,
    model_keys,
    parsed,
    table,
    walk,
)
from tests.rig.waiting import wait_for

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
SERVICE = (ROOT / "systemd" / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCUMENTS = sorted(
    path for place in (".", "docs", "systemd", "bench", "receiver", "examples", "examples/*",
                       "examples/*/*")
    for path in ROOT.glob(f"{place}/*.md")
)  # fmt: skip
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MAKE_TARGETS = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.M))
_UNITS = {"s": 1, "min": 60, "h": 3600}


def the_block(language: str) -> str:
    """The README's only fenced block of a language."""
    [block] = blocks(README, language)
    return block


def shell_lines() -> list[str]:
    """Every command of the README's `sh` blocks, without comments."""
    lines = [line.split(" #")[0].rstrip() for b in blocks(README, "sh") for line in b.splitlines()]
    return [line for line in lines if line]


def the_table(head: str) -> dict[str, str]:
    """See `documents.table`: one of the README's."""
    return table(README, head)


# --- commands ----------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [x for x in shell_lines() if x.startswith("dispatcherd ")])
def test_every_dispatcherd_command_line_of_the_readme_exists(line: str) -> None:
    check_command(shlex.split(line))


def test_a_command_line_that_does_not_exist_would_be_noticed() -> None:
    for wrong in ("retry --everything", "endpoints add x", "deliveries --state lost", "recieve"):
        with pytest.raises(click.UsageError):
            check_command(["dispatcherd", *wrong.split()])


def test_each_command_is_among_the_commands_at_a_glance() -> None:
    shown = {tuple(shlex.split(line)[1:3]) for line in shell_lines()}
    for name, command in cli.commands.items():
        if isinstance(command, click.Group):
            for child in command.commands:
                assert (name, child) in shown, f"README.md shows no `dispatcherd {name} {child}`"
        else:
            assert any(words[:1] == (name,) for words in shown), f"no `dispatcherd {name}`"


def test_every_other_line_is_a_make_target_or_stands_in_the_services_readme() -> None:
    [envvar] = {p.envvar for p in cli.commands["run"].params if p.name == "config_path"}
    variables = {envvar, "BILLING_SECRET"}
    service = {line.strip() for line in SERVICE.splitlines()}
    for line in shell_lines():
        words = shlex.split(line)
        if words[0] == "make":
            assert set(words[1:]) <= MAKE_TARGETS, line
        elif words[0] == "export":
            assert words[1].split("=")[0] in variables, line
        elif words[0] != "dispatcherd":
            assert line in service, f"systemd/README.md does not have: {line}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_make_target_that_a_document_names_exists(path: Path) -> None:
    text = path.read_text()
    code = [t.content for t in walk(parsed(text)) if t.type in ("code_block", "code_inline")]
    named = set(re.findall(r"(?m)^\s*make ([a-z-]+)\b", "\n".join(code)))
    assert named <= MAKE_TARGETS, named - MAKE_TARGETS


def test_the_names_are_those_of_the_distribution() -> None:
    assert f"`{PYPROJECT['project']['name']}`" in README
    assert "dispatcherd" in PYPROJECT["project"]["scripts"]
    assert f"version={__version__}" in shell_lines()
    assert f"## {__version__} - " in (ROOT / "CHANGELOG.md").read_text()
    assert PYPROJECT["project"]["license"] == "Apache-2.0"


# --- links -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(path: Path) -> None:
    for token in walk(parsed(path.read_text())):
        target = token.attrGet("href") or token.attrGet("src")
        if target is None or re.match(r"[a-z]+:", str(target)):
            continue
        file, _, anchor = str(target).partition("#")
        assert (path.parent / file).exists(), f"{path.name} links to {target}"
        assert not anchor, f"{path.name}: anchors are not checked here: {target}"


# --- keys, names and figures -------------------------------------------------------------------


def test_every_configuration_key_that_the_readme_names_exists() -> None:
    keys = set(model_keys(Config))
    sections = {key for key in keys if any(other.startswith(key + ".") for other in keys)}
    named = [code.split(":")[0] for code in codes(README)]
    dotted = [name for name in named if name.split(".")[0] in sections and "." in name]
    assert len(dotted) >= 12 and set(dotted) <= keys, set(dotted) - keys


def test_the_caps_and_policies_have_the_values_and_defaults_that_are_described() -> None:
    field = LimitsConfig.model_fields["at_owed_cap"]
    described = the_table("at_owed_cap")
    names = [row.removesuffix(" (default)").strip("`") for row in described]
    assert set(names) == set(get_args(field.annotation))
    [default] = [name for name, row in zip(names, described, strict=True) if "(default)" in row]
    assert default == field.default
    for key in ("on_out_of_range", "on_topic_recreated", "on_unreadable"):
        assert f"`kafka.{key}`" in README
        assert getattr(Config().kafka, key) == "stop"
    [seconds] = re.findall(r"`timeout_seconds` \((\d+)\)", README)
    assert float(seconds) == EndpointConfig.model_fields["timeout_seconds"].default


def test_the_retry_schedule_is_the_default_one() -> None:
    [text] = re.findall(r"\*\*Retry schedule\*\*.*?\n\n", README, re.S)
    waits = [
        float(n) * _UNITS[unit]
        for n, unit in re.findall(r"(\d+) (s|min|h)\b", text.split("each up to")[0])
    ]
    assert (0, *waits) == STANDARD_SCHEDULE_SECONDS
    assert RetryConfig().max_attempts == 10 and "After ten attempts" in text
    assert f"{int(sum(waits) // 3600)} hours" in text
    assert RetryConfig().jitter == 0.1 and "a tenth longer" in text
    assert RetryConfig().max_retry_after_seconds == 86_400 and "at most a day" in README


def test_the_words_for_outcomes_are_those_of_the_code() -> None:
    said = set(re.findall(r"`(\w+)`", the_table("word")["outcome"]))
    assert said == {kind.name.lower() for kind in OutcomeKind}


def test_every_metric_that_the_readme_names_is_exposed() -> None:
    text = Exposition(Metrics(), list).text().decode()
    exposed = set(re.findall(r"# TYPE (\S+)", text))
    for node in ast.walk(ast.parse(Path(gauges.__file__).read_text())):
        if isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
            exposed.add(f"dispatcherd_{ast.literal_eval(node.value.elts[0])}")
    named = {code for code in codes(README) if code.startswith("dispatcherd_")}
    assert len(named) > 8 and named <= exposed


def test_contributing_has_the_floors_that_are_checked() -> None:
    [contract] = [c for c in PYPROJECT["tool"]["importlinter"]["contracts"] if c["id"] == "floors"]
    checked = [sorted(re.findall(r"\w+", layer)) for layer in contract["layers"]]
    code = [t.content for t in parsed(CONTRIBUTING) if t.type == "code_block"]
    [block] = [content for content in code if "__main__" in content]
    lines = [re.split(r" {4,}", line.lstrip("0123456789 "))[0] for line in block.splitlines()]
    assert [sorted(line.split()) for line in lines] == checked


# --- examples ----------------------------------------------------------------------------------


def verifier() -> Callable[[Mapping[str, str], bytes], Any]:
    """The function of the README's Python example."""
    scope: dict[str, Any] = {}
    exec(compile(the_block("python"), "README.md", "exec"), scope)
    return scope["receive"]  # type: ignore[no-any-return]


def test_the_minimal_configuration_passes_check_config(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(the_block("yaml"))
    command = [sys.executable, "-m", "dispatcherd", "check-config", "--config", str(path)]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("DISPATCHERD_")}
    good = {**environ, "BILLING_SECRET": SECRET}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=good)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "ok: 1 endpoint\n"
    environ.pop("BILLING_SECRET", None)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ)
    assert done.returncode == 2 and "Set BILLING_SECRET" in done.stderr


def test_the_event_type_is_in_order(tmp_path: Path) -> None:
    (tmp_path / "order.shipped.yaml").write_text(the_block("yml"))
    sources = read(tmp_path)
    assert lint(parse(sources), sources) == []


def test_the_verify_example_takes_what_is_signed_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BILLING_SECRET", SECRET)
    receive = verifier()
    body = b'{"id": "evt_1", "type": "order.created", "data": {"total": 42}}'
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    headers = dict(Signer([key]).headers("evt_1", int(time.time()), body))
    assert receive(headers, body) == orjson.loads(body)
    with pytest.raises(WebhookVerificationError):
        receive(headers, body.replace(b"42", b"43"))
    with pytest.raises(WebhookVerificationError):
        receive(dict(Signer([b"x" * 24]).headers("evt_1", int(time.time()), body)), body)


def test_the_batch_example_is_what_a_batch_of_its_events_looks_like() -> None:
    members = orjson.loads(the_block("json"))
    decoder, claim = Decoder(DecodeConfig()), Claim("orders", 1, 0, 1, b"k" * 16)
    events = []
    for member in members:
        headers: list[tuple[str, bytes | None]] = []
        published = member
        if "timestamp" in member:  # the one that was published as bare data
            published = member["data"]
            headers = [("webhook-type", member["type"].encode()),
                       ("webhook-id", member["id"].encode()),
                       ("ce_time", member["timestamp"].encode())]  # fmt: skip
        decoded = decoder.decode(claim, 1, orjson.dumps(published), headers, 0)
        assert isinstance(decoded, tuple), decoded
        assert isinstance(decoded[0], Event)
        events.append(decoded[0])
    assert orjson.loads(batch.encode(events)) == members
    assert batch.batch_id(events).startswith("batch_") and "`batch_…`" in README


# --- the whole way, with real parts -----------------------------------------------------------


def run_shell(lines: list[str], folder: Path) -> None:
    """Run the README's lines with `dispatcherd` on the PATH."""
    program = folder / "bin" / "dispatcherd"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m dispatcherd "$@"\n')
    program.chmod(0o755)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
        cwd=folder, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}",
             "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, (lines, done.stdout, done.stderr)


def ask(port: int, path: str) -> str:
    """What the admin port answers; raises when it is not 200."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return str(answer.read().decode())


def test_who_follows_the_readme_gets_a_webhook_that_verifies(
    scene: Callable[..., Scene],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = scene(2)
    config = the_block("yaml")
    for theirs, ours in (
        ("127.0.0.1:9092", here.kafka.bootstrap),
        ("[orders]", f"[{here.topic}]"),
        ("postgresql:///dispatcherd", here.database.dsn),
        ("https://billing.example.com/webhooks", here.receivers.url("billing")),
    ):
        assert config.count(theirs) == 1
        config = config.replace(theirs, ours)
    config += "network:\n  allowed_networks: [127.0.0.0/8]\n"
    (tmp_path / "config.yaml").write_text(config)
    set_up, publish = (
        b.splitlines()
        for b in blocks(README, "sh")
        if b.startswith(("export", "dispatcherd publish"))
    )
    exports = [line for line in set_up if line.startswith("export")]
    assert set_up[-1] == "dispatcherd run"
    run_shell(set_up[:-1], tmp_path)

    monkeypatch.setenv("BILLING_SECRET", SECRET)
    one = here.make(yaml.safe_load(config)).start()
    run_shell([exports[0], publish[0].replace("--topic orders", f"--topic {here.topic}")], tmp_path)
    wait_for(lambda: here.receivers.accepted("billing") == 1, 60, "the event")
    [(headers, body)] = here.receivers.ledger("billing").kept
    assert shlex.split(publish[0])[-1].encode() == body
    assert verifier()(headers, body)["id"] == "evt_1" == headers["webhook-id"]

    described = the_table("header")
    assert set(headers) - {"host", "content-length"} == set(described)
    for name in ("content-type", "user-agent"):
        assert described[name] == f"`{headers[name]}`"
    for path in the_table("path"):
        assert ask(one.port, path.strip("`"))
    query = the_block("sql").split(";")[0]
    here.database.wait_until(f"SELECT count(*) FROM ({query}) x", 1)
    [row] = here.database.fetch(query)
    assert (row["endpoint"], row["status"], row["reason"]) == ("billing", 200, "ok")
