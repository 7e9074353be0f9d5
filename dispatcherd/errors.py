"""Every exception dispatcherd raises on purpose.

A receiver's fault is never one of these: it is a value (`delivery.Outcome`). An exception here
says what is wrong, where, and what to do about it, in words for the person who will read it.
"""

from __future__ import annotations

from typing import NamedTuple


class DispatcherdError(Exception):
    """What is wrong, where, and what to do: `str()` of it is fit to print to an operator."""


class ConfigError(DispatcherdError):
    """The configuration cannot be used. Each problem names its key, its value and a remedy."""

    def __init__(self, problems: list[ConfigProblem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class ConfigProblem:
    """One mistake in a configuration: where it stands, what stands there, and what to write."""

    __slots__ = ("key", "remedy", "trouble", "value")

    def __init__(self, key: str, value: str, trouble: str, remedy: str) -> None:
        self.key = key
        self.value = value
        self.trouble = trouble
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.key} = {self.value}: {self.trouble}. {self.remedy}"


class StoreError(DispatcherdError):
    """Postgres answered, and the answer means that we must not go on (schema, deployment)."""


class StoreUnavailable(DispatcherdError):
    """Postgres did not answer in time or refused the connection; trying again may help."""


class LogError(DispatcherdError):
    """Kafka answered, and the answer needs a decision by the operator."""


class LogUnavailable(DispatcherdError):
    """Kafka did not answer in time; trying again may help."""


class StartTimeout(DispatcherdError):
    """A part did not answer, or the group did not take us in, within `start_timeout_seconds`."""


class AdminUnavailable(DispatcherdError):
    """The admin surface cannot listen where it is told to."""


class AddressForbidden(DispatcherdError):
    """A URL or a concrete address that must not be connected to, and the rule that says so."""


class CatalogueError(DispatcherdError):
    """The event catalogue cannot be used. Each problem names its file, place and a remedy."""

    def __init__(self, problems: list[CatalogueProblem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class CatalogueProblem(NamedTuple):
    """One mistake in the event catalogue: where it stands and what to write."""

    file: str
    line: int | None
    key: str
    """`versions.1.schema.properties.total`; empty for the file as a whole."""
    trouble: str
    remedy: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        key = f"{self.key}: " if self.key else ""
        return f"{place}: {key}{self.trouble}. {self.remedy}"


class UnknownEvent(DispatcherdError):
    """The catalogue has no such event type, or no such version of it."""


class OutputRefused(DispatcherdError):
    """A file that a command was asked to write cannot be written."""
