"""HTTPS is told from HTTP by the server's own word, and facts are fetched over verified TLS."""

from __future__ import annotations

import asyncio
import datetime
import http.client
import ipaddress
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dispatcherd.receiver import AsyncReceiver, asgi
from dispatcherd.receiver import aiohttp as aiohttp_adapter
from dispatcherd.receiver.published import PublishedFactsError, fetch_facts
from dispatcherd.receiver.testing import RequestFactory
from tests.integration.receiver.serving import in_thread
from tests.rig.waiting import free_port, wait_for


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 with its key, its own CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "receiver test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    encoding, none = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, none)
    path.write_bytes(private + made.public_bytes(encoding))
    return path


@contextmanager
def served_by_uvicorn(receiver: AsyncReceiver, certificate: Path) -> Iterator[int]:
    port = free_port()
    options: dict[str, Any] = {"log_level": "warning", "ssl_certfile": str(certificate),
                               "ssl_keyfile": str(certificate)}  # fmt: skip
    config = uvicorn.Config(asgi.app(receiver), "127.0.0.1", port, **options)
    server = uvicorn.Server(config)

    def stop() -> None:
        server.should_exit = True

    with in_thread(server.run, stop):
        wait_for(lambda: server.started, 20, "uvicorn")
        yield port


@contextmanager
def served_by_aiohttp(receiver: AsyncReceiver, certificate: Path) -> Iterator[int]:
    port, started, stopping = free_port(), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def run() -> None:
        app = web.Application()
        aiohttp_adapter.setup(app, receiver, "/")
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
        started.set()
        await stopping.wait()
        await runner.cleanup()

    with in_thread(
        lambda: loop.run_until_complete(run()), lambda: loop.call_soon_threadsafe(stopping.set)
    ):
        assert started.wait(20)
        yield port
    loop.close()


@pytest.mark.parametrize("serve", [served_by_uvicorn, served_by_aiohttp])
def test_what_came_over_tls_passes_the_https_guard(
    serve: Any, certificate: Path, signed_request: RequestFactory
) -> None:
    receiver = AsyncReceiver([signed_request.secret], https_only=True)
    receiver.on("*")(lambda event: None)
    request = signed_request()
    with serve(receiver, certificate) as port:
        context = ssl.create_default_context(cafile=certificate)
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
        connection.request("POST", "/", request.body, request.headers)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())) == (200, {"status": "done"})
        connection.close()


@pytest.fixture
def publish(certificate: Path) -> Iterator[Callable[..., str]]:
    """Serves bytes over TLS; their URL."""
    with ExitStack() as stack:

        def start(content: bytes, status: int = 200, location: str | None = None) -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    self.send_response(status)
                    if location is not None:
                        self.send_header("location", location)
                    self.end_headers()
                    self.wfile.write(content)

                def log_message(self, format: str, *args: Any) -> None: ...

            server = HTTPServer(("127.0.0.1", 0), Handler)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            stack.callback(server.server_close)
            stack.enter_context(in_thread(lambda: server.serve_forever(0.02), server.shutdown))
            return f"https://127.0.0.1:{server.server_port}/"

        yield start


def test_published_facts_are_fetched_over_verified_tls(
    publish: Callable[..., str], certificate: Path
) -> None:
    url = publish(json.dumps({"egress": ["192.0.2.0/24"]}).encode())
    trusting = ssl.create_default_context(cafile=certificate)
    assert fetch_facts(url, context=trusting).egress == ("192.0.2.0/24",)
    with pytest.raises(PublishedFactsError, match="certificate"):
        fetch_facts(url)


@pytest.mark.parametrize(
    ("content", "status", "location", "why"),
    [
        (b"not json", 200, None, "not JSON"),
        (b"{}", 404, None, "404"),
        (b" " * (1_048_576 + 1), 200, None, "more than 1048576 bytes"),
        (b"{}", 302, "http://127.0.0.1:9/", "cannot fetch|https"),
    ],
)
def test_facts_that_cannot_be_had_whole_are_a_named_error(
    publish: Callable[..., str],
    certificate: Path,
    content: bytes,
    status: int,
    location: str | None,
    why: str,
) -> None:
    trusting = ssl.create_default_context(cafile=certificate)
    with pytest.raises(PublishedFactsError, match=why):
        fetch_facts(publish(content, status, location), timeout_seconds=5, context=trusting)
