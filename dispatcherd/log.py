"""Logs: structured lines to stderr, one per change of a state and not one per failure.

Invariant: no secret in a line, no line break from outside in a line, and no event that can fill a
disk: each (event, key) has a budget per minute, all keys past a number of them have one together,
and so have all lines; what was suppressed is counted in the next line and summed up every minute.
Leaves out: metrics.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson

from dispatcherd.config.model import LogConfig

_SECRETS = (
    (re.compile(r"(://[^:/@\s]*):[^\s\"'<>]*@"), r"\1:***@"),
    (re.compile(r"wh(?:sec|sk)_[A-Za-z0-9+/=_-]+"), "whsec_***"),
    (re.compile(r"\b(Basic|Bearer)\s+[A-Za-z0-9._~+/=-]{8,}"), r"\1 ***"),
    (
        re.compile(
            r"(?i)(password|passwd|secret|token)(\s*=\s*|[\"']\s*:\s*)"
            r"(\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?|\S+)"
        ),
        r"\1\2***",
    ),
)
_PER_MINUTE = 20
_ALL_PER_MINUTE = 300
_ERRORS_PER_MINUTE = 100
"""Errors have their own, so that a flood of warnings hides none."""
_MOST_KEYS = 2_000
_MOST_EVENTS_NAMED = 10
_MOST_CHARACTERS = 500
_MOST_LOOKED_AT = 8_000
_PRIORITY = {10: "<7>", 20: "<6>", 30: "<4>", 40: "<3>", 50: "<2>"}
_KEYS = ("endpoint", "topic", "partition", "reason", "part")


class Logger:
    """Named events with fields: `log.info("endpoint_held", endpoint="x", reason="...")`."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: Any) -> None:
        """For whoever looks closely; off by default."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """A change in order."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """A change that an operator wants to know of."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Something that needs somebody."""
        self._log(logging.ERROR, event, fields)

    def _log(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            trace = fields.pop("exc_info", None)
            self._logger.log(level, event, extra={"fields": fields}, exc_info=trace)


def get(name: str) -> Logger:
    """The logger of a module."""
    return Logger(name)


class Budget(logging.Filter):
    """At most so many lines a minute for each event and key, and in all; says how many it held
    back. (Debug lines, which somebody has asked for, do not count in all.)"""

    def __init__(
        self,
        per_minute: int = _PER_MINUTE,
        clock: Callable[[], float] = time.monotonic,
        all_per_minute: int = _ALL_PER_MINUTE,
        errors_per_minute: int = _ERRORS_PER_MINUTE,
    ) -> None:
        super().__init__()
        self._per_minute = per_minute
        self._clock = clock
        self._spent: dict[tuple[str, ...], _Spent] = {}
        self._purged_at = float("-inf")
        self._forgotten = 0
        """Lines that were held back for keys which have said nothing since."""
        self._most_in_all = {False: all_per_minute, True: errors_per_minute}
        self._left = {kind: _Left(float("-inf"), 0) for kind in self._most_in_all}
        self._untold: Counter[str] = Counter()
        """Event → lines held back since the last `sum_up`, of a bounded number of events."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this line may be written; notes the suppressed count on the one that is."""
        if getattr(record, "sums_up", False):
            return True
        now = self._clock()
        in_all = self._counted_in_all(record, now)
        if (in_all is None or in_all.lines > 0) and self._key_allows(record, now):
            if in_all is not None:
                in_all.lines -= 1
            return True
        event = str(record.msg)[:100]
        self._untold[event if len(self._untold) < _MOST_KEYS else "(other)"] += 1
        return False

    def sum_up(self) -> tuple[int, str]:
        """Lines held back since this was last asked, and of which events most of them."""
        untold, self._untold = self._untold, Counter()
        most = untold.most_common(_MOST_EVENTS_NAMED)
        return untold.total(), ", ".join(f"{event} {count}" for event, count in most)

    def _counted_in_all(self, record: logging.LogRecord, now: float) -> _Left | None:
        """What is left for lines of this kind; None: they are not counted."""
        if record.levelno <= logging.DEBUG:
            return None
        is_error = record.levelno >= logging.ERROR
        left = self._left[is_error]
        if now - left.since >= 60:
            left = self._left[is_error] = _Left(now, self._most_in_all[is_error])
        return left

    def _key_allows(self, record: logging.LogRecord, now: float) -> bool:
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        words = [str(fields.get(name))[:100] for name in _KEYS]
        key: tuple[str, ...] = (record.name, str(record.msg)[:200], *words)
        spent = self._spent.get(key)
        if spent is None and self._is_full(now):
            key = (record.name,)
            spent = self._spent.get(key)
        if spent is None or now - spent.since >= 60:
            if spent is not None and spent.suppressed:
                record.suppressed = spent.suppressed
            if self._forgotten:
                record.suppressed_elsewhere = self._forgotten
                self._forgotten = 0
            self._spent[key] = _Spent(now)
            return True
        spent.lines += 1
        if spent.lines <= self._per_minute:
            return True
        spent.suppressed += 1
        return False

    def _is_full(self, now: float) -> bool:
        if len(self._spent) < _MOST_KEYS:
            return False
        if now - self._purged_at >= 1:
            self._purged_at = now
            for key, spent in list(self._spent.items()):
                if now - spent.since >= 60:
                    self._forgotten += spent.suppressed
                    del self._spent[key]
        return len(self._spent) >= _MOST_KEYS


class _Left:
    """What is left of one minute, for all keys together."""

    __slots__ = ("lines", "since")

    def __init__(self, since: float, lines: int) -> None:
        self.since = since
        self.lines = lines


class _Spent:
    """One key's minute."""

    __slots__ = ("lines", "since", "suppressed")

    def __init__(self, since: float) -> None:
        self.since = since
        self.lines = 1
        self.suppressed = 0


def clean(value: Any) -> Any:
    """A value fit for a line: short, printable, without a secret."""
    if isinstance(value, (float, bool)) or value is None:
        return value
    if isinstance(value, int) and abs(value) < 1 << 63:  # JSON in other languages ends there
        return value
    if isinstance(value, (list, tuple, set)):
        return [clean(item) for item in list(value)[:50]]
    text = str(value)[:_MOST_LOOKED_AT]
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1] + "…"


