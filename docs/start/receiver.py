"""receiver.py: verify each request, handle each event once."""

import os
from wsgiref.simple_server import make_server

from dispatcherd.receiver import Receiver, wsgi

webhook = Receiver(secrets=[os.environ["WEBHOOK_SECRET"]])


@webhook.on("order.*")
def order(event):
    print(event.id, event.type, event.data, flush=True)


make_server("127.0.0.1", 8000, wsgi.app(webhook)).serve_forever()
