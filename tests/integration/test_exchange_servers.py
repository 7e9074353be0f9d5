"""Both exchanges against servers that receivers really use.

Each speaks the same contract (tests/integration/servers). What is missing on this machine is
skipped by name; in CI nothing may be missing: Debian's nginx-light, nodejs and golang.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcherd.delivery import Reason
from tests.rig.exchanges import Poster, Posters, gone_back, poster, posters
from tests.rig.need import need
from tests.rig.waiting import free_port, wait_for

__all__ = ["poster", "posters"]

_SERVERS = Path(__file__).parent / "servers"
_KINDS = ["nginx", "node", "go", "uvicorn-httptools", "uvicorn-h11", "aiohttp"]
_NEEDS = {
    "nginx": ("nginx", "Debian's nginx-light"),
    "node": ("node", "Debian's nodejs"),
    "go": ("go", "Debian's golang"),
}
_BREAKING = [kind for kind in _KINDS if kind != "nginx"]  # it has no way to break off an answer


def only(*kinds: str) -> pytest.MarkDecorator:
    """For what not every kind of server can do."""
    return pytest.mark.parametrize("server", kinds, indirect=True)


class Server:
    """A process of one kind on a port of its own."""

    def __init__(self, kind: str, command: list[str], port: int) -> None:
        self.kind = kind
        self.port = port
        self.process = subprocess.Popen(command)
        wait_for(self._answers, 30, f"{kind} answers")

    def _answers(self) -> bool:
        assert self.process.poll() is None, f"{self.kind} ended with {self.process.returncode}"
        request = urllib.request.Request(self.url("none"), data=b"", method="POST")
        try:
            return bool(urllib.request.urlopen(request, timeout=5).status == 204)
        except (urllib.error.URLError, ConnectionError):
            return False

    def url(self, path: str) -> str:
        """Of one of the contract's paths."""
        return f"http://127.0.0.1:{self.port}/{path}"


def found(program: str) -> str | None:
    """Where it is; Debian puts nginx where only root looks for it."""
    return shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")


def command(kind: str, port: int, directory: Path) -> list[str]:
    """How to start one."""
    if kind == "nginx":
        (directory / "chunked.html").write_text(
            'part one, <!--#echo var="part" default="part two" -->'
        )
        text = (_SERVERS / "nginx.conf").read_text()
        text = text.replace("PORT", str(port)).replace("DIRECTORY", str(directory))
        (directory / "nginx.conf").write_text(text)
        return [
            found("nginx") or "nginx",
            "-p",
            str(directory),
            "-c",
            str(directory / "nginx.conf"),
        ]
    if kind == "node":
        return ["node", str(_SERVERS / "node.mjs"), str(port)]
    if kind == "go":
        binary = directory / "server"
        subprocess.run(
            ["go", "build", "-o", str(binary), str(_SERVERS / "server.go")],
            check=True,
            env={**os.environ, "GOFLAGS": "-mod=mod", "GOPROXY": "off"},
        )
        return [str(binary), str(port)]
    if kind.startswith("uvicorn"):
        return [sys.executable, "-m", "uvicorn", "asgi:app", "--app-dir", str(_SERVERS),
                "--http", kind.partition("-")[2], "--port", str(port),
                "--log-level", "critical"]  # fmt: skip
    return [sys.executable, str(_SERVERS / "aiohttp_server.py"), str(port)]


@pytest.fixture(scope="module", params=_KINDS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    kind = request.param
    if kind in _NEEDS and shutil.which(_NEEDS[kind][0]) is None:
        why = f"no {_NEEDS[kind][0]} on this machine: install {_NEEDS[kind][1]}"
        need(why)
    port = free_port()
    one = Server(kind, command(kind, port, tmp_path_factory.mktemp(kind)), port)
    yield one
    one.process.kill()
    one.process.wait(10)


async def test_many_requests_arrive_whole_over_few_connections(
    server: Server, poster: Poster
) -> None:
    ports = set()

    async def lane(number: int) -> None:
        for turn in range(100):
            body = b"x" * (turn * 37 + number)
            response = await poster.post(server.url("count"), body)
            assert response.status == 200
            length, port = response.body.split()
            assert int(length) == len(body)
            ports.add(port)

    await asyncio.gather(*(lane(number) for number in range(5)))
    assert len(ports) == 5


@pytest.mark.parametrize("size", [65_536, 3_000_000])
async def test_large_bodies_arrive_whole(server: Server, poster: Poster, size: int) -> None:
    for _ in range(3):
        response = await poster.post(server.url("count"), b"x" * size, seconds=30)
        assert (response.status, int(response.body.split()[0])) == (200, size)


async def test_answers_mean_what_they_say(server: Server, poster: Poster) -> None:
    for _ in range(3):
        chunked = await poster.post(server.url("chunked"))
        assert (chunked.status, chunked.body.strip()) == (200, b"part one, part two")
        busy = await poster.post(server.url("busy"))
        assert (busy.status, busy.retry_after) == (503, "7")
        assert (await poster.post(server.url("none"))).status == 204
        assert (await poster.post(server.url("gone"))).status == 410
        assert (await poster.post(server.url("moved"))).status == 302


async def test_a_server_that_closes_is_asked_again_on_a_new_connection(
    server: Server, poster: Poster
) -> None:
    for _ in range(5):
        response = await poster.post(server.url("close"))
        assert (response.status, response.body) == (200, b"bye")
        assert (await poster.post(server.url("count"))).status == 200


@only(*_BREAKING)
async def test_a_server_that_breaks_off_its_answer_has_not_answered(
    server: Server, poster: Poster
) -> None:
    response = await poster.post(server.url("broken"))
    assert (response.status, response.failure) == (200, Reason.DISCONNECTED)
    assert (await poster.post(server.url("count"))).status == 200


async def test_a_connection_left_alone_serves_again(server: Server, posters: Posters) -> None:
    """Past the time after which the fast exchange gives it back."""
    poster = posters(keepalive_seconds=4)
    assert (await poster.post(server.url("count"))).status == 200
    await gone_back(poster)
    assert (await poster.post(server.url("count"))).status == 200


@only("nginx", "go")
async def test_a_refusal_before_the_body_was_read_counts(server: Server, poster: Poster) -> None:
    """Go and nginx answer 413 while the body is on its way, and close. Whether the answer or the
    reset comes first is the network's choice."""
    for size in (2_000, 3_000_000):
        response = await poster.post(server.url("early"), b"x" * size)
        assert response.status == 413 or response.failure is Reason.DISCONNECTED
        assert (await poster.post(server.url("count"))).status == 200


@only("node", "go")
async def test_early_hints_are_passed_over(server: Server, poster: Poster) -> None:
    for _ in range(2):
        response = await poster.post(server.url("hints"))
        assert (response.status, response.body) == (200, b"hinted")


@only("nginx")
async def test_a_connection_that_nginx_ends_after_so_many_requests_is_not_used_again(
    server: Server, poster: Poster
) -> None:
    ports = [(await poster.post(server.url("third"))).body for _ in range(9)]
    assert len(set(ports)) == 3


@only("nginx")
async def test_a_gateway_without_its_upstream_answers_502(server: Server, poster: Poster) -> None:
    for _ in range(2):
        assert (await poster.post(server.url("dead"))).status == 502
