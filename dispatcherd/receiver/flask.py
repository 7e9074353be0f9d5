"""A receiver as a Flask view.

    app.add_url_rule("/webhooks", view_func=view(webhook), methods=["POST"])

Handlers run in the request's contexts where `timeout_seconds` is None, and outside of them
otherwise: give the receiver `around=app.app_context` if they need one. Invariant: the body is read
raw, before anything parses it.
"""

from __future__ import annotations

from collections.abc import Callable

import flask

from dispatcherd.receiver.front import require
from dispatcherd.receiver.threaded import Receiver
from dispatcherd.receiver.wsgi import answer_to


def view(receiver: Receiver, name: str = "webhook") -> Callable[[], flask.Response]:
    """The view function; `name` is its endpoint's, if it is registered without one."""
    require(receiver, Receiver, "dispatcherd.receiver.asgi")

    def webhook_view() -> flask.Response:
        answer = answer_to(receiver, flask.request.environ)
        return flask.Response(answer.body, answer.status, list(answer.headers))

    webhook_view.__name__ = name
    return webhook_view
