"""Figures as SVG text, readable without a browser's help from outside. Knows numbers and labels,
not what they mean.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cmt_sdk.system.extras import unusable

# Okabe and Ito's colours, which colour-blind people can tell apart
# (https://jfly.uni-koeln.de/color/), black left out.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A8A00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SIZE = (7.0, 4.2)  # inches
SMOOTH = 12  # steps that a training loss is averaged over
MANY = 40  # points of a line that are no longer shown one by one


@dataclass(frozen=True, slots=True)
class Spot:
    """A labelled point with the bounds of its y; `kind` chooses colour and marker."""

    label: str
    kind: str
    x: float
    y: float
    low: float
    high: float


def spots(found: Sequence[Spot], x: str, y: str) -> str:
    """Points with their labels next to them, on a logarithmic x. Raises MissingExtra without the
    plotting library.
    """
    kinds = sorted({s.kind for s in found})
    with _axes(x, y) as (axes, out):
        for s in found:
            style = kinds.index(s.kind)
            bars = {"yerr": [[s.y - s.low], [s.high - s.y]], "capsize": 2, "elinewidth": 0.7}
            axes.errorbar(
                [s.x],
                [s.y],
                fmt=MARKERS[style % len(MARKERS)],
                color=COLOURS[style % len(COLOURS)],
                **bars,
            )
        _label(axes, [(s.x, s.y, s.label) for s in found])
        axes.margins(x=0.25, y=0.1)
        _logarithmic(axes)
    return out.getvalue()


def lines(series: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str) -> str:
    """Lines, each named at its end; few points are dots too. Raises MissingExtra without the
    plotting library.
    """
    with _axes(x, y) as (axes, out):
        ends = []
        for number, (name, points) in enumerate(series.items()):
            xs, ys = [p[0] for p in points], [p[1] for p in points]
            style = {
                "marker": MARKERS[number % len(MARKERS)] if len(points) < MANY else None,
                "markersize": 4,
            }
            axes.plot(xs, ys, color=COLOURS[number % len(COLOURS)], label=name, **style)
            ends.append((xs[-1], ys[-1], name))
        axes.set_ylim(bottom=min(0, *(end[1] for end in ends)))  # a small change looks small
        _label(axes, ends)
        axes.margins(x=0.2)
    return out.getvalue()


def bars(groups: Mapping[str, Mapping[str, float]], y: str) -> str:
    """Groups of bars side by side, each with its value. Raises MissingExtra without the plotting
    library.
    """
    names = list(next(iter(groups.values())))
    with _axes("", y) as (axes, out):
        width = 0.8 / len(groups)
        for number, (group, values) in enumerate(groups.items()):
            places = [i + number * width for i in range(len(names))]
            drawn = axes.bar(
                places,
                [values[n] for n in names],
                width * 0.92,
                color=COLOURS[number % len(COLOURS)],
                label=group,
            )
            axes.bar_label(drawn, fmt="%.0f", fontsize=8)
        axes.set_xticks([i + 0.4 - width / 2 for i in range(len(names))], names)
        axes.legend(
            frameon=False,
            ncols=len(groups),
            loc="upper center",
            bbox_to_anchor=(0.5, 1.14),
            fontsize=9,
        )
        axes.set_ylim(0, 108)
    return out.getvalue()


def training_curve(log: Sequence[Mapping[str, Any]]) -> str:
    """The lines of a training log (cmt_sdk.training.loop): the smoothed loss, and what was held
    out, against questions seen.
    """
    losses = [(line["questions"], line["loss"]) for line in log if "loss" in line]
    windows = [losses[max(0, n - SMOOTH) : n + 1] for n in range(len(losses))]
    series = (
        {
            "training": [
                (window[-1][0], sum(y for _, y in window) / len(window)) for window in windows
            ]
        }
        if losses
        else {}
    )
    for line in log:
        for key, value in line.items():
            if key.startswith(("held_out", "recall")):
                series.setdefault(key, []).append((line["questions"], value))
    return lines(series, "questions seen", "")


@contextmanager
def _axes(x: str, y: str) -> Iterator[tuple[Any, io.StringIO]]:
    """Axes to draw on within the block; after it the text holds the SVG. The same numbers give the
    same text.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise unusable("drawing a plot", "eval", error) from error
    out = io.StringIO()
    with mpl.rc_context(
        {
            "svg.hashsalt": "cmt",
            "svg.fonttype": "none",
            "font.family": "sans-serif",
            "font.size": 10,
        }
    ):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        yield axes, out
        figure.savefig(
            out, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    text = out.getvalue()
    out.seek(0)
    out.truncate()
    out.write(text[text.index("<svg") :])


def _logarithmic(axes: Any) -> None:
    """A logarithmic x with plain numbers under it: 200, 1k, 5k."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _label(axes: Any, found: Sequence[tuple[float, float, str]]) -> None:
    """Names to the right of their points, moved up and down where they would cover each other."""
    low, high = axes.get_ylim()
    step, before = (high - low) / 22, -float("inf")
    for x, y, name in sorted(found, key=lambda f: f[1]):
        place = max(y, before + step)
        before = place
        axes.annotate(name, (x, y), (7, 0), textcoords="offset points", va="center", fontsize=8)
        axes.texts[-1].xyann = (7, (place - y) / (high - low) * SIZE[1] * 72 * 0.8)