class _Formatter(logging.Formatter):
    def __init__(self, form: str, journald: bool) -> None:
        super().__init__()
        self._json = form == "json"
        self._journald = journald

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        fields = {k: clean(v) for k, v in getattr(record, "fields", {}).items()}
        for name in ("suppressed", "suppressed_elsewhere"):
            if count := getattr(record, name, 0):
                fields[name] = count
        if record.exc_info and record.exc_info[1] is not None:
            fields["traceback"] = _trace(record)
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        message = clean(_message(record))
        if self._json:
            line = orjson.dumps(
                {
                    "ts": moment.replace("+00:00", "Z"),
                    "level": record.levelname.lower(),
                    "event": message,
                    "logger": record.name,
                    **fields,
                },
                default=str,
            ).decode()
        else:
            text = " ".join(f"{key}={_quoted(value)}" for key, value in fields.items())
            line = f"{moment[11:23]} {record.levelname.lower():7} {message} {text}".rstrip()
        return (_PRIORITY.get(record.levelno, "<6>") if self._journald else "") + line


def _message(record: logging.LogRecord) -> str:
    """A library's words; also when it logs them with arguments that do not fit."""
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        return str(record.msg)


def _quoted(value: Any) -> str:
    text = str(value)
    return repr(text) if " " in text or not text else text


def _trace(record: logging.LogRecord) -> str:
    assert record.exc_info is not None
    error, trace = record.exc_info[1], record.exc_info[2]
    places = []
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{os.path.basename(code.co_filename)}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return str(clean(f"{type(error).__name__}: {error} at " + " > ".join(places[-8:])))


def under_journald(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether the stream is the journal itself (systemd.exec(5), JOURNAL_STREAM): a line may then
    begin with its priority, `<3>`."""
    named = environ.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return named == f"{status.st_dev}:{status.st_ino}"


def sum_up() -> None:
    """Say how many lines were held back since this was last called; called every minute."""
    for handler in logging.getLogger().handlers:
        for held_back in handler.filters:
            if isinstance(held_back, Budget):
                count, events = held_back.sum_up()
                if count:
                    fields = {"count": count, "events": events}
                    extra = {"fields": fields, "sums_up": True}  # whatever has been spent
                    logging.getLogger(__name__).warning("lines_held_back", extra=extra)


def configure(
    config: LogConfig, stream: TextIO | None = None, environ: Mapping[str, str] | None = None
) -> None:
    """Send everything, also what libraries say from WARNING on, to one handler on `stream`."""
    stream = stream or sys.stderr
    form = config.format
    if form == "auto":
        form = "text" if stream.isatty() else "json"
    handler = logging.StreamHandler(stream)
    journald = under_journald(stream, os.environ if environ is None else environ)
    handler.setFormatter(_Formatter(form, journald))
    handler.addFilter(Budget())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("dispatcherd").setLevel(config.level.upper())
    logging.Formatter.converter = time.gmtime
    # aiokafka reports every failed retry at ERROR; our own lines say the change once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    logging.getLogger("asyncpg").setLevel(logging.ERROR)
