"""Does a receiver do what a receiver must: verify, deduplicate, answer in time, survive.

Each check is a claim; what comes of it is passed, failed, or that nobody could look. Sources:
Standard Webhooks 1.0, "Verifying signatures" and "Delivery success and failure"; the rest are the
mistakes that receivers make. Invariant: a check says what was answered, and a failed one what to
do. Leaves out: the requests themselves (probe), showing the result (cli).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dispatcherd.delivery import Response
from dispatcherd.tools.compose import Outgoing
from dispatcherd.tools.probe import NotListed, Probe

_STALE_SECONDS = 3_600
_AT_ONCE = 5
_BATCH = 10
_BUSY = (408, 429)
_LATER = (409, 425, 429, 503)
"""What a receiver may say to a repeat while the first attempt is still being handled."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is asked of the receiver."""

    timeout_seconds: float = 15.0
    requests: int = 50
    """For the time of answers."""
    large_bytes: int = 1_000_000
    batches: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a check; `passed` is None where nobody could look."""

    passed: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class Result:
    """One check's name and claim, and its verdict."""

    name: str
    claim: str
    verdict: Verdict


_Run = Callable[[Probe, Limits], Awaitable[Verdict]]


@dataclass(frozen=True, slots=True)
class _Check:
    name: str
    claim: str
    run: _Run


async def examine(
    probe: Probe, limits: Limits, seen: Callable[[Result], None] = lambda result: None
) -> list[Result]:
    """Every check, in order; `seen` is told of each as it ends. Where a genuine request is not
    accepted, the others say nothing and are not made."""
    results: list[Result] = []

    def note(check: _Check, verdict: Verdict) -> None:
        results.append(Result(check.name, check.claim, verdict))
        seen(results[-1])

    first, *others = CHECKS
    verdict = await first.run(probe, limits)
    note(first, verdict)
    for check in others:
        if not results[0].verdict.passed:
            note(check, Verdict(None, "not looked at: genuine requests are not accepted"))
            continue
        try:
            note(check, await check.run(probe, limits))
        except NotListed as error:
            note(check, Verdict(None, f"could not look: {error}"))
    return results


# --- what an answer says ---------------------------------------------------------------------


def said(response: Response) -> str:
    """An answer in a few words."""
    if response.failure is not None:
        return f"no answer ({response.failure.word}: {response.detail})"
    return f"answered {response.status}"


def took(response: Response) -> bool:
    """Whether it is a success to a sender."""
    return response.failure is None and 200 <= response.status < 300


def _accepted(response: Response, remedy: str) -> Verdict:
    if took(response):
        return Verdict(True, said(response))
    return Verdict(False, f"{said(response)}. {remedy}")


def _refused(response: Response, remedy: str) -> Verdict:
    if response.failure is None and response.status in _BUSY:
        return Verdict(None, f"could not look: {said(response)}")
    if response.failure is None and 400 <= response.status < 500:
        return Verdict(True, said(response))
    if took(response):
        return Verdict(False, f"{said(response)}: it was ACCEPTED. {remedy}")
    return Verdict(False, f"{said(response)}. Refuse with 401 or 400")


def _accepts(make: Callable[[Probe, Limits], Outgoing], remedy: str) -> _Run:
    async def run(probe: Probe, limits: Limits) -> Verdict:
        return _accepted(await probe.answer(make(probe, limits)), remedy)

    return run


def _refuses(make: Callable[[Probe], Outgoing], remedy: str) -> _Run:
    async def run(probe: Probe, limits: Limits) -> Verdict:
        return _refused(await probe.answer(make(probe)), remedy)

    return run


# --- requests that are more than one line ----------------------------------------------------


def _renewed(probe: Probe) -> Outgoing:
    """A captured request whose timestamp somebody has set anew."""
    old = probe.request(late_seconds=_STALE_SECONDS)
    return old.with_headers(webhook_timestamp=probe.request().header("webhook-timestamp"))


def _odd_case(probe: Probe, limits: Limits) -> Outgoing:
    request = probe.request()
    odd = tuple((name.title().swapcase(), value) for name, value in request.headers)
    return Outgoing(request.id, odd, request.body)


def _large(probe: Probe, limits: Limits) -> Outgoing:
    filler = "x" * max(0, limits.large_bytes - len(probe.request().body) - 16)
    return probe.request(probe.event(filler=filler))


