"""The event catalogue: which event types there are, what their data looks like, in which versions.

Kept as files (files), looked at as `Catalogue` (catalogue), compared over time (compatibility),
used on consumption (conformity) and shown to the people who receive the events (render).
"""

from dispatcherd.events.catalogue import Catalogue, EventType, EventVersion, envelope
from dispatcherd.events.files import SAMPLE, load

__all__ = ["SAMPLE", "Catalogue", "EventType", "EventVersion", "envelope", "load"]
