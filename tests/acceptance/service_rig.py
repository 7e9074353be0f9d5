"""A scene whose daemon is the service of a throwaway systemd."""

from __future__ import annotations

from typing import Any

from tests.acceptance.scene import Scene
from tests.rig.service import Service
from tests.rig.systemd import Systemd


class Rig:
    """The parts of one test."""

    def __init__(self, machine: Systemd, scene: Scene) -> None:
        self.machine, self.service = machine, Service(machine)
        self.kafka, self.database, self.topic = scene.kafka, scene.database, scene.topic
        self.config, self.publish = scene.config, scene.publish

    def start(self, *endpoints: dict[str, Any], **sections: Any) -> None:
        """Configure and start, as an operator does."""
        self.service.configure(self.config(*endpoints, **sections))
        self.service.start()