async def _rotated(probe: Probe, limits: Limits) -> Verdict:
    """Two signatures, of which one is the receiver's, in either place."""
    for place in (0, 1):
        event = probe.event()
        request, other = probe.request(event), probe.request(event, signer=probe.stranger)
        signatures = [other.header("webhook-signature"), request.header("webhook-signature")]
        if place == 0:
            signatures.reverse()
        response = await probe.answer(request.with_headers(webhook_signature=" ".join(signatures)))
        if not took(response):
            where = "first" if place == 0 else "second"
            return Verdict(
                False,
                f"{said(response)} where its own signature is the {where} of two. Try each "
                "signature of the header, which are separated by spaces",
            )
    return Verdict(True, "its own signature first or second")


async def _malformed(probe: Probe, limits: Limits) -> Verdict:
    """Headers that are none."""
    broken = {
        "webhook_signature": ("v1,%%%", "v1,", ",", "v1,\u00fc", "v1," + "A" * 4_000),
        "webhook_timestamp": ("yesterday", "-1", "1e9", "9" * 30),
    }
    for name, values in broken.items():
        for value in values:
            response = await probe.answer(probe.request().with_headers(**{name: value}))
            verdict = _refused(response, "Refuse a header that cannot be read")
            if not verdict.passed:
                shown = f"{name.replace('_', '-')}: {value[:20]}"
                return Verdict(verdict.passed, f"{shown}: {verdict.detail}")
    return Verdict(True, "refused each of nine")


async def _survives(probe: Probe, request: Outgoing) -> Verdict:
    """An event that the receiver has no use for."""
    response = await probe.answer(request)
    if took(response):
        return Verdict(True, said(response))
    if response.failure is None and 400 <= response.status < 500 and response.status != 410:
        return Verdict(
            True, f"{said(response)}: the sender will try it again for days; better answer 2xx"
        )
    return Verdict(False, f"{said(response)}. Accept what you do not know, and ignore it")


async def _unknown_type(probe: Probe, limits: Limits) -> Verdict:
    return await _survives(probe, probe.request(probe.event(type="conformance.unknown_type")))


async def _unknown_version(probe: Probe, limits: Limits) -> Verdict:
    return await _survives(probe, probe.request(probe.event(version="999")))


# --- each event once -------------------------------------------------------------------------


async def _deduplicates(probe: Probe, limits: Limits) -> Verdict:
    """The same event in two attempts, one after the other."""
    event = probe.event()
    for attempt in (1, 2):
        response = await probe.answer(probe.request(event, attempt=attempt))
        if not took(response):
            return Verdict(
                False, f"{said(response)} to attempt {attempt}. A repeat is a success: answer 2xx"
            )
    return await _once(probe, [event["id"]], "2xx twice")


async def _at_once(probe: Probe, limits: Limits) -> Verdict:
    """The same event in several attempts at the same moment."""
    if not probe.looks:
        return _UNSEEN
    event = probe.event()
    requests = [probe.request(event, attempt=n) for n in range(1, _AT_ONCE + 1)]
    responses = await asyncio.gather(*(probe.answer(request) for request in requests))
    if not any(took(response) for response in responses):
        return Verdict(False, f"none of {_AT_ONCE} at once was accepted: {said(responses[0])}")
    for response in responses:
        if not took(response) and (response.failure or response.status not in _LATER):
            return Verdict(
                False, f"{said(response)}. Answer 2xx, or 409 or 503 while it is handled"
            )
    return await _once(probe, [event["id"]], f"{_AT_ONCE} at once")


_UNSEEN = Verdict(
    None, "could not look: give --processed-url, where the receiver lists the ids it has processed"
)


async def _once(probe: Probe, ids: list[str], what: str) -> Verdict:
    """Whether each id was processed, and only once; seen after a later event was processed too."""
    if not probe.looks:
        return _UNSEEN
    await probe.until_processed(ids)
    later = probe.event()
    await probe.answer(probe.request(later))
    counts = await probe.until_processed([*ids, later["id"]])
    missing = [id_ for id_ in ids if not counts[id_]]
    if missing:
        return Verdict(False, f"{what}, and {len(missing)} of {len(ids)} were not processed")
    most = max(counts[id_] for id_ in ids)
    if most > 1:
        return Verdict(
            False,
            f"{what}, and processed {most} times. Claim the webhook-id (a batch's members: their "
            "ids) in one step before the work, such as by a unique key",
        )
    return Verdict(True, f"{what}, processed once")


