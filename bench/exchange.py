"""What one exchange costs: microseconds of this process's CPU per POST, on loopback.

Run: python bench/exchange.py [--count N] [--rounds N] [--at-once N] [--hosts N] [--vary] [--json F]

The contenders post the same 1 KiB body to the same sink, each in a process of its own, the rounds
interleaved; CPU comes from the kernel (getrusage), counted from the first request to the last
answer. The sink counts too: a run that lost a request is an error, not a figure. With --hosts
the exchanges post to ten endpoints on each of so many hosts in turn (the loops to one host).

  c           bench/post.c: the same bytes, a loop in C, nothing around it
  wrk         wrk with the same body and headers, where it is installed
  bare        the same bytes, an asyncio.Protocol on uvloop, nothing around it
  fast        FastExchange: each request with its own id and deadline, prebuilt signature
  fast_signed the same, and each is signed (Signer.lines)
  awaited     fast_signed by way of `exchanged`: a task for each slot, a future for each request
  reference   ClientSessionExchange, signed: ClientSession.post, a task for each

Nothing here is a pass mark.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from dispatcherd.config.model import NetworkConfig
from dispatcherd.delivery import Response
from dispatcherd.exchange import (
    ClientSessionExchange,
    Exchange,
    FastExchange,
    Target,
    exchanged,
)
from dispatcherd.metrics import Metrics
from dispatcherd.sign import Signer
from dispatcherd.timers import Timers

sys.path.insert(0, str(Path(__file__).resolve().parent))
from sink import Sink, compiled

_BODY = b'{"type":"order.created","data":"' + b"x" * 990 + b'"}'
_LINES = (
    b"webhook-id: evt_2b0c9c1e7a444f7e9b7a%06d\r\nwebhook-timestamp: 1767323045\r\n"
    b"webhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=\r\n"
)
_MORE = b"x-webhook-version: 1\r\nwebhook-attempt: 1\r\n"
_HEADERS = [("content-type", "application/json"), ("user-agent", "dispatcherd/bench")]
_CONTENDERS = ("c", "wrk", "bare", "fast", "fast_signed", "awaited", "reference")


def cpu() -> tuple[float, float]:
    """(user, all) seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime, used.ru_utime + used.ru_stime


