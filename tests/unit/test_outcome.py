"""What an attempt came to: every status, failure and Retry-After, and when it is retried."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dispatcherd.config.model import RetryConfig
from dispatcherd.delivery import Outcome, OutcomeKind, Reason, Response, RetryPolicy
from dispatcherd.outcome import company, decide, retry_after_seconds

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC).timestamp()
POLICY = RetryPolicy((0.0, 5.0, 300.0), max_attempts=5, jitter=0.0, max_retry_after_seconds=3_600.0)


def outcome(
    response: Response, attempt: int = 1, policy: RetryPolicy = POLICY, draw: float = 0.0
) -> Outcome:
    return decide(response, attempt, policy, NOW, draw)


# --- batches -------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", list(Reason))
def test_only_a_refusal_makes_batches_smaller(reason: Reason) -> None:
    refused = reason in (Reason.STATUS_CLIENT_ERROR, Reason.STATUS_SERVER_ERROR)
    assert (company(reason, 1, 100) < 100) is refused


@given(max_events=st.integers(1, 10_000), attempt=st.integers(1, 1_000))
def test_batches_of_what_was_refused_shrink_to_single_members(
    max_events: int, attempt: int
) -> None:
    now, before = (
        company(Reason.STATUS_SERVER_ERROR, n, max_events) for n in (attempt, attempt - 1)
    )
    assert now == max(1, before // 4)
    assert company(Reason.STATUS_SERVER_ERROR, 7, max_events) == 1


# --- statuses and failures -----------------------------------------------------------------


def reason_of(status: int) -> Reason:
    """The specification, said another way than the module says it."""
    named = {410: Reason.GONE, 429: Reason.THROTTLED}
    named |= dict.fromkeys((502, 503, 504), Reason.UNAVAILABLE)
    if status in named:
        return named[status]
    for first, after, reason in (
        (100, 200, Reason.STATUS_INFORMATIONAL),
        (200, 300, Reason.OK),
        (300, 400, Reason.STATUS_REDIRECT),
        (400, 500, Reason.STATUS_CLIENT_ERROR),
        (500, 600, Reason.STATUS_SERVER_ERROR),
    ):
        if first <= status < after:
            return reason
    return Reason.STATUS_UNKNOWN


@pytest.mark.parametrize("status", range(1_000))
def test_every_status_has_its_outcome(status: int) -> None:
    found = outcome(Response(status))
    assert found.reason is reason_of(status)
    expected = {Reason.OK: OutcomeKind.DELIVERED, Reason.GONE: OutcomeKind.REJECTED}
    assert found.kind is expected.get(found.reason, OutcomeKind.RETRY)


FAILURES = [
    reason
    for reason in Reason
    if Reason.TIMEOUT <= reason <= Reason.NO_PORT
    and reason not in (Reason.INTERRUPTED, Reason.RESOURCES, Reason.PARTIAL_FAILURE)
]
OURS = {Reason.INTERRUPTED, Reason.RESOURCES}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("status", [0, 200, 204, 410, 500])
def test_a_transport_failure_is_retried_whatever_status_came_before_it(
    failure: Reason, status: int
) -> None:
    response = Response(status, failure)
    assert outcome(response, 1) == Outcome(OutcomeKind.RETRY, failure, 5.0)
    assert outcome(response, 5) == Outcome(OutcomeKind.EXHAUSTED, failure)


def test_every_reason_of_an_attempt_is_reached_by_a_status_or_is_a_failure() -> None:
    by_status = {outcome(Response(status)).reason for status in range(1_000)}
    attempts = {reason for reason in Reason if reason < Reason.LANE_FULL}
    of_a_member = Reason.PARTIAL_FAILURE  # said in a body, not by a status: see failed_members
    assert by_status | set(FAILURES) | OURS | {of_a_member} == attempts


@pytest.mark.parametrize("attempt", [1, 5, 6, 1_000])
def test_an_attempt_that_our_own_shutdown_cut_is_retried_at_once_whatever_the_count(
    attempt: int,
) -> None:
    response = Response(0, Reason.INTERRUPTED, retry_after="1000")
    assert outcome(response, attempt) == Outcome(OutcomeKind.RETRY, Reason.INTERRUPTED, 0.0)


@pytest.mark.parametrize("attempt", [1, 5, 6, 1_000])
def test_without_descriptors_an_attempt_is_retried_in_seconds_whatever_the_count(
    attempt: int,
) -> None:
    response = Response(0, Reason.RESOURCES)
    waits = [outcome(response, attempt, draw=draw).delay_seconds for draw in (0.0, 0.5)]
    assert waits == [2.0, 3.0]
    assert outcome(response, attempt).kind is OutcomeKind.RETRY


@pytest.mark.parametrize("status", [200, 410])
@pytest.mark.parametrize("attempt", [1, 5, 1_000])
def test_success_and_gone_are_final_at_any_count(status: int, attempt: int) -> None:
    kind = OutcomeKind.DELIVERED if status == 200 else OutcomeKind.REJECTED
    assert outcome(Response(status, retry_after="60"), attempt).kind is kind


# --- the schedule --------------------------------------------------------------------------


def test_the_schedule_gives_the_wait_before_each_attempt_and_repeats_its_last() -> None:
    waits = [outcome(Response(500), attempt).delay_seconds for attempt in range(1, 5)]
    assert waits == [5.0, 300.0, 300.0, 300.0]


def test_the_attempt_that_reaches_the_maximum_is_the_last() -> None:
    kinds = [outcome(Response(500), attempt).kind for attempt in range(1, 8)]
    assert kinds == [OutcomeKind.RETRY] * 4 + [OutcomeKind.EXHAUSTED] * 3


def test_one_attempt_at_most_means_no_retry() -> None:
    policy = RetryPolicy((0.0,), max_attempts=1)
    assert outcome(Response(500), 1, policy).kind is OutcomeKind.EXHAUSTED


def test_an_empty_schedule_retries_at_once() -> None:
    policy = RetryPolicy((), max_attempts=3)
    assert outcome(Response(500), 1, policy, 0.9).delay_seconds == 0.0


def test_the_default_is_the_example_of_standard_webhooks() -> None:
    config = RetryConfig()
    policy = RetryPolicy(tuple(config.schedule_seconds), config.max_attempts, 0.0)
    outcomes = [outcome(Response(500), attempt, policy) for attempt in range(1, 11)]
    hours = 3_600
    assert [o.delay_seconds for o in outcomes[:9]] == [
        5, 300, 1_800, 2 * hours, 5 * hours, 10 * hours, 14 * hours, 20 * hours, 24 * hours
    ]  # fmt: skip
    assert outcomes[9].kind is OutcomeKind.EXHAUSTED


@given(
    wait=st.floats(0, 31_536_000),
    jitter=st.floats(0, 1),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_jitter_only_lengthens_a_wait_and_by_no_more_than_its_share(
    wait: float, jitter: float, draw: float
) -> None:
    policy = RetryPolicy((0.0, wait), 10, jitter)
    delay = outcome(Response(500), 1, policy, draw).delay_seconds
    assert wait <= delay <= wait * (1 + jitter)


# --- Retry-After ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 120 ", 120),
        ("0", 0),
        ("007", 7),
        ("Sat, 31 Jan 2026 12:02:00 GMT", 120),  # IMF-fixdate
        ("Saturday, 31-Jan-26 12:02:00 GMT", 120),  # RFC 850
        ("Sat Jan 31 12:02:00 2026", 120),  # asctime
        ("Sat, 31 Jan 2026 11:59:00 GMT", 0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Sun, 31 Jan 2027 12:00:00 GMT", 31_536_000),
        ("-1", 0),
        ("-120", 0),
        ("1e308", 0),
        ("1e5", 0),
        ("120.5", 0),
        ("+120", 0),
        ("0x10", 0),
        ("soon", 0),
        ("", 0),
        ("nan", 0),
        ("inf", 0),
        ("120, 240", 0),
        ("١٢٠", 0),
        ("²", 0),
        ("Sat, 31 Jan 99999 12:00:00 GMT", 0),
        ("Sat, 99 Jan 2026 12:00:00 GMT", 0),
        ("Sat, 31 Jan 2026 12:02:00 +9999999", 0),
        ("\x00", 0),
    ],
)
def test_retry_after_is_read_in_both_forms_and_everything_else_asks_for_nothing(
    value: str, seconds: float
) -> None:
    assert retry_after_seconds(value, NOW) == seconds


@pytest.mark.parametrize("digits", ["9" * 128, "1" + "0" * 30])
def test_a_retry_after_of_many_digits_is_a_long_time(digits: str) -> None:
    seconds = retry_after_seconds(digits, NOW)
    assert math.isfinite(seconds)
    assert seconds > 1e9


@pytest.mark.parametrize("status", [429, 503, 500, 301, 404])
def test_retry_after_lengthens_the_wait_but_never_shortens_it(status: int) -> None:
    def wait(retry_after: str) -> float:
        return outcome(Response(status, retry_after=retry_after), 2).delay_seconds

    assert wait("900") == 900
    assert wait("3") == 300  # the schedule's
    assert wait("Sat, 31 Jan 2026 12:20:00 GMT") == 1_200
    assert wait("garbage") == 300


@pytest.mark.parametrize("value", ["86400", "9" * 100, "Sun, 31 Jan 2027 12:00:00 GMT"])
def test_a_retry_after_past_the_cap_is_cut_to_it(value: str) -> None:
    assert outcome(Response(429, retry_after=value)).delay_seconds == 3_600


def test_retry_after_buys_no_attempt_past_the_maximum() -> None:
    assert outcome(Response(429, retry_after="10"), 5).kind is OutcomeKind.EXHAUSTED


_dates = st.builds(
    "{}{:02d} {} {} {}:{}:{} {}".format,
    st.sampled_from(["Sat, ", "", "Saturday, "]),
    st.integers(0, 40),
    st.sampled_from(["Jan", "Feb", "Foo", "1"]),
    st.integers(-1, 100_000),
    st.integers(0, 30),
    st.integers(0, 70),
    st.integers(0, 70),
    st.sampled_from(["GMT", "-0000", "+2359", "-9999", "+99999999", "EST", "Z", ""]),
)


@given(
    value=st.one_of(st.text(max_size=128), st.from_regex(r"[-+]?[0-9]{1,128}"), _dates),
    status=st.integers(0, 999),
    attempt=st.integers(1, 20),
    now=st.floats(0, 4e9),
    draw=st.floats(0, 1, exclude_max=True),
)
@example("Sat, 31 Jan 2026 12:00:00 +9999", 503, 1, NOW, 0.0)
@example("Mon, 01 Jan 0001 00:00:00 +2359", 503, 1, NOW, 0.0)
@example("Fri, 31 Dec 9999 23:59:59 -2359", 503, 1, NOW, 0.0)
def test_for_any_text_the_delay_is_finite_and_not_negative(
    value: str, status: int, attempt: int, now: float, draw: float
) -> None:
    asked = retry_after_seconds(value, now)
    assert math.isfinite(asked)
    assert asked >= 0
    delay = decide(Response(status, retry_after=value), attempt, POLICY, now, draw).delay_seconds
    assert 0 <= delay <= max(POLICY.max_retry_after_seconds, 300.0)
