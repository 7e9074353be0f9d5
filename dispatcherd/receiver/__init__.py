"""What an application imports to receive webhooks. Nothing of the daemon, no dependencies.

Verify, and go on as you like:

    from dispatcherd.receiver import Receiver

    webhook = Receiver(secrets=[os.environ["WEBHOOK_SECRET"]])
    event = webhook.verify(request.headers, raw_body)  # or raises VerificationError
    print(event.id, event.type, event.data)

Or let it answer too: each event once, handlers by type, a time limit, partial failures of batches:

    @webhook.on("order.created")
    def order_created(event): ...

    app.add_url_rule("/webhooks", view_func=flask.view(webhook), methods=["POST"])

`AsyncReceiver` is the same for asyncio. With `backlog=Backlog("webhooks.db")` the answer is sent as
soon as the event is durable, and handlers run in the background. Adapters: `asgi` (FastAPI,
Starlette), `aiohttp`, `wsgi`, `flask`, `django`. For tests of your own: `testing`.
"""

from dispatcherd.receiver.asynchronous import AsyncReceiver
from dispatcherd.receiver.backlog import Backlog, BacklogFull
from dispatcherd.receiver.errors import (
    Behind,
    BodyNotRaw,
    BodyTooLarge,
    FutureTimestamp,
    MalformedHeader,
    MethodNotAllowed,
    MissingDependency,
    MissingHeader,
    NoMatchingSignature,
    NotHttps,
    ReceiverError,
    Refusal,
    SecretFormatError,
    SenderNotAllowed,
    StaleTimestamp,
    UnexpectedBatch,
    VerificationError,
)
from dispatcherd.receiver.event import Event, Message
from dispatcherd.receiver.metrics import Metrics
from dispatcherd.receiver.network import AllowList
from dispatcherd.receiver.options import Retry
from dispatcherd.receiver.results import Answer, Request, RetryLater
from dispatcherd.receiver.shedding import ShedPolicy
from dispatcherd.receiver.store import LeaseLost, StoreFull
from dispatcherd.receiver.store.memory import MemoryStore
from dispatcherd.receiver.store.redis import AsyncRedisStore, RedisStore
from dispatcherd.receiver.store.sql import SqlStore
from dispatcherd.receiver.threaded import Receiver

__version__ = "0.1.0"

__all__ = [
    "AllowList",
    "Answer",
    "AsyncReceiver",
    "AsyncRedisStore",
    "Backlog",
    "BacklogFull",
    "Behind",
    "BodyNotRaw",
    "BodyTooLarge",
    "Event",
    "FutureTimestamp",
    "LeaseLost",
    "MalformedHeader",
    "MemoryStore",
    "Message",
    "MethodNotAllowed",
    "Metrics",
    "MissingDependency",
    "MissingHeader",
    "NoMatchingSignature",
    "NotHttps",
    "Receiver",
    "ReceiverError",
    "RedisStore",
    "Refusal",
    "Request",
    "Retry",
    "RetryLater",
    "SecretFormatError",
    "SenderNotAllowed",
    "ShedPolicy",
    "SqlStore",
    "StaleTimestamp",
    "StoreFull",
    "UnexpectedBatch",
    "VerificationError",
]
