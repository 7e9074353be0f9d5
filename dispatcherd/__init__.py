"""dispatcherd: webhooks out of Kafka, signed, retried, recorded.

The package reads in the order of an event's way; CONTRIBUTING.md draws the floors.
"""

__version__ = "0.1.0"
