"""The conformance checks: our own receivers pass, and each fault is found by the check for it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from dispatcherd.cli.main import cli
from dispatcherd.receiver import AsyncReceiver, Backlog, Receiver
from dispatcherd.receiver.signing import new_key_pair
from dispatcherd.sign import Signer
from dispatcherd.tools.client import client
from dispatcherd.tools.compose import ping
from dispatcherd.tools.conformance import CHECKS, Limits, Result, examine
from dispatcherd.tools.probe import Probe
from tests.integration.receiver.serving import (
    PATH,
    in_thread,
    serve_aiohttp,
    serve_fastapi,
    serve_wsgi,
)
from tests.integration.tools.wrong_receivers import (
    KEY,
    KNOWN_TYPE,
    SECRET,
    SLOW_SECONDS,
    STRANGER,
    WrongReceiver,
    served,
)

pytestmark = pytest.mark.filterwarnings("ignore")

NAMES = [check.name for check in CHECKS]
REFUSALS = {name for name in NAMES if name.startswith("refuses_")} | {"survives_malformed"}


async def examined(fault: str, look: bool = True, **limits: Any) -> list[Result]:
    receiver = WrongReceiver(fault)
    async with served(receiver) as url, client(10.0, connections=5) as asking:
        processed = url.replace("/hooks", "/processed") if look else None
        signers = Signer([KEY]), Signer([STRANGER])
        template = ping(time.time())
        assert template["type"] == KNOWN_TYPE
        probe = Probe(asking, url, signers, template, processed, settle_seconds=0.5)
        return await examine(probe, Limits(**{"requests": 10, **limits}))


def failed(results: list[Result]) -> set[str]:
    assert [result.name for result in results] == NAMES
    return {result.name for result in results if result.verdict.passed is False}


async def test_a_right_receiver_passes_every_check() -> None:
    results = await examined("")
    assert all(result.verdict.passed for result in results), results


FOUND_BY_ONE = sorted(
    set(NAMES) - {"accepts_genuine", "refuses_tampered", "answers_in_time", "deduplicates"}
)


@pytest.mark.parametrize("fault", FOUND_BY_ONE)
async def test_a_fault_is_found_by_the_check_for_it_and_by_no_other(fault: str) -> None:
    assert failed(await examined(fault)) == {fault}


async def test_a_slow_receiver_fails_for_its_slowness_alone() -> None:
    results = await examined("answers_in_time", timeout_seconds=SLOW_SECONDS / 3, requests=3)
    assert failed(results) == {"answers_in_time"}


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("no verification", REFUSALS),
        ("answers 500", REFUSALS),
        ("no deduplication", {"deduplicates", "deduplicates_at_once"}),
        ("repeats are refused", {"deduplicates", "deduplicates_at_once"}),
        ("processes no batch", {"accepts_batches"}),
        ("looks at the last signature only", {"accepts_rotated"}),
    ],
)
async def test_a_fault_of_more_than_one_kind_fails_each_of_them(
    fault: str, found: set[str]
) -> None:
    assert failed(await examined(fault)) == found


async def test_where_nobody_can_look_nothing_is_claimed() -> None:
    results = await examined("no deduplication", look=False)
    assert failed(results) == set()
    unseen = [result for result in results if result.verdict.passed is None]
    assert {result.name for result in unseen} == {"deduplicates", "deduplicates_at_once"}
    assert all("--processed-url" in result.verdict.detail for result in unseen)


async def test_where_genuine_requests_are_not_accepted_nothing_else_is_claimed() -> None:
    async with served(WrongReceiver("")) as url, client(10.0) as asking:
        signers = Signer([STRANGER]), Signer([KEY])
        results = await examine(Probe(asking, url, signers, ping(time.time())), Limits())
    assert failed(results) == {"accepts_genuine"}
    assert all(result.verdict.passed is None for result in results[1:])


# --- our own receivers, and the command ------------------------------------------------------


@contextmanager
def listing(processed: list[str]) -> Iterator[str]:
    """A server that lists what was processed."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = json.dumps({"processed": processed}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with in_thread(lambda: server.serve_forever(0.02), server.shutdown):
        yield f"http://127.0.0.1:{server.server_port}/processed"
    server.server_close()


def conformance(url: str, *more: str, secret: str = SECRET) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(
        cli, ["conformance", url, "--json", "--requests", "10", *more],
        env={"WEBHOOK_SECRET": secret},
    )  # fmt: skip
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, orjson.loads(done.stdout) if done.stdout else {}


@pytest.mark.parametrize("serve", [serve_aiohttp, serve_fastapi])
@pytest.mark.parametrize("backlog", [False, True])
def test_our_own_receiver_conforms(serve: Any, backlog: bool, tmp_path: Path) -> None:
    private, public = new_key_pair()
    options: dict[str, Any] = {"backlog": Backlog(tmp_path / "b.db")} if backlog else {}
    receiver = AsyncReceiver([public if backlog else SECRET], **options)
    processed: list[str] = []
    receiver.on("*")(lambda event: processed.append(event.id))
    with ExitStack() as stack:
        listed = stack.enter_context(listing(processed))
        url = f"http://127.0.0.1:{stack.enter_context(serve(receiver))}{PATH}"
        code, found = conformance(
            url, "--processed-url", listed, secret=private if backlog else SECRET
        )
    assert (code, found["failed"], found["not_looked"]) == (0, 0, 0), found
    assert found["passed"] == len(CHECKS)


def test_the_command_fails_with_the_check_that_failed() -> None:
    unknown = Receiver([SECRET], unknown="refuse")
    unknown.on(KNOWN_TYPE)(lambda event: None)
    with ExitStack() as stack:
        url = f"http://127.0.0.1:{stack.enter_context(serve_wsgi(unknown))}{PATH}"
        code, found = conformance(url)
        assert code == 0 and found["not_looked"] == 2
        [check] = [c for c in found["checks"] if c["name"] == "survives_unknown_type"]
        assert check["passed"] and "answered 422" in check["detail"]
        code, found = conformance(url, secret="whsec_" + "A" * 44)
        assert (code, found["failed"]) == (1, 1)


def test_what_cannot_be_asked_is_refused() -> None:
    assert conformance("ftp://x")[0] == 2
    assert conformance("http://127.0.0.1:9/", "--type", "order.creted")[0] == 2
    assert conformance("http://127.0.0.1:9/", "--secret", "whpk_AAAA")[0] == 2


async def test_the_requests_are_bounded() -> None:
    count = 0
    receiver = WrongReceiver("")
    answer = receiver.answer

    async def counted(request: Any) -> Any:
        nonlocal count
        count += 1
        await asyncio.sleep(0)
        return await answer(request)

    receiver.answer = counted  # type: ignore[method-assign]
    async with served(receiver) as url, client(10.0, connections=5) as asking:
        probe = Probe(asking, url, (Signer([KEY]), Signer([STRANGER])), ping(time.time()))
        await examine(probe, Limits(requests=10))
    assert count < 60
