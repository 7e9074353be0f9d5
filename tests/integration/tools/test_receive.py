"""The local endpoint over real sockets: what it answers, keeps and shows, and to whom."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner

from dispatcherd.cli.main import cli
from dispatcherd.receiver.signing import new_key_pair, sign_headers
from dispatcherd.tools.diagnose import Scheme
from dispatcherd.tools.inbox import Received
from dispatcherd.tools.manner import Manner
from dispatcherd.tools.server import CannotListen, Endpoint, serving
from tests.rig.waiting import wait_for

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"id": "evt_1", "type": "order.created", "data": {}}'


class Asking:
    """A client of one endpoint."""

    def __init__(self, endpoint: Endpoint, told: list[Received], url: str) -> None:
        self.endpoint = endpoint
        self.told = told
        self.url = url
        self.origin = url.rstrip("/")

    async def post(
        self, body: bytes = BODY, id_: str = "evt_1", path: str = "hooks", **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """A genuine webhook, but for the headers given."""
        mine = {**sign_headers([SECRET], id_, int(time.time()), body), **headers}
        return await self.ask("POST", path, body, mine)

    async def page(self, method: str, path: str, content: Any = None) -> tuple[int, Any]:
        """As the page does."""
        body = None if content is None else json.dumps(content).encode()
        status, found, _ = await self.ask(method, path, body, {"origin": self.origin})
        return status, found

    async def arrived(self, count: int) -> None:
        """Until so many requests are there, answered or not."""
        async with asyncio.timeout(20):
            while self.endpoint.received < count:  # noqa: ASYNC110  (a condition of another's)
                await asyncio.sleep(0.01)

    async def ask(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, Any, dict[str, str]]:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, data=body, headers=headers) as answer,
        ):
            text = await answer.text()
            more = {name.lower(): value for name, value in answer.headers.items()}
            return answer.status, json.loads(text) if text[:1] in ("{", "[") else text, more


@asynccontextmanager
async def endpoint(*secrets: str, **manner: Any) -> AsyncIterator[Asking]:
    told: list[Received] = []
    made = Endpoint(secrets or [SECRET], Scheme(), Manner(**manner), told.append)
    async with serving(made, 0) as url:
        yield Asking(made, told, url)


async def test_a_genuine_webhook_is_taken_on_any_path_kept_and_processed_once() -> None:
    async with endpoint() as one:
        for path in ("", "hooks", "a/b?c=d", "hooks"):
            assert (await one.post(path=path))[:2] == (200, {})
        assert [r.path for r in one.told] == ["/", "/hooks", "/a/b?c=d", "/hooks"]
        assert all(r.found.ok and r.body == BODY for r in one.told)
        assert (await one.page("GET", "processed"))[1] == {"processed": ["evt_1"]}
        status, shown = await one.page("GET", "_/requests/2")
        assert status == 200 and shown["body"] == BODY.decode() and shown["seen"] == 2
        assert ["webhook-id", "evt_1"] in [[n.lower(), v] for n, v in shown["headers"]]


async def test_what_does_not_verify_is_refused_kept_and_explained() -> None:
    async with endpoint() as one:
        status, answer, _ = await one.post(**{"webhook-timestamp": "1"})
        assert status == 401 and answer == {"error": "stale"}
        _, shown = await one.page("GET", "_/requests/1")
        assert shown["codes"] == ["stale", "wrong_secret"] and not shown["ok"]
        assert (await one.page("GET", "processed"))[1] == {"processed": []}


async def test_it_answers_as_the_page_tells_it() -> None:
    async with endpoint() as one:
        assert (await one.page("PUT", "_/manner", {"status": 429, "retry_after": "17"}))[0] == 200
        status, _, headers = await one.post()
        assert (status, headers["retry-after"]) == (429, "17")
        assert (await one.page("PUT", "_/manner", {"drop": True}))[0] == 200
        with pytest.raises(aiohttp.ClientError):
            await one.post()
        assert one.told[-1].answer == "dropped"
        status, said = await one.page("PUT", "_/manner", {"status": 1000})
        assert status == 400 and "status" in said["error"]
        assert one.endpoint.manner.drop  # what was refused changed nothing
        assert (await one.page("GET", "processed"))[1] == {"processed": []}


async def test_a_delayed_answer_ends_with_the_endpoint() -> None:
    async with endpoint(delay_seconds=300) as one:
        waiting = asyncio.create_task(one.post())
        await one.arrived(1)
    done, _ = await asyncio.wait([waiting], timeout=20)
    assert done


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "{origin}", "host": "evil.example"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "_/manner"), ("POST", "_/clear"), ("POST", "_/requests/1/again")],
)
async def test_nobody_but_the_page_changes_anything(
    headers: dict[str, str], method: str, path: str
) -> None:
    async with endpoint() as one:
        await one.post()
        mine = {name: value.replace("{origin}", one.origin) for name, value in headers.items()}
        status, _, _ = await one.ask(method, path, b'{"status": 500}', mine)
        assert status == 403
        assert one.endpoint.manner == Manner() and len(one.told) == 1
        assert one.endpoint.inbox.get(1) is not None


@pytest.mark.parametrize("path", ["", "_/events", "_/requests/1", "processed", "_/page.js"])
async def test_under_another_name_than_loopbacks_nothing_is_shown(path: str) -> None:
    async with endpoint() as one:
        await one.post()
        assert (await one.ask("GET", path, None, {"host": "evil.example"}))[0] == 403


async def test_a_request_is_sent_again_as_it_came_or_signed_anew() -> None:
    async with endpoint() as one:
        old = sign_headers([SECRET], "evt_1", int(time.time()) - 1_000, BODY)
        assert (await one.ask("POST", "hooks", BODY, old))[0] == 401
        status, came = await one.page("POST", "_/requests/1/again", {"sign": False})
        assert (status, came["status"]) == (200, 401)
        status, came = await one.page("POST", "_/requests/1/again", {"sign": True})
        assert (status, came["status"]) == (200, 200)
        assert [r.found.ok for r in one.told] == [False, False, True]
        assert one.told[2].body == BODY and one.told[2].found.id == "evt_1"


@pytest.mark.parametrize(
    "url",
    ["http://192.0.2.1/", "http://localhost.evil.example/", "file:///etc/passwd", "nonsense",
     "http://127.0.0.1@192.0.2.1/"],
)  # fmt: skip
async def test_it_is_sent_again_to_loopback_only(url: str) -> None:
    async with endpoint() as one:
        await one.post()
        status, _ = await one.page("POST", "_/requests/1/again", {"url": url})
        assert status == 400


async def test_with_a_public_key_alone_nothing_can_be_signed_anew() -> None:
    private, public = new_key_pair()
    async with endpoint(public) as one:
        headers = sign_headers([private], "evt_1", int(time.time()), BODY)
        assert (await one.ask("POST", "", BODY, headers))[0] == 200
        status, said = await one.page("POST", "_/requests/1/again", {"sign": True})
        assert status == 400 and "only a public key" in said["error"]


async def test_the_page_is_told_of_all_there_is_and_of_each_change() -> None:
    async with endpoint() as one, aiohttp.ClientSession() as session:
        await one.post(id_="evt_0")
        async with session.get(one.url + "_/events") as events:

            async def next_event() -> tuple[str, Any]:
                name = (await events.content.readuntil(b"\n")).decode().split(": ")[1].strip()
                data = (await events.content.readuntil(b"\n\n")).decode().removeprefix("data: ")
                return name, json.loads(data)

            name, hello = await next_event()
            assert name == "hello" and [r["id"] for r in hello["requests"]] == ["evt_0"]
            assert SECRET not in json.dumps(hello)
            await one.post()
            name, row = await next_event()
            assert (name, row["id"], row["types"], row["ok"]) == (
                "request", "evt_1", ["order.created"], True,
            )  # fmt: skip
            await one.page("PUT", "_/manner", {"status": 500})
            assert (await next_event())[1]["status"] == 500
            await one.page("POST", "_/clear", {})
            assert (await next_event())[0] == "cleared"


async def test_a_body_that_is_too_large_is_refused_and_not_kept() -> None:
    async with endpoint() as one:
        assert (await one.post(b"x" * (5 * 1_048_576)))[0] == 413
        assert not one.told


async def test_a_port_that_is_taken_is_said_to_be() -> None:
    async with endpoint() as one:
        port = int(one.origin.rpartition(":")[2])
        with pytest.raises(CannotListen, match=f"{port}.*Choose another --port"):
            async with serving(Endpoint([SECRET], Scheme(), Manner(), print), port):
                pass


# --- the command -----------------------------------------------------------------------------


def test_the_command_prints_saves_and_ends(tmp_path: Path) -> None:
    saved = tmp_path / "saved.jsonl"
    environ = {k: v for k, v in os.environ.items() if k != "WEBHOOK_SECRET"}
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "dispatcherd", "receive", "--port", "0", "--save", str(saved)],
            stdout=out, stderr=out, env={**environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip

    def printed() -> str:
        return (tmp_path / "out").read_text()

    try:
        wait_for(lambda: "Ctrl-C ends" in printed(), 20, "the endpoint")
        [secret] = re.findall(r"export WEBHOOK_SECRET=(whsec_\S+)", printed())
        [url] = re.findall(r"webhooks to (\S+)", printed())
        mine = {"WEBHOOK_SECRET": secret}
        for more in ([], ["--tamper"]):
            sent = CliRunner().invoke(cli, ["send-test", url, *more], env=mine)
            assert sent.exit_code == 0, sent.output
        wait_for(lambda: "wrong_secret" in printed(), 20, "the second one")
        assert re.search(r"verified +200 +webhook\.ping +evt_", printed())
        lines = saved.read_bytes().splitlines()
        assert len(lines) == 2 and stat.S_IMODE(saved.stat().st_mode) == 0o600
        for line, code in zip(lines, (0, 1), strict=True):
            done = CliRunner().invoke(cli, ["verify", "--request", "-"], input=line, env=mine)
            assert done.exit_code == code, done.output
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait(10)
