"""The documentation site: it builds, its links lead somewhere, and what it names is the program's.

The quick starts are run in test_quick_starts.py, the test vectors in tests/unit/test_vectors.py.
CONTRIBUTING.md, "Documents", says what is done with which fenced block.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import click
import orjson
import pytest
import yaml

from dispatcherd.admin import gauges
from dispatcherd.admin.exposition import Exposition
from dispatcherd.cli.main import cli
from dispatcherd.config.load import parse_config
from dispatcherd.config.model import Config, EndpointConfig, RetryConfig
from dispatcherd.delivery import Reason
from dispatcherd.metrics import Metrics
from dispatcherd.receiver import Receiver, Request
from dispatcherd.receiver.testing import RequestFactory
from docs.tools import drawings, reference
from tests.acceptance.test_quick_starts import START
from tests.rig.documents import Page, blocks, check_command, codes, model_keys, table, tables
from tests.rig.postgres import Database

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()
SERVICE = (ROOT / "systemd" / "README.md").read_text()
ALERTS = ROOT / "systemd" / "alerts.yaml"
WRITTEN = sorted(
    p for p in DOCS.rglob("*.md")
    if "_build" not in p.parts and p.name not in ("configuration.md", "commands.md")
)  # fmt: skip
LOOKING = re.compile(
    r"(systemctl (status|reload)|journalctl -u) dispatcherd( -p warning -n \d+)?"
    r"|curl -s http://127\.0\.0\.1:9464/\w+"
)
"""Looking at a service changes nothing, and needs one: read here, and not run."""


def page(name: str) -> str:
    """The Markdown of one."""
    return (DOCS / name).read_text()


def each_block(language: str) -> Any:
    """Every block of a language on every written page, as parameters."""
    found = [
        pytest.param(block, id=f"{path.relative_to(DOCS)}:{number}")
        for path in WRITTEN
        for number, block in enumerate(blocks(path.read_text(), language))
    ]
    assert found
    return pytest.mark.parametrize("block", found)


# --- the built site ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    """Path below the site → what that page holds; built as `make docs` does, warnings as errors."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", str(folder / "trees"), str(DOCS), str(folder / "html")],
        capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    html = folder / "html"
    pages = {p.relative_to(html): Page(p.read_text()) for p in html.rglob("*.html")}
    assert len(pages) > 20
    return pages | {p.relative_to(html): Page("") for p in html.rglob("*") if p.is_file()
                    and p.suffix != ".html"}  # fmt: skip


def test_every_link_within_the_site_leads_to_a_page_and_to_a_place_on_it(
    site: dict[Path, Page],
) -> None:
    followed = 0
    for here, content in site.items():
        for link in [*content.links, *content.loads]:
            parts = urlsplit(link)
            if parts.scheme or link in ("", "#"):
                continue
            there = (
                Path(os.path.normpath(here.parent / unquote(parts.path))) if parts.path else here
            )
            assert there in site, f"{here} links to {link}"
            if parts.fragment and there.suffix == ".html":
                assert parts.fragment in site[there].ids, f"{here} links to {link}"
            followed += 1
    assert followed > 500


def test_the_site_needs_no_other_host(site: dict[Path, Page]) -> None:
    loaded = [load for content in site.values() for load in content.loads]
    assert loaded and not [load for load in loaded if urlsplit(load).netloc]


def test_a_link_to_elsewhere_is_https(site: dict[Path, Page]) -> None:
    schemes = {urlsplit(link).scheme for content in site.values() for link in content.links}
    assert schemes <= {"", "https"}


def test_the_drawings_are_those_that_the_script_makes_now() -> None:
    assert {p.name for p in drawings.FOLDER.iterdir()} == drawings.DRAWINGS.keys()
    for name, draw in drawings.DRAWINGS.items():
        assert (drawings.FOLDER / name).read_text() == draw(), "run: python -m docs.tools.drawings"


def test_every_key_and_every_command_is_in_the_reference() -> None:
    keys = {
        path
        for entry in reference.entries((ROOT / "config.yaml").read_text())
        for path in entry.paths
    }
    top = {f"{name}.{key}" for name, field in Config.model_fields.items()
           for key in getattr(field.annotation, "model_fields", ())}  # fmt: skip
    assert len(top) > 60 and top <= keys
    assert {f"endpoints.{key}" for key in EndpointConfig.model_fields} <= keys
    text = reference.commands()
    for name, _ in reference.walk(cli, "dispatcherd"):
        assert f"## {name}\n" in text