async def _batch(probe: Probe, limits: Limits) -> Verdict:
    if not limits.batches:
        return Verdict(None, "not looked at: --no-batches")
    events = [probe.event() for _ in range(_BATCH)]
    response = await probe.answer(probe.request(*events, as_batch=True))
    if not took(response):
        return Verdict(
            False,
            f"{said(response)}. A batch is a JSON array of events; where the endpoint has none "
            "(batch.max_events is 1), use --no-batches",
        )
    if not probe.looks:
        return Verdict(True, said(response))
    return await _once(probe, [event["id"] for event in events], f"{_BATCH} events in one request")


# --- time ------------------------------------------------------------------------------------


async def _in_time(probe: Probe, limits: Limits) -> Verdict:
    """The times of genuine requests, one after the other."""
    times = []
    for _ in range(limits.requests):
        exchanged = await probe.send(probe.request())
        if not took(exchanged.response):
            return Verdict(
                False, f"{said(exchanged.response)} to one of {limits.requests} in a row"
            )
        times.append(exchanged.seconds)
    times.sort()
    half, most = times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)]
    shown = f"p50 {half * 1000:.0f} ms, p99 {most * 1000:.0f} ms of {len(times)}"
    if most < limits.timeout_seconds:
        return Verdict(True, shown)
    return Verdict(
        False, f"{shown}; {limits.timeout_seconds:g} s are allowed. Answer first, work afterwards"
    )


CHECKS = [
    _Check("accepts_genuine", "a genuine request is accepted",
           _accepts(lambda p, _: p.request(),
                    "Is the secret this receiver's? `dispatcherd verify` says more")),
    _Check("refuses_tampered", "a changed body is refused",
           _refuses(lambda p: p.request().tampered(),
                    "Verify the signature before anything else")),
    _Check("refuses_respaced", "the same JSON in other bytes is refused",
           _refuses(lambda p: p.request().respaced(),
                    "Verify the raw bytes, not JSON that was parsed and written anew")),
    _Check("refuses_wrong_secret", "a signature by another secret is refused",
           _refuses(lambda p: p.request(signer=p.stranger), "Compare the whole signature")),
    _Check("refuses_unsigned", "a request without a signature is refused",
           _refuses(lambda p: p.request().without("webhook-signature"),
                    "A missing header is no permission")),
    _Check("refuses_stale", "a request that was signed an hour ago is refused",
           _refuses(lambda p: p.request(late_seconds=_STALE_SECONDS),
                    "Compare the timestamp with the clock: five minutes are usual")),
    _Check("refuses_future", "a request from an hour ahead is refused",
           _refuses(lambda p: p.request(late_seconds=-_STALE_SECONDS),
                    "Check the timestamp in both directions")),
    _Check("refuses_other_time", "an old request with a new timestamp is refused",
           _refuses(_renewed, "Verify over the timestamp of the header")),
    _Check("refuses_other_id", "a request under another id is refused",
           _refuses(lambda p: p.request().with_headers(webhook_id="evt_of_somebody_else"),
                    "Verify over the id of the header, not one from the body")),
    _Check("survives_malformed", "headers that are none are refused", _malformed),
    _Check("accepts_rotated", "one right signature of two is enough", _rotated),
    _Check("accepts_other_versions", "a signature of an unknown version does no harm",
           _accepts(lambda p, _: _beside(p), "Skip what begins with a version you do not know")),
    _Check("accepts_odd_headers", "the case of header names does not matter",
           _accepts(_odd_case, "Look headers up without regard to case (RFC 9110, 5.1)")),
    _Check("accepts_non_ascii", "text outside ASCII is accepted",
           _accepts(lambda p, _: p.request(p.event(text="Zürich \u2192 東京 \U0001f4e6")),
                    "Verify bytes; decode them as UTF-8 afterwards")),
    _Check("accepts_large_body", "a large body is accepted",
           _accepts(_large, "Raise the limit for bodies to what the sender sends at most")),
    _Check("accepts_batches", "a batch is accepted", _batch),
    _Check("survives_unknown_type", "an unknown event type does no harm", _unknown_type),
    _Check("survives_unknown_version", "an unknown version does no harm", _unknown_version),
    _Check("deduplicates", "a repeat is accepted and not processed again", _deduplicates),
    _Check("deduplicates_at_once", "repeats at the same moment are processed once", _at_once),
    _Check("answers_in_time", "answers come in time", _in_time),
]  # fmt: skip


def _beside(probe: Probe) -> Outgoing:
    request = probe.request()
    mine = request.header("webhook-signature")
    return request.with_headers(webhook_signature=f"v9,c29tZXRoaW5nIGVsc2U= {mine}")