class Run:
    """`count` requests, a fixed number of them under way at once."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.owed = count
        self.finished = asyncio.get_running_loop().create_future()

    def answered(self) -> None:
        self.owed -= 1
        if not self.owed:
            self.finished.set_result(None)


class Slot:
    """One request after the other: the next is posted from inside the end of the last."""

    def __init__(
        self, run: Run, exchange: Exchange, targets: list[Target], signer: Signer | None
    ) -> None:
        self.run, self.exchange, self.targets, self.signer = run, exchange, targets, signer
        self.clock = time.monotonic

    def go(self) -> None:
        run = self.run
        if run.left <= 0:
            return
        run.left -= 1
        if self.signer is None:
            lines = _LINES % run.left + _MORE
        else:
            webhook_id = f"evt_2b0c9c1e7a444f7e9b7a{run.left:06d}"
            lines = self.signer.lines(webhook_id, int(time.time()), _BODY) + _MORE
        target = self.targets[run.left % len(self.targets)]
        self.exchange.post(target, lines, _BODY, self.clock() + 15.0, self)

    def ended(self, response: Response) -> None:
        if response.status != 200:
            self.run.finished.set_exception(AssertionError(response))
            return
        self.run.answered()
        self.go()


class AwaitingSlot(Slot):
    """The same with `await`."""

    def go(self) -> None:
        self.task = asyncio.create_task(self.work())

    async def work(self) -> None:
        run, signer = self.run, self.signer
        assert signer is not None
        while run.left > 0:
            run.left -= 1
            webhook_id = f"evt_2b0c9c1e7a444f7e9b7a{run.left:06d}"
            lines = signer.lines(webhook_id, int(time.time()), _BODY) + _MORE
            target = self.targets[run.left % len(self.targets)]
            response = await exchanged(self.exchange, target, lines, _BODY, self.clock() + 15.0)
            assert response.status == 200, response
            run.answered()


async def through_exchange(
    kind: str, port: int, count: int, at_once: int, hosts: int
) -> dict[str, float]:
    timers = Timers(Metrics())
    ticking = asyncio.create_task(timers.run())
    make = ClientSessionExchange if kind == "reference" else FastExchange
    exchange: Exchange = make(
        NetworkConfig(allowed_networks=["127.0.0.0/8"]), timers.wheel, timers.now
    )
    targets = [
        exchange.target(f"http://127.0.0.{1 + host}:{port}/hook/{path}", _HEADERS)
        for path in range(10)
        for host in range(hosts)
    ]
    signer = None if kind == "fast" else Signer([b"k" * 32])
    slot = AwaitingSlot if kind == "awaited" else Slot
    warm = Run(warming(at_once, hosts))
    await started(warm, [slot(warm, exchange, targets, signer) for _ in range(at_once)])
    run = Run(count)
    measured = await started(run, [slot(run, exchange, targets, signer) for _ in range(at_once)])
    await exchange.close()
    ticking.cancel()
    return measured


def warming(at_once: int, hosts: int) -> int:
    """Requests before the measured ones: every connection is made by then."""
    return 20 * max(at_once, hosts)


async def started(run: Run, slots: list[Any]) -> dict[str, float]:
    count = run.left
    user, both = cpu()
    began = time.perf_counter()
    for slot in slots:
        slot.go()
    await run.finished
    wall = time.perf_counter() - began
    user_after, both_after = cpu()
    return {
        "us": (both_after - both) / count * 1e6,
        "user_us": (user_after - user) / count * 1e6,
        "per_second": count / wall,
    }


class Bare(asyncio.Protocol):
    """The least that Python can do: write the bytes, compare the answer's first ones, again."""

    def __init__(self, run: Run, request: bytes) -> None:
        self.run, self.request = run, request

    def connection_made(self, transport: Any) -> None:
        self.write = transport.write

    def go(self) -> None:
        if self.run.left > 0:
            self.run.left -= 1
            self.write(self.request)

    def data_received(self, data: bytes) -> None:
        assert data.startswith(b"HTTP/1.1 200")
        self.run.answered()
        self.go()


async def bare(port: int, count: int, connections: int) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    run = Run(count)
    slots = []
    for _ in range(connections):
        _, slot = await loop.create_connection(
            lambda: Bare(run, request_bytes(port)), "127.0.0.1", port
        )
        slots.append(slot)
    return await started(run, slots)


def request_bytes(port: int) -> bytes:
    head = b"POST /hook HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n" % port
    static = b"".join(b"%b: %b\r\n" % (n.encode(), v.encode()) for n, v in _HEADERS)
    length = b"content-length: %d\r\n\r\n" % len(_BODY)
    return head + static + _LINES % 1 + _MORE + length + _BODY


def in_c(port: int, count: int, connections: int) -> dict[str, float]:
    binary = compiled("post")
    assert binary is not None
    done = subprocess.run(
        [str(binary), "127.0.0.1", str(port), str(connections), str(count)],
        input=request_bytes(port),
        stdout=subprocess.PIPE,
        check=True,
    )
    _, both, wall, user = (float(word) for word in done.stdout.split())
    return {"us": both / count * 1e6, "user_us": user / count * 1e6, "per_second": count / wall}


