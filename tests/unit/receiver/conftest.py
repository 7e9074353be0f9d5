"""The plugin's own fixtures: the entry point is the other distribution's."""

from dispatcherd.receiver.testing import (  # noqa: F401
    signed_request,
    webhook_receiver,
    webhook_secret,
)