# --- what stands in the blocks -------------------------------------------------------------------


def commands_of(block: str) -> Iterator[str]:
    """Its commands, a continued line as one."""
    for line in re.sub(r"(\\|\|)\n\s*", r"\1 ", block).replace("\\ ", "").splitlines():
        command = line.split(" #")[0].strip()
        if command:
            yield command


@each_block("sh")
def test_every_command_exists_or_is_run_elsewhere(block: str) -> None:
    known = {c for p in START.glob("*.md") for b in blocks(p.read_text(), "sh")
             for c in commands_of(b)}  # fmt: skip
    service = " ".join(SERVICE.split())
    for command in commands_of(block):
        if command.startswith("dispatcherd "):
            check_command(shlex.split(command.split(" > ")[0].split(" 2> ")[0].rstrip("& ")))
        elif command not in known and not LOOKING.fullmatch(command):
            assert " ".join(command.replace(".new", "").split()) in service, command


def test_a_command_that_stands_nowhere_would_be_noticed() -> None:
    with pytest.raises(AssertionError, match="frobnicate"):
        test_every_command_exists_or_is_run_elsewhere("frobnicate --now\n")
    with pytest.raises(click.UsageError):
        test_every_command_exists_or_is_run_elsewhere("dispatcherd retry --everything\n")


@each_block("yaml")
def test_every_piece_of_configuration_is_accepted(block: str) -> None:
    document = yaml.safe_load(block)
    if "scrape_configs" in document:
        return  # Prometheus's
    whole = {"secret": {"file": "/s"}, "id": "x", "url": "https://x.example.com/", **document}
    if not document.keys() <= Config.model_fields.keys():
        assert document.keys() <= EndpointConfig.model_fields.keys(), document
        document = {"endpoints": [whole]}
    parse_config(document)


@each_block("json")
def test_every_piece_of_json_can_be_read(block: str) -> None:
    orjson.loads(block)


def test_every_query_on_the_database_runs(database: Database) -> None:
    queries = [b for path in WRITTEN for b in blocks(path.read_text(), "sql")]
    assert len(queries) >= 3
    for query in queries:
        database.fetch(query.split(";")[0])


def test_the_handlers_of_the_versioning_guide_are_told_apart_by_version() -> None:
    [block] = blocks(page("guide/versioning.md").replace("\n  ", "\n"), "python")
    secret = "a secret that is long enough"
    came: list[int] = []
    scope = {"webhook": Receiver(secrets=[secret]), "came": came}
    block = block.replace("...", "came.append(1)", 1).replace("...", "came.append(2)")
    exec(compile(block, "versioning.md", "exec"), scope)
    make = RequestFactory(secret)
    for version in ("2", "1"):
        made = make({"type": "order.paid"}, version=version)
        answer = scope["webhook"].handle(Request(made.headers, made.body))  # type: ignore[attr-defined]
        assert answer.status == 200
    assert came == [2, 1]


def test_every_sample_that_verifies_is_shown_from_its_own_file() -> None:
    text = page("guide/languages.md")
    samples = [
        path.relative_to(ROOT)
        for path in (ROOT / "examples" / "receivers").glob("*/**/*")
        if path.is_file() and "node_modules" not in path.parts and path.suffix not in (".md", "")
        and b"docs:start verify" in path.read_bytes()
    ]  # fmt: skip
    assert len(samples) > 9
    for sample in samples:
        assert f"literalinclude}} ../../{sample}\n" in text, sample


# --- names and figures ---------------------------------------------------------------------------


def exposed() -> set[str]:
    """Every metric that the program exposes, as samples are named but for a histogram's endings."""
    text = Exposition(Metrics(), list).text().decode()
    found = set(re.findall(r"# TYPE (\S+)", text))
    source = Path(gauges.__file__).read_text()
    return found | {f"dispatcherd_{name}" for name in re.findall(r'yield "(\w+)"', source)}


