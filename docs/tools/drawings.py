"""Draws the site's figures as SVG: `python -m docs.tools.drawings` writes docs/drawings/*.svg.

Invariant: the same input gives the same bytes, so that a test can tell whether the files are those
of the program; the retry figure is drawn from the configuration's defaults. Leaves out:
docs/pipeline.svg, which is kept by hand and whose style this is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from dispatcherd.config.model import RetryConfig

FOLDER = Path(__file__).parents[1] / "drawings"
_STYLE = """\
  svg { font: 13px system-ui, "DejaVu Sans", sans-serif; }
  .paper { fill: #ffffff; stroke: #d0d7de; }
  .frame { fill: none; stroke: #8c959f; stroke-dasharray: 5 4; }
  .box { fill: #eef2f6; stroke: #57606a; }
  .world { fill: #dbeafe; stroke: #2563a8; }
  .truth { fill: #dcf2e2; stroke: #2b7a45; }
  .bad { fill: #fde2e0; stroke: #b3261e; }
  .wait { fill: #fdf0d0; stroke: #9a6700; }
  .line { fill: none; stroke: #57606a; stroke-width: 1.5; }
  .mark { stroke: #2b7a45; stroke-width: 2.5; fill: none; }
  .tip { fill: #57606a; }
  text { fill: #1f2328; text-anchor: middle; }
  .small { font-size: 11px; fill: #57606a; }
  .left { text-anchor: start; }
  .right { text-anchor: end; }
  .strong { font-weight: 600; }
  .mono { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 12px; }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117; stroke: #30363d; }
    .frame { stroke: #6e7681; }
    .box { fill: #21262d; stroke: #8b949e; }
    .world { fill: #14304f; stroke: #58a6ff; }
    .truth { fill: #12361f; stroke: #3fb950; }
    .bad { fill: #4a1c1a; stroke: #f0625a; }
    .wait { fill: #3d2f0c; stroke: #d29922; }
    .line { stroke: #8b949e; }
    .mark { stroke: #3fb950; }
    .tip { fill: #8b949e; }
    text { fill: #e6edf3; }
    .small { fill: #9aa4af; }
  }"""


class Drawing:
    """Collects shapes; coordinates are pixels from the upper left corner."""

    def __init__(self, width: int, height: int, title: str, description: str) -> None:
        self._size = width, height
        self._words = escape(title), escape(description)
        self._shapes: list[str] = []

    def box(self, x: float, y: float, width: float, height: float, css: str, *lines: str) -> None:
        """A rectangle with its lines in it; the first one is strong where there are several."""
        self._shapes.append(
            f'<rect class="{css}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" '
            'rx="6"/>'
        )
        middle = y + height / 2 + 5 - (len(lines) - 1) * 8
        for number, line in enumerate(lines):
            style = "" if len(lines) == 1 else ("strong" if number == 0 else "small")
            self.text(x + width / 2, middle + number * 17, line, style)

    def text(self, x: float, y: float, words: str, css: str = "") -> None:
        """One line; without `left` or `right` centred on x."""
        style = f' class="{css}"' if css else ""
        self._shapes.append(f'<text{style} x="{x:g}" y="{y:g}">{escape(words)}</text>')

    def arrow(self, path: str) -> None:
        """A line with a tip at its end."""
        self._shapes.append(f'<path class="line" d="{path}" marker-end="url(#tip)"/>')

    def shape(self, svg: str) -> None:
        """Anything else."""
        self._shapes.append(svg)

    def svg(self) -> str:
        """The file."""
        width, height = self._size
        title, description = self._words
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" aria-labelledby="t d">\n'
            f'<title id="t">{title}</title>\n<desc id="d">{description}</desc>\n'
            f"<style>\n{_STYLE}\n</style>\n"
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto-start-reverse">'
            '<path class="tip" d="M0 0 8 4 0 8z"/></marker></defs>\n'
            f'<rect class="paper" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" '
            'rx="8"/>\n'
        )
        return head + "\n".join(self._shapes) + "\n</svg>\n"


def delivery() -> str:
    """The states of a delivery."""
    d = Drawing(
        880, 300, "The states of a delivery",
        "An event is routed and its delivery queued in a lane; an attempt ends as delivered, as a "
        "retry, as exhausted or as rejected. A retry waits until it is due, in memory or parked in "
        "Postgres, and comes back to the lane. Exhausted and rejected deliveries are dead letters: "
        "kept until somebody retries or discards them.",
    )  # fmt: skip
    d.box(20, 56, 92, 52, "world", "event", "routed")
    d.box(176, 56, 140, 52, "box", "queued", "in a lane, in memory")
    d.box(416, 56, 120, 52, "box", "in the air", "an attempt")
    d.box(716, 56, 140, 52, "truth", "delivered", "recorded")
    d.box(296, 186, 240, 60, "wait", "owed: parked or waiting", "in Postgres, with its due time")
    d.box(716, 186, 140, 60, "bad", "dead letter", "kept")
    d.arrow("M112 82H175")
    d.arrow("M316 82H415")
    d.arrow("M536 74H715")
    d.text(626, 66, "2xx", "small")
    d.arrow("M496 108V185")
    d.text(488, 142, "retry: any other answer,", "small right")
    d.text(488, 157, "a timeout, no connection", "small right")
    d.arrow("M536 92C640 100 740 120 780 185")
    d.text(570, 136, "rejected (410), or", "small left")
    d.text(570, 151, "exhausted (the last attempt)", "small left")
    d.arrow("M330 186C310 160 292 136 284 109")
    d.text(316, 142, "due", "small left")
    d.arrow("M206 108C206 170 232 216 295 220")
    d.text(198, 168, "lane full, too slow,", "small right")
    d.text(198, 183, "window full, held", "small right")
    d.arrow("M716 216H537")
    d.text(626, 208, "an operator's retry", "small")
    d.arrow("M786 246V278H606")
    d.arrow("M416 246V278H476")
    d.text(541, 282, "discarded for good", "small")
    d.text(
        20,
        26,
        "Postgres keeps a row of what is owed or dead; of a delivered one, its attempts.",
        "small left",
    )
    return d.svg()


def watermark() -> str:
    """One partition, its watermark, and what may be committed."""
    d = Drawing(
        880, 250, "The watermark of a partition",
        "Records 40 to 51 of a partition. 40 to 44 are settled, so the watermark is 45. 45 is in "
        "the air. 46, 47 and 49 are settled above the watermark. The window ends before 50. "
        "The offset committed to Kafka is the watermark, never more.",
    )  # fmt: skip
    states = "sssss a ss a s ww".replace(" ", "")
    css = {"s": "truth", "a": "wait", "w": "box"}
    for number, state in enumerate(states):
        x = 40 + number * 66
        d.box(x, 96, 58, 44, css[state], str(40 + number))
    line = 40 + 5 * 66 - 4
    d.shape(f'<path class="mark" d="M{line} 62V160"/>')
    d.text(line, 50, "watermark = 45 = what is committed to Kafka", "strong")
    d.text(40 + 2.5 * 66, 80, "settled, all below the watermark", "small")
    d.text(40 + 8.4 * 66, 80, "the window: taken in, at most so much unsettled", "small")
    for x, kind, words in (
        (40, "truth", "settled: delivered, parked, held, dead, in quarantine; Postgres has it"),
        (40, "wait", "in the air or queued: not settled"),
        (470, "box", "read from Kafka, not taken in yet"),
    ):  # fmt: skip
        y = {"truth": 178, "wait": 206, "box": 206}[kind]
        d.shape(f'<rect class="{kind}" x="{x}" y="{y}" width="18" height="14" rx="3"/>')
        d.text(x + 28, y + 12, words, "small left")
    d.text(
        40,
        239,
        "Killed here, 45 and 48 come again; 46, 47 and 49 do not: Postgres knows them.",
        "small left",
    )
    return d.svg()


def batching() -> str:
    """When the waiting deliveries of a lane become a batch."""
    d = Drawing(
        880, 250, "Batching",
        "Deliveries wait in the lane of one endpoint. A batch goes out when max_events or "
        "max_bytes is reached or the first has waited max_wait_seconds: one request, one "
        "signature, a JSON array. A 2xx answer may name members that failed; only those are sent "
        "again.",
    )  # fmt: skip
    d.text(112, 34, "the lane", "small")
    for number, name in enumerate(("evt_1", "evt_2", "evt_3", "evt_4")):
        d.box(40, 46 + number * 42, 144, 34, "box", name)
    d.arrow("M184 130H259")
    d.box(260, 56, 190, 148, "frame")
    d.text(355, 82, "goes out when one is true", "small")
    d.text(355, 112, "max_events reached", "mono")
    d.text(355, 134, "max_bytes reached", "mono")
    d.text(355, 156, "the first has waited")
    d.text(355, 178, "max_wait_seconds", "mono")
    d.arrow("M450 130H509")
    d.box(510, 76, 190, 108, "truth")
    d.text(605, 102, "one request", "strong")
    d.text(605, 124, "[{…}, {…}, {…}, {…}]", "mono")
    d.text(605, 146, "webhook-id: batch_…", "mono")
    d.text(605, 168, "one signature over all", "small")
    d.arrow("M700 130H759")
    d.box(760, 100, 100, 60, "world", "receiver")
    d.arrow("M810 160V226H112V215")
    again = "2xx with batchItemFailures: only those come again; no 2xx: all, in parts if refused"
    d.text(470, 220, again, "small")
    return d.svg()


def clock(seconds: float) -> str:
    """A duration as people say it: `5 s`, `5 min`, `2 h`."""
    for unit, size in (("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return "at once"


def clock_exact(seconds: float) -> str:
    """A time since the start: `75:35:05`."""
    whole = int(seconds)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"


def starts(schedule: Sequence[float], attempts: int) -> list[float]:
    """Seconds since the first attempt's due time at which each attempt starts, without jitter and
    as if every attempt failed at once; past the schedule's end its last wait repeats."""
    found, now = [], 0.0
    for number in range(attempts):
        now += schedule[min(number, len(schedule) - 1)]
        found.append(now)
    return found


def retries() -> str:
    """The default schedule on a line of time (its fourth root, so that 5 s and 75 h both fit)."""
    policy = RetryConfig()
    times = starts(policy.schedule_seconds, policy.max_attempts)
    waits = policy.schedule_seconds
    last = times[-1]
    d = Drawing(
        880, 262, "The default retry schedule",
        "; ".join(
            f"attempt {n + 1} at {clock_exact(t)}" for n, t in enumerate(times)
        ) + "; then a dead letter.",
    )  # fmt: skip

    def place(seconds: float) -> float:
        return 60 + 740 * (seconds / last / (1 + policy.jitter)) ** 0.25

    d.text(40, 34, "time since the first attempt; the bars are the jitter", "small left")
    d.shape('<path class="line" d="M40 130H846" marker-end="url(#tip)"/>')
    for number, at in enumerate(times):
        x, end = place(at), place(at * (1 + policy.jitter))
        if end - x > 1:
            d.shape(
                f'<rect class="wait" x="{x:.1f}" y="124" width="{end - x:.1f}" height="12" rx="3"/>'
            )
        css = "bad" if number == len(times) - 1 else "world"
        d.shape(f'<circle class="{css}" cx="{x:.1f}" cy="130" r="8"/>')
        d.shape(f'<text class="small strong" x="{x:.1f}" y="134">{number + 1}</text>')
        y = 108 if number % 2 == 0 else 84
        if number % 2:
            d.shape(f'<path class="frame" d="M{x:.1f} {y + 5}V120"/>')
        d.text(x, y, clock(at) if at < 60 else clock_exact(at), "small")
    for number, (wait, row) in enumerate((w, n % 5) for n, w in enumerate(waits)):
        column = number // 5
        x, y = 60 + column * 290, 168 + row * 17
        d.text(x, y, f"attempt {number + 1}", "small left")
        words = "at once" if number == 0 else f"{clock(wait)} after attempt {number}"
        d.text(x + 76, y, words, "small left")
    d.text(640, 168, "still no 2xx after the last one:", "small left")
    d.text(640, 185, "a dead letter, kept", "small left strong")
    d.text(640, 219, f"each wait up to {policy.jitter:.0%} longer, at random,", "small left")
    d.text(640, 236, "or as long as Retry-After asks", "small left")
    return d.svg()


DRAWINGS: dict[str, Callable[[], str]] = {
    "delivery.svg": delivery,
    "watermark.svg": watermark,
    "batching.svg": batching,
    "retries.svg": retries,
}


def main() -> None:
    """Write all of them."""
    for name, draw in DRAWINGS.items():
        (FOLDER / name).write_text(draw())


if __name__ == "__main__":
    main()
