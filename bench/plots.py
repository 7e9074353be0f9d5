"""The drawings as SVG files, by matplotlib (the extra `bench`); without it there are none."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Any

from bench.results import Drawing, Line, Report
from bench.table import number

_COLOURS = ("#1b6ca8", "#d1495b", "#66a182", "#edae49", "#6c5b7b", "#00798c")


def draw(report: Report, folder: Path) -> list[Path]:
    """Write every drawing. Raises ImportError where matplotlib is missing."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update(
        {
            "svg.fonttype": "none",  # text stays text: smaller, searchable, the reader's font
            "svg.hashsalt": "bench",
            "font.family": "sans-serif",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "axes.prop_cycle": matplotlib.cycler(color=_COLOURS),
        }
    )
    return [_draw(drawing, folder) for result in report.results for drawing in result.drawings]


def _draw(drawing: Drawing, folder: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    if drawing.kind == "lines":
        _lines(drawing, axes)
    elif drawing.kind == "across":
        _across(drawing, axes)
    else:
        _bars(drawing, axes)
    if drawing.target is not None and drawing.kind != "across" and not drawing.log_y:
        # The target is in the picture, with room for its name.
        axes.set_ylim(top=max(axes.get_ylim()[1], drawing.target * 1.12))
    if drawing.target is not None and drawing.kind == "across":
        axes.axvline(drawing.target, linestyle="--", color="#555555", linewidth=1)
    elif drawing.target is not None:
        axes.axhline(drawing.target, linestyle="--", color="#555555", linewidth=1)
        axes.annotate(
            drawing.target_name or "target", (1, drawing.target), xytext=(-4, 3),
            xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
            fontsize=8, color="#555555",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )  # fmt: skip
    x, y = (drawing.y, drawing.x) if drawing.kind == "across" else (drawing.x, drawing.y)
    axes.set(title=drawing.title, xlabel=x, ylabel=y)
    if len(drawing.lines) > 1:
        axes.legend(frameon=False, fontsize=8)
    path = folder / f"{drawing.name}.svg"
    figure.savefig(path, format="svg", metadata={"Date": None})
    return path


def _ys(line: Line) -> list[float]:
    return [y for _, y in line.points]


def _lines(drawing: Drawing, axes: Any) -> None:
    for line in drawing.lines:
        xs = [x for x, _ in line.points]
        marker = "o" if len(xs) < 30 else None
        (drawn,) = axes.plot(xs, [y for _, y in line.points], marker=marker, label=line.name)
        if line.low:
            axes.fill_between(xs, line.low, line.high, alpha=0.15, color=drawn.get_color())
    if drawing.log_x:
        axes.set_xscale("log")
    if drawing.log_y:
        axes.set_yscale("log")
    else:
        highest = max((y for line in drawing.lines for y in (*line.high, *_ys(line))), default=1)
        axes.set_ylim(0, highest * 1.1 or 1)


def _across(drawing: Drawing, axes: Any) -> None:
    """Bars from left to right, for long words; what is said of y holds for the length."""
    (line,) = drawing.lines
    words = [str(word).replace("\n", " ") for word, _ in line.points]
    bars = axes.barh(words, _ys(line), 0.7)
    axes.bar_label(bars, [number(y) for y in _ys(line)], fontsize=8, padding=2)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    if drawing.log_y:
        axes.set_xscale("log")


def _bars(drawing: Drawing, axes: Any) -> None:
    words = list(dict.fromkeys(str(x) for line in drawing.lines for x, _ in line.points))
    below = [0.0] * len(words)
    count = 1 if drawing.kind == "stack" else len(drawing.lines)
    for index, line in enumerate(drawing.lines):
        heights = {str(x): y for x, y in line.points}
        ys = [heights.get(word, 0.0) for word in words]
        places = [n + (index - (count - 1) / 2) * 0.8 / count for n in range(len(words))]
        if drawing.kind == "stack":
            axes.bar(range(len(words)), ys, 0.6, bottom=below, label=line.name)
            below = [b + y for b, y in zip(below, ys, strict=True)]
            continue
        spread = None
        if line.low:
            spread = [
                [y - low for y, low in zip(ys, line.low, strict=True)],
                [high - y for y, high in zip(ys, line.high, strict=True)],
            ]
        bars = axes.bar(places, ys, 0.75 / count, label=line.name, yerr=spread, capsize=3)
        axes.bar_label(bars, [number(y) for y in ys], fontsize=8, padding=2)
    if drawing.kind == "stack":
        for place, total in enumerate(below):
            axes.annotate(
                number(total), (place, total), xytext=(0, 2), textcoords="offset points",
                ha="center", fontsize=8,
            )  # fmt: skip
    axes.set_xticks(range(len(words)), [fill(word, 16) for word in words])
    axes.margins(y=0.1)
    if drawing.log_y:
        axes.set_yscale("log")