def test_the_metrics_page_has_every_metric_and_no_other() -> None:
    listed = {
        row[0].strip("`")
        for rows in tables(page("operating/metrics.md"))
        if rows[0][0] == "metric"
        for row in rows[1:]
    }
    assert listed == exposed()


def metrics_in(expression: str) -> set[str]:
    """The metrics a query names, without a histogram's endings."""
    named = re.findall(r"dispatcherd_\w+", expression)
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in named}


def rules() -> list[dict[str, Any]]:
    """The alerting rules."""
    [group] = yaml.safe_load(ALERTS.read_text())["groups"]
    return list(group["rules"])


def test_alerts_and_queries_name_only_metrics_that_exist() -> None:
    queries = [rule["expr"] for rule in rules()]
    queries += [code for code in codes(page("operating/alerts.md")) if "(" in code]
    for query in queries:
        assert metrics_in(query) <= exposed(), query
    assert len(set().union(*map(metrics_in, queries))) > 15


def test_every_alert_has_its_place_in_the_runbook_and_a_case_in_its_tests() -> None:
    names = [rule["alert"] for rule in rules()]
    headings = re.findall(r"^## (Dispatcherd\w+)$", page("operating/runbook.md"), re.M)
    assert sorted(names) == sorted(headings)
    cases = yaml.safe_load((ALERTS.parent / "alerts.test.yaml").read_text())["tests"]
    fired = {
        case["alertname"]
        for test in cases
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert fired == set(names)


@pytest.mark.parametrize(
    "command", [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]], ids=str
)
def test_prometheus_accepts_the_rules_and_they_fire_when_they_should(command: list[str]) -> None:
    if shutil.which("promtool") is None:
        if os.environ.get("CI"):
            pytest.fail("in CI nothing may be missing: promtool, of Debian's package prometheus")
        pytest.skip("promtool is not installed (Debian: prometheus)")
    done = subprocess.run(
        ["promtool", *command], cwd=ALERTS.parent, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_key_that_a_page_names_exists() -> None:
    keys = set(model_keys(Config))
    sections = {key for key in keys if any(other.startswith(key + ".") for other in keys)}
    for path in WRITTEN:
        for code in codes(path.read_text()):
            name = code.split(":")[0].strip()
            if "." in name and name.split(".")[0] in sections and re.fullmatch(r"[a-z_.]+", name):
                assert name in keys, f"{path.name} names {name}"


def test_words_headers_and_promises_are_those_of_the_readme() -> None:
    assert table(page("concepts/pipeline.md"), "word") == table(README, "word")
    assert table(page("reference/headers.md"), "header").keys() == table(README, "header").keys()
    promises = re.findall(r"^\d\. \*\*(.+?)\*\*", README.replace("\n   ", " "), re.M)
    listed = re.findall(
        r"\*\*(.+?)\*\*", " ".join(table(page("concepts/guarantees.md"), "promise"))
    )
    assert [p.rstrip(".") for p in promises] == listed


def test_the_reasons_of_attempts_are_all_explained() -> None:
    text = page("concepts/delivery.md")
    attempts = {reason.word for reason in Reason if reason < Reason.LANE_FULL}
    # Those that need no table: they say what no sane receiver does, or are ours.
    attempts -= {"status_informational", "status_unknown", "resources"}
    assert attempts <= set(codes(text)), attempts - set(codes(text))
    words = {reason.word for reason in Reason}
    for rows in tables(page("operating/runbook.md")):
        if rows[0][0] == "reason":
            named = {code for row in rows[1:] for code in re.findall(r"`(\w+)`", row[0])}
            assert named and named <= words


def test_the_schedule_that_is_shown_and_drawn_is_the_default_one() -> None:
    [block] = blocks(page("guide/retries.md"), "yaml")
    assert yaml.safe_load(block)["retry"] == RetryConfig().model_dump()
    policy = RetryConfig()
    times = drawings.starts(policy.schedule_seconds, policy.max_attempts)
    assert len(times) == policy.max_attempts and times[0] == 0
    assert times[-1] == sum(policy.schedule_seconds)
    drawn = drawings.retries()
    for number, at in enumerate(times, 1):
        assert f"attempt {number} at {drawings.clock_exact(at)}" in drawn
    assert "75 hours 35 minutes" in page("guide/retries.md")
    assert drawings.clock_exact(times[-1]).startswith("75:35")
