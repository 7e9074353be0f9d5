"""Each framework, really served on loopback, with a receiver as its one route."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import tempfile
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import flask
import uvicorn
import werkzeug.serving
from aiohttp import web
from django.conf import settings
from django.urls import clear_url_caches, path
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Route

from dispatcherd.receiver import AsyncReceiver, Receiver, asgi, wsgi
from dispatcherd.receiver import aiohttp as aiohttp_adapter
from dispatcherd.receiver import flask as flask_adapter
from tests.rig.waiting import free_port, wait_for

PATH = "/webhooks"
_FOLDER = tempfile.TemporaryDirectory()
_DATABASE = f"{_FOLDER.name}/django.db"
"""A file, for Django never closes a database in memory. Nothing is ever written to it."""


@contextmanager
def _wsgi_served(app: Any) -> Iterator[int]:
    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True

    class Quiet(WSGIRequestHandler):
        def log_message(self, format: str, *args: Any) -> None: ...

    server = make_server("127.0.0.1", 0, app, Server, Quiet)
    with in_thread(lambda: server.serve_forever(0.02), server.shutdown):
        yield server.server_port
    server.server_close()


@contextmanager
def in_thread(run: Callable[[], Any], stop: Callable[[], Any]) -> Iterator[None]:
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join(30)
        assert not thread.is_alive(), "the server did not end"


@contextmanager
def _asgi_served(app: Any) -> Iterator[int]:
    port = free_port()
    # By default uvicorn itself believes a peer on 127.0.0.1 about address and scheme.
    options: dict[str, Any] = {"proxy_headers": False, "loop": "asyncio", "log_level": "warning"}
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", port, **options))

    def stop() -> None:
        server.should_exit = True

    with in_thread(server.run, stop):
        wait_for(lambda: server.started, 20, "uvicorn")
        yield port


@contextmanager
def serve_wsgi(receiver: Receiver) -> Iterator[int]:
    with _wsgi_served(wsgi.app(receiver)) as port:
        yield port


@contextmanager
def serve_flask(receiver: Receiver) -> Iterator[int]:
    app = flask.Flask("receiving")
    app.add_url_rule(PATH, view_func=flask_adapter.view(receiver), methods=["POST"])
    server = werkzeug.serving.make_server("127.0.0.1", free_port(), app, threaded=True)
    with in_thread(lambda: server.serve_forever(0.02), server.shutdown):
        yield server.server_port
    server.server_close()


@contextmanager
def serve_asgi(receiver: AsyncReceiver) -> Iterator[int]:
    with _asgi_served(asgi.app(receiver)) as port:
        yield port


@contextmanager
def serve_fastapi(receiver: AsyncReceiver) -> Iterator[int]:
    app = FastAPI(lifespan=asgi.lifespan(receiver))
    app.router.add_route(PATH, asgi.app(receiver), methods=["POST"])
    with _asgi_served(app) as port:
        yield port


@contextmanager
def serve_starlette(receiver: AsyncReceiver) -> Iterator[int]:
    routes = [Route(PATH, asgi.app(receiver), methods=["POST"])]
    with _asgi_served(Starlette(routes=routes, lifespan=asgi.lifespan(receiver))) as port:
        yield port


@contextmanager
def serve_aiohttp(receiver: AsyncReceiver) -> Iterator[int]:
    port = free_port()
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()
    started = threading.Event()

    async def run() -> None:
        app = web.Application(client_max_size=64 << 20)
        aiohttp_adapter.setup(app, receiver, PATH)
        runner = web.AppRunner(app, access_log=None, lingering_time=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        started.set()
        await stopping.wait()
        await runner.cleanup()

    with in_thread(
        lambda: loop.run_until_complete(run()), lambda: loop.call_soon_threadsafe(stopping.set)
    ):
        assert started.wait(20)
        yield port
    loop.close()


def _django(view: Any) -> None:
    import django

    if not settings.configured:
        settings.configure(
            ALLOWED_HOSTS=["*"],
            MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": _DATABASE}},
            DATA_UPLOAD_MAX_MEMORY_SIZE=4 << 20,
            SECRET_KEY=os.urandom(16).hex(),
            # What an application behind a proxy sets, and what a client must not be able to use.
            SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
        )
        django.setup()
    urls = types.ModuleType("receiver_urls")
    urls.urlpatterns = [path(PATH[1:], view)]  # type: ignore[attr-defined]
    settings.ROOT_URLCONF = urls
    clear_url_caches()


@contextmanager
def serve_django(receiver: Receiver) -> Iterator[int]:
    from django.core.wsgi import get_wsgi_application

    from dispatcherd.receiver import django as django_adapter

    _django(django_adapter.view(receiver))
    with _wsgi_served(get_wsgi_application()) as port:
        yield port


@contextmanager
def serve_django_asgi(receiver: AsyncReceiver) -> Iterator[int]:
    from django.core.asgi import get_asgi_application

    from dispatcherd.receiver import django as django_adapter

    _django(django_adapter.async_view(receiver))
    with _asgi_served(get_asgi_application()) as port:
        yield port


SERVERS: dict[str, tuple[Any, Any]] = {
    "wsgi": (Receiver, serve_wsgi),
    "flask": (Receiver, serve_flask),
    "django": (Receiver, serve_django),
    "asgi": (AsyncReceiver, serve_asgi),
    "fastapi": (AsyncReceiver, serve_fastapi),
    "starlette": (AsyncReceiver, serve_starlette),
    "aiohttp": (AsyncReceiver, serve_aiohttp),
    "django-asgi": (AsyncReceiver, serve_django_asgi),
}


class Client:
    """Asks a served receiver."""

    def __init__(self, port: int) -> None:
        self.port = port

    def post(
        self, headers: dict[str, str], body: Any, method: str = "POST"
    ) -> tuple[int, Any, dict[str, str]]:
        """(status, parsed body, headers) of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, PATH, body, headers)
            answer = connection.getresponse()
            text = answer.read()
            more = {name.lower(): value for name, value in answer.getheaders()}
            try:
                return answer.status, json.loads(text), more
            except ValueError:
                return answer.status, None, more
        finally:
            connection.close()
