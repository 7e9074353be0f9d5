"""Whether an event is what the catalogue says, and what becomes of one that is not.

Invariant: what is not by the catalogue is counted, and either logged or refused, so that it goes to
quarantine; no text that is made here holds a value of the event. Without a catalogue nothing is
looked at. Leaves out: what a catalogue is (events), the quarantine itself (intake).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from jsonschema_rs import ValidationError, ValidationErrorKind

from dispatcherd import log
from dispatcherd.config.model import CatalogueConfig
from dispatcherd.decode import data_of
from dispatcherd.delivery import Event, Reason, Refused
from dispatcherd.events import Catalogue, load
from dispatcherd.events.schema import compiled
from dispatcherd.events.source import dotted
from dispatcherd.metrics import OTHER, Metrics

logger = log.get(__name__)

_MOST_NAMED = 3
_DETAIL_CHARACTERS = 300


class Rules:
    """A catalogue, compiled, and the policies for what is not by it."""

    def __init__(self, catalogue: Catalogue, config: CatalogueConfig) -> None:
        self.types = len(catalogue.types)
        self._unknown_matters = config.on_unknown != "accept"
        self._quarantined = {
            Reason.INVALID_DATA: config.on_violation == "quarantine",
            Reason.UNKNOWN_TYPE: config.on_unknown == "quarantine",
            Reason.UNKNOWN_VERSION: config.on_unknown == "quarantine",
        }
        self._validators = {
            type_: {version: compiled(v.schema) for version, v in found.versions.items()}
            for type_, found in catalogue.types.items()
        }
        # The method itself, so that an event costs one look-up and one call.
        self._is_valid: dict[tuple[str, str], Callable[[Any], bool]] = {
            (type_, version): validator.is_valid
            for type_, versions in self._validators.items()
            for version, validator in versions.items()
        }

    @classmethod
    def of(cls, config: CatalogueConfig) -> Rules | None:
        """Read and compile what the configuration names. Raises CatalogueError."""
        return None if config.path is None else cls(load(config.path), config)

    def look(self, type_: str, version: str, data: Any) -> Refused | None:
        """What of an event is not by the catalogue, naming the field; None if nothing is."""
        is_valid = self._is_valid.get((type_, version))
        if is_valid is None:
            return self._unknown(type_, version) if self._unknown_matters else None
        if is_valid(data):
            return None
        errors = self._validators[type_][version].iter_errors(data)
        named = "; ".join(islice(_named(errors), _MOST_NAMED)) if data is not None else _NO_DATA
        detail = f"not by version {version} of {type_}: {named}"
        return Refused(Reason.INVALID_DATA, detail[:_DETAIL_CHARACTERS])

    def quarantines(self, reason: Reason) -> bool:
        """Whether an event is refused for it, rather than only warned of."""
        return self._quarantined[reason]

    def knows(self, type_: str) -> bool:
        """Whether the catalogue has the type."""
        return type_ in self._validators

    def _unknown(self, type_: str, version: str) -> Refused:
        versions = self._validators.get(type_)
        if versions is None:
            return Refused(Reason.UNKNOWN_TYPE, f"the catalogue has no type {type_!r}")
        has = f"it has {', '.join(versions)}"
        detail = f"the catalogue has no version {version!r} of {type_}; {has}"
        return Refused(Reason.UNKNOWN_VERSION, detail[:_DETAIL_CHARACTERS])


class Conformity:
    """Holds events against the rules in force, which a reload may replace."""

    def __init__(self, rules: Rules | None, metrics: Metrics) -> None:
        self.rules = rules
        """None: everything conforms."""
        self._metrics = metrics

    def refusal(self, rules: Rules, event: Event, document: dict[str, Any]) -> Refused | None:
        """Why the event must go to quarantine; None when it may go on, conforming or not."""
        found = rules.look(event.type, event.version, data_of(event, document))
        if found is None:
            return None
        # Of types outside of the catalogue there may be any number.
        self._metrics.violation(event.type if rules.knows(event.type) else OTHER, found.reason)
        if rules.quarantines(found.reason):
            return found
        logger.warning(
            "event_not_by_catalogue",
            topic=event.claim.topic,
            partition=event.claim.partition,
            offset=event.offset,
            reason=found.reason.word,
            detail=found.detail,
        )
        return None


_NO_DATA = "data is missing"


def _named(errors: Iterator[ValidationError]) -> Iterator[str]:
    for error in errors:
        kind, path = error.kind, ["data", *error.instance_path]
        if isinstance(kind, ValidationErrorKind.Required):
            yield f"{dotted([*path, str(kind.property)])} is missing"
        elif isinstance(kind, ValidationErrorKind.AdditionalProperties):
            yield f"{dotted([*path, str(kind.unexpected[0])])} is not described"
        elif isinstance(kind, ValidationErrorKind.FalseSchema):
            yield f"{dotted(path)} is not allowed, or something in it"
        else:
            yield f"{dotted(path)}: {error.message}"
