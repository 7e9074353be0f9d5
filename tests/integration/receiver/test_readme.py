"""What the distribution's README shows, runs; what it names, exists."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path
from typing import Any

import flask
import pytest

import dispatcherd.receiver
from dispatcherd.receiver import Receiver
from dispatcherd.receiver.flask import view
from dispatcherd.receiver.signing import new_secret
from dispatcherd.receiver.testing import RequestFactory, WebhookServer

README = Path(__file__).parents[3] / "receiver" / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


class FlaskLike:
    """The two parts of a request that the front example reads."""

    def __init__(self, signed: Any) -> None:
        self.headers = signed.headers
        self.get_data = lambda: signed.body


@pytest.mark.parametrize("block", BLOCKS[:-1], ids=lambda block: block.split("\n")[0])
def test_each_example_runs(
    block: str, signed_request: RequestFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signed = signed_request({"type": "order.created", "data": {"id": 7}}, id="evt_1")
    namespace: dict[str, Any] = {"request": FlaskLike(signed), "os": os}
    os.environ["WEBHOOK_SECRET"] = signed_request.secret
    folder = Path.cwd()
    os.chdir(tmp_path)
    try:
        exec(compile(block, str(README), "exec"), namespace)
    finally:
        os.chdir(folder)
        del os.environ["WEBHOOK_SECRET"]
    assert isinstance(namespace["webhook"], Receiver)
    if "event" in namespace:
        assert capsys.readouterr().out == "evt_1 order.created 1 {'id': 7}\n"


def test_the_examples_for_tests_pass(
    signed_request: RequestFactory, webhook_receiver: WebhookServer
) -> None:
    import http.client

    receiver = Receiver([secret := new_secret()])
    receiver.on("*")(lambda event: None)
    app = flask.Flask("receiving")
    app.add_url_rule("/webhooks", view_func=view(receiver), methods=["POST"])

    def send_to(url: str, secret: str) -> None:
        request = signed_request({"type": "order.created"}, secret=secret)
        connection = http.client.HTTPConnection(url.split("/")[2], timeout=10)
        connection.request("POST", "/", request.body, request.headers)
        assert connection.getresponse().status == 200
        connection.close()

    namespace: dict[str, Any] = {"SECRET": secret, "send_to": send_to}
    exec(compile(BLOCKS[-1], str(README), "exec"), namespace)
    namespace["test_an_order_is_taken_in"](app.test_client(), signed_request)
    namespace["test_my_sender"](webhook_receiver)


def test_every_name_and_metric_in_the_readme_exists(signed_request: RequestFactory) -> None:
    text = README.read_text()
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"`([A-Z][A-Za-z]+)[`(]", prose))
    assert "AsyncRedisStore" in named and named <= set(dispatcherd.receiver.__all__)
    for module in ("flask", "django", "wsgi", "asgi", "aiohttp"):
        found = importlib.import_module(f"dispatcherd.receiver.{module}")
        for function in re.findall(rf"\b{module}\.([a-z_]+)\b", text):
            assert hasattr(found, function), f"{module}.{function}"
    shown = Receiver([signed_request.secret]).metrics.text()
    for metric in re.findall(r"`…(_[a-z_]+)", text):
        assert f"webhook_receiver{metric}" in shown or metric.startswith("_backlog_")
