"""What most acceptance tests begin with: a topic, a database, receivers, and daemons for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tests.acceptance.checks import wait_all_accepted, wait_settled
from tests.rig.daemon import Daemon, config_for
from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database
from tests.rig.producer import Record, events, publish
from tests.rig.receivers import Receivers
from tests.rig.waiting import wait_for


class Scene:
    """The parts of one test, and the few things that are done with all of them."""

    def __init__(
        self,
        kafka: KafkaBroker,
        database: Database,
        receivers: Receivers,
        topic: str,
        make: Callable[..., Daemon],
        partitions: int,
        topic_config: dict[str, str] | None = None,
    ) -> None:
        self.kafka, self.database, self.receivers = kafka, database, receivers
        self.topic, self.make, self.partitions = topic, make, partitions
        kafka.create_topic(topic, partitions, topic_config)

    def endpoint(self, name: str, **more: Any) -> dict[str, Any]:
        """A registration, at the receiver of the same name."""
        return {"id": name, "url": self.receivers.url(name), **more}

    def config(self, *endpoints: dict[str, Any], **sections: Any) -> dict[str, Any]:
        """A configuration for these parts; `sections` are merged into it."""
        return config_for(
            self.kafka.bootstrap, self.database.dsn, self.topic, list(endpoints), **sections
        )

    def daemon(self, *endpoints: dict[str, Any], **sections: Any) -> Daemon:
        """A daemon that has still to be started."""
        return self.make(self.config(*endpoints, **sections))

    def start(self, *endpoints: dict[str, Any], **sections: Any) -> Daemon:
        """A daemon that is ready."""
        return self.daemon(*endpoints, **sections).start()

    def publish(self, numbers: Iterable[int], event_type: str = "order.created") -> None:
        """Events of these numbers, evenly over the partitions."""
        self.publish_records(events(numbers, event_type, self.partitions))

    def publish_records(self, records: Iterable[Record]) -> None:
        """Any records."""
        publish(self.kafka.bootstrap, self.topic, records)

    def wait_accepted(self, name: str, numbers: Iterable[int], timeout_seconds: float = 90) -> None:
        """Until a receiver has accepted every one of these events."""
        wait_all_accepted(self.receivers, name, numbers, timeout_seconds)

    def wait_more_accepted(self, name: str, more: int = 1, timeout_seconds: float = 60) -> None:
        """Until a receiver has accepted so many events more than it has now."""
        enough = self.receivers.accepted(name) + more
        wait_for(
            lambda: self.receivers.accepted(name) >= enough, timeout_seconds, f"more at {name}"
        )

    def wait_settled(self) -> None:
        """Until every partition's watermark is at its end."""
        wait_settled(self.kafka, self.database, self.topic)
