"""Log lines: one each, no secret in it, nothing from outside that breaks it, and never too many."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcherd import log
from dispatcherd.config.model import LogConfig
from dispatcherd.delivery import Reason


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    loggers = [
        root,
        *(logging.getLogger(n) for n in ("dispatcherd", "aiokafka", "asyncio", "asyncpg")),
    ]
    handlers, levels = root.handlers[:], [logger.level for logger in loggers]
    yield
    root.handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


class Lines:
    """What was logged since it was made."""

    def __init__(self, form: str = "json") -> None:
        self.stream = io.StringIO()
        log.configure(LogConfig.model_validate({"format": form}), self.stream, {})
        self.logger = log.get("dispatcherd.test")

    def raw(self) -> list[str]:
        """Each line; fails when the last one has no end."""
        text = self.stream.getvalue()
        assert not text or text.endswith("\n")
        return text.split("\n")[:-1]

    def parsed(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.raw()]


# --- one line each -------------------------------------------------------------------------

_anything = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(),
        st.text(st.characters(categories=["Cs", "Cc", "Zl", "Zp", "Cf"])), st.sampled_from(Reason),
    ),
    lambda inner: st.one_of(
        st.lists(inner), st.tuples(inner, inner), st.dictionaries(st.text(), inner),
        st.sets(st.text()),
    ),
    max_leaves=5,
)  # fmt: skip


@pytest.mark.parametrize("form", ["json", "text"])
@given(value=_anything, message=st.text())
def test_any_value_makes_exactly_one_printable_line(form: str, value: Any, message: str) -> None:
    lines = Lines(form)
    lines.logger.info("happened", endpoint=value, detail=value)
    lines.logger.warning(message, detail=1)
    first, second = lines.raw()
    assert first.isprintable()
    assert second.isprintable()
    if form == "json":
        for found in lines.parsed():
            assert {"ts", "level", "event", "logger"} <= found.keys()


@pytest.mark.parametrize("brk", ["\n", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
@pytest.mark.parametrize("form", ["json", "text"])
def test_no_line_break_from_outside_gets_into_a_line(form: str, brk: str) -> None:
    lines = Lines(form)
    forged = f"x{brk}<2>2026-01-01 critical forged"
    lines.logger.info("happened" + brk, detail=forged, topics=[forged])
    try:
        raise ValueError(forged)
    except ValueError as error:
        lines.logger.error("failed", exc_info=error)
    logging.getLogger("some.library").error("words %s", forged)
    assert len(lines.stream.getvalue().splitlines()) == 3


def test_a_number_that_other_languages_cannot_read_is_written_as_text() -> None:
    lines = Lines()
    lines.logger.info("happened", big=2**70, small=-(2**70), fits=2**62)
    (found,) = lines.parsed()
    assert (found["big"], found["small"]) == (str(2**70), str(-(2**70)))
    assert found["fits"] == 2**62


def test_a_library_that_logs_with_the_wrong_arguments_makes_a_line_and_no_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = Lines()
    logging.getLogger("some.library").error("%d of %s", "x")
    (found,) = lines.parsed()
    assert found["event"] == "%d of %s"
    assert capsys.readouterr().err == ""


def test_long_values_are_cut() -> None:
    lines = Lines()
    lines.logger.info("happened", detail="x" * 1_000_000, many=list(range(1_000)))
    (line,) = lines.raw()
    assert len(line) < 1_500


def test_an_exception_is_told_with_its_places_on_the_same_line() -> None:
    lines = Lines()
    try:
        json.loads("{")
    except ValueError as error:
        lines.logger.error("failed", error=str(error), exc_info=error)
    (found,) = lines.parsed()
    assert "JSONDecodeError" in found["traceback"]
    assert "test_log.py" in found["traceback"]


def test_journald_gets_its_priorities(tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w+") as stream:
        status = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        log.configure(LogConfig(format="json", level="debug"), stream, environ)
        logger = log.get("dispatcherd.test")
        for say in (logger.debug, logger.info, logger.warning, logger.error):
            say("happened")
        stream.seek(0)
        assert [line[:4] for line in stream] == ["<7>{", "<6>{", "<4>{", "<3>{"]


def test_success_is_debug_and_debug_is_off_by_default() -> None:
    lines = Lines()
    lines.logger.debug("delivered")
    assert lines.raw() == []


# --- no secret -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://user:S3CRET@host:5432/db",
        "postgresql://user:S3@S3CRET@host/db",
        "postgresql://user:S3/CRET@host/db",
        "postgresql://:S3CRET@host/db",
        "cannot reach https://a:S3CRET@b/ and https://c:S3CRET@d/",
        "whsec_S3CRET",
        "key=whsec_S3CRET,",
        "'\\nwhsec_S3CRET'",
        "xwhsec_S3CRET+/=x",
        "whsk_S3CRET",
        "password=S3CRET",
        "PASSWORD=S3CRET",
        "password = S3CRET",
        "password='S3 S3CRET'",
        'password="S3 S3CRET"',
        "password='S3 S3CRET",
        "sasl_plain_password='S3CRET'",
        '{"password": "S3CRET"}',
        "{'client_secret': 'S3CRET', 'a': 1}",
        "https://host/hook?token=S3CRET&x=1",
        "host=x passwd=S3CRET port=1",
        "Authorization: Bearer S3CRETS3CRET",
        "('authorization', 'Basic S3CRETS3CRET==')",
        "a\npassword=\tS3CRET",
    ],
)
@pytest.mark.parametrize("form", ["json", "text"])
def test_a_secret_is_in_no_part_of_a_line(form: str, text: str) -> None:
    lines = Lines(form)
    lines.logger.info(text, endpoint=text, detail=text, topics=[text], more={"x": text})
    try:
        raise ValueError(text)
    except ValueError as error:
        lines.logger.error("failed", error=f"{type(error).__name__}: {error}", exc_info=error)
    logging.getLogger("some.library").error("words %s", text)
    logging.getLogger("some.library").error("words %r", text)
    assert len(lines.raw()) == 4
    assert "CRET" not in lines.stream.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "https://example.com:8443/hook?a=b",
        "postgresql://user@host/db",
        "the secret is not readable; write the password into a file",
        "basic settings",
        "order.created",
    ],
)
def test_what_is_no_secret_stays_readable(text: str) -> None:
    assert log.clean(text) == text


# --- budget --------------------------------------------------------------------------------


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def record(event: str = "failed", wall: float = 0.0, **fields: Any) -> logging.LogRecord:
    made = logging.LogRecord("dispatcherd.test", logging.ERROR, "", 0, event, None, None)
    made.fields = fields
    made.created = wall
    return made


def passed(budget: log.Budget, count: int, **fields: Any) -> int:
    return sum(budget.filter(record(**fields)) for _ in range(count))


def test_each_event_and_key_has_a_budget_and_the_rest_is_counted_in_the_next_line() -> None:
    clock = Clock()
    budget = log.Budget(20, clock, errors_per_minute=1_000)
    assert passed(budget, 1_000, endpoint="a") == 20
    assert passed(budget, 1_000, endpoint="b") == 20
    assert passed(budget, 5, event="other", endpoint="a") == 5
    clock.now += 59.9
    assert passed(budget, 3, endpoint="a") == 0
    clock.now += 0.1
    line = record(endpoint="a")
    assert budget.filter(line)
    assert vars(line)["suppressed"] == 983
    again = record(endpoint="a")
    assert budget.filter(again)
    assert "suppressed" not in vars(again)
    assert passed(budget, 100, endpoint="a") == 18


def test_the_suppressed_count_is_shown() -> None:
    lines = Lines()
    handler = logging.getLogger().handlers[0]
    clock = Clock()
    handler.filters[:] = [log.Budget(2, clock)]
    for _ in range(5):
        lines.logger.error("failed", endpoint="a")
    clock.now += 60
    lines.logger.error("failed", endpoint="a")
    assert [found.get("suppressed") for found in lines.parsed()] == [None, None, 3]


def test_configured_as_the_daemon_is_it_has_a_budget() -> None:
    lines = Lines()
    for number in range(500):
        lines.logger.error("failed", endpoint="a", number=number)
    assert len(lines.raw()) == 20


@pytest.mark.parametrize("jump", [-3_600.0, 3_600.0])
def test_a_jump_of_the_wall_clock_changes_no_budget(jump: float) -> None:
    clock = Clock()
    budget = log.Budget(20, clock)
    assert sum(budget.filter(record(wall=5e9)) for _ in range(30)) == 20
    assert not budget.filter(record(wall=5e9 + jump))
    clock.now += 60
    assert budget.filter(record(wall=5e9 + jump))


def test_a_flood_of_different_keys_is_bounded_and_does_not_renew_a_spent_budget() -> None:
    clock = Clock()
    budget = log.Budget(20, clock)
    assert passed(budget, 100, endpoint="first") == 20
    written = sum(budget.filter(record(endpoint=f"e{number}")) for number in range(100_000))
    assert written == 80, "more than 100 errors in a minute"
    assert passed(budget, 100, endpoint="first") == 0
    count, events = budget.sum_up()
    assert (count, events) == (80 + 100_000 - 80 + 100, f"failed {count}")


def test_the_keys_that_are_remembered_are_bounded() -> None:
    clock = Clock()
    budget = log.Budget(20, clock, errors_per_minute=10**6)
    written = sum(budget.filter(record(endpoint=f"e{number}")) for number in range(100_000))
    assert written <= 2_020
    assert len(budget._spent) <= 2_100


def test_a_flood_of_warnings_hides_no_error_and_both_come_back_after_a_minute() -> None:
    clock = Clock()
    budget = log.Budget(20, clock, all_per_minute=50, errors_per_minute=5)

    def flood(level: int, count: int) -> int:
        made = [record(event=f"event{number}") for number in range(count)]
        for one in made:
            one.levelno = level
        return sum(map(budget.filter, made))

    for _ in range(2):
        assert flood(logging.WARNING, 1_000) == 50
        assert flood(logging.INFO, 1_000) == 0
        assert flood(logging.ERROR, 1_000) == 5
        assert flood(logging.DEBUG, 100) == 100, "they are asked for"
        clock.now += 60


def test_the_sum_is_told_also_when_all_lines_of_the_minute_are_spent() -> None:
    lines = Lines()
    for number in range(1_000):
        lines.logger.warning("flood", endpoint=f"e{number}")
    log.sum_up()
    assert len(lines.raw()) == 301
    assert lines.parsed()[-1]["events"] == "flood 700"


def test_what_was_held_back_is_summed_up_with_the_most_frequent_first_and_once() -> None:
    lines = Lines()
    for event, count in (("rare", 25), ("frequent", 400), ("single", 1)):
        for _ in range(count):
            lines.logger.warning(event)
    log.sum_up()
    log.sum_up()
    told = [line for line in lines.parsed() if line["event"] == "lines_held_back"]
    assert [(line["count"], line["events"]) for line in told] == [(385, "frequent 380, rare 5")]


def test_after_a_flood_new_keys_have_budgets_of_their_own_and_nothing_is_forgotten() -> None:
    clock = Clock()
    budget = log.Budget(2, clock, errors_per_minute=10**6)
    for number in range(3_000):
        passed(budget, 3, endpoint=f"e{number}")
    clock.now += 60
    line = record(endpoint="new")
    assert budget.filter(line)
    suppressed = vars(line)["suppressed_elsewhere"]
    assert suppressed == 9_000 - (2_000 * 2 + 2)
    assert passed(budget, 5, endpoint="newer") == 2


@pytest.mark.parametrize("value", [["a", "b"], {"a": 1}, None, ValueError("x"), "x" * 100_000])
def test_any_value_is_a_key_and_equal_words_are_the_same_key(value: Any) -> None:
    budget = log.Budget(20, Clock())
    assert passed(budget, 50, reason=value) == 20
    made = logging.LogRecord("library", logging.ERROR, "", 0, {"no": "text"}, None, None)
    assert budget.filter(made)