def in_wrk(port: int, count: int, at_once: int) -> dict[str, float]:
    """For about as long as `count` requests take; it says itself how many there were."""
    lines = [line.split(": ") for line in (_LINES % 1 + _MORE).decode().split("\r\n") if line]
    script = "wrk.method = 'POST'\n" + "".join(
        f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}\n"
        for name, value in [*_HEADERS, *lines]
    )
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script + f"wrk.body = {json.dumps(_BODY.decode())}\n")
        file.flush()
        seconds = max(1, round(count / 60_000))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            ["wrk", "-t1", f"-c{at_once}", f"-d{seconds}s", "-s", file.name,
             f"http://127.0.0.1:{port}/hook"],
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = re.search(r"(\d+) requests in", done.stdout)
    assert found is not None and "Non-2xx" not in done.stdout, done.stdout
    made = int(found[1])
    user = after.ru_utime - before.ru_utime
    both = user + after.ru_stime - before.ru_stime
    return {"us": both / made * 1e6, "user_us": user / made * 1e6, "per_second": made / seconds}


def one(kind: str, port: int, args: argparse.Namespace) -> dict[str, float]:
    """Measure in this process."""
    if kind == "c":
        return in_c(port, args.count, args.at_once)
    if kind == "wrk":
        return in_wrk(port, args.count, args.at_once)
    if kind == "bare":
        return uvloop.run(bare(port, args.count, args.at_once))
    return uvloop.run(through_exchange(kind, port, args.count, args.at_once, args.hosts))


def present(kind: str) -> bool:
    """What a contender needs is on this machine."""
    if kind == "c":
        return compiled("post") is not None
    return kind != "wrk" or shutil.which("wrk") is not None


def measure(args: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    results: dict[str, list[dict[str, float]]] = {kind: [] for kind in _CONTENDERS if present(kind)}
    sink = Sink(vary=args.vary, hosts=args.hosts)
    print(
        f"sink in {sink.kind}, {args.hosts} hosts, {args.at_once} requests at once, "
        f"{args.count:,} a run{', no two answers alike' if args.vary else ''}"
    )
    try:
        for number in range(args.rounds):
            for kind, runs in results.items():
                runs.append(measured(kind, sink, args))
                print(f"  round {number + 1}: {kind:12} {runs[-1]['us']:7.2f} us", end="\r")
    finally:
        sink.stop()
    return results


def measured(kind: str, sink: Sink, args: argparse.Namespace) -> dict[str, float]:
    """One run, in a process of its own; every request has arrived, or it is an error."""
    count = args.count // 5 if kind == "reference" else args.count
    expected = count if kind in ("c", "bare") else count + warming(args.at_once, args.hosts)
    before = sink.count()
    ran = subprocess.run(
        [sys.executable, __file__, "--one", kind, "--port", str(sink.port), "--hosts",
         str(args.hosts), "--count", str(count), "--at-once", str(args.at_once)],
        stdout=subprocess.PIPE,
        check=True,
    )  # fmt: skip
    arrived = sink.count() - before
    if arrived != expected and kind != "wrk":  # which cuts its last requests off
        raise SystemExit(f"{kind}: {arrived:,} of {expected:,} arrived")
    result: dict[str, float] = json.loads(ran.stdout)
    return result


def show(results: dict[str, list[dict[str, float]]]) -> None:
    medians = {k: statistics.median(r["us"] for r in runs) for k, runs in results.items()}
    print(f"{'':12} {'CPU us':>8} {'user us':>8} {'spread':>15} {'times c':>8} {'times bare':>10}")
    for kind, runs in results.items():
        all_us = [r["us"] for r in runs]
        in_c_us = medians.get("c")
        ratio = f"{medians[kind] / in_c_us:8.2f}" if in_c_us else f"{'-':>8}"
        print(
            f"{kind:12} {medians[kind]:8.2f} "
            f"{statistics.median(r['user_us'] for r in runs):8.2f} "
            f"{min(all_us):7.2f}-{max(all_us):7.2f} {ratio} {medians[kind] / medians['bare']:10.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=10)
    parser.add_argument("--hosts", type=int, default=1)
    parser.add_argument("--vary", action="store_true", help="no two answers are the same bytes")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=_CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        print(json.dumps(one(args.one, args.port, args)))
        return
    results = measure(args)
    show(results)
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
