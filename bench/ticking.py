"""Looking again and again from a thread, for as long as a context lasts."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Self


class Ticking(ABC):
    """A context in which `tick` is called every so many seconds, in a thread of its own."""

    def __init__(self, every_seconds: float) -> None:
        self._every = every_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._ended.wait(self._every):
            self.tick()

    @abstractmethod
    def tick(self) -> None:
        """Look once."""
