"""The loss curve of a run as a PNG: training, held-out, and what general compressors reach.

Drawn with matplotlib's objects alone, so no global state and no window is touched.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cupola.observe.smooth import centred
from cupola.observe.units import Number

INK, FAINT, GRID = "#1f2937", "#9ca3af", "#e5e7eb"
TRAIN, HELD_OUT = "#2563eb", "#dc2626"
REFERENCES = ("#b45309", "#047857", "#7c3aed", "#475569")

Points = Sequence[tuple[Number, Number]]
"""(step, value) in the order of steps."""


def plot(
    path: str | Path,
    *,
    train: Points,
    held_out: Points = (),
    references: Mapping[str, Number] | None = None,
    title: str = "",
    unit: str = "bits per byte",
    nats_per_unit: Number | None = None,
) -> None:
    """Writes a PNG of 1000 x 600 pixels.

    Args:
        path: the file; folders above it are made.
        train: training loss, in `unit`.
        held_out: held-out loss, in `unit`.
        references: horizontal lines in `unit`, by label, such as {"gzip -9": 2.184}.
        title: stands above.
        unit: of every value.
        nats_per_unit: nats per token that one `unit` is; draws a second axis for them.
    """
    figure = Figure(figsize=(10, 6), dpi=100, layout=ConstrainedLayoutEngine(w_pad=0.2, h_pad=0.15), facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _dress(axes, title, unit)
    train = [(x, y) for x, y in train if math.isfinite(y)]
    held_out = [(x, y) for x, y in held_out if math.isfinite(y)]
    # Smoothed from both sides, so that the line does not lag behind a falling loss.
    line = centred([y for _, y in train], span=max(len(train) / 100, 1))
    if train:
        steps = [x for x, _ in train]
        axes.plot(steps, [y for _, y in train], color=TRAIN, alpha=0.16, linewidth=0.8)
        axes.plot(steps, line, color=TRAIN, linewidth=2.2, label="training")
    if held_out:
        label = f"held out, {held_out[-1][1]:.3f} at the end"
        axes.plot(*zip(*held_out, strict=True), "o-", color=HELD_OUT, linewidth=1.4, markersize=5, label=label)
    _draw_references(axes, references or {})
    _frame(axes, train, line, [y for _, y in held_out], list((references or {}).values()))
    if nats_per_unit is not None:
        _add_nats(axes, nats_per_unit)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc="upper right", labelcolor=INK, fontsize=12)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    canvas.print_png(str(path))


def _dress(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, loc="left", fontsize=15, fontweight="bold", color=INK, pad=14)
    axes.set_xlabel("step", color=INK, fontsize=12)
    axes.set_ylabel(unit, color=INK, fontsize=12)
    axes.tick_params(colors=INK, length=0, labelsize=11)
    axes.grid(axis="y", color=GRID, linewidth=1.0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))


def _draw_references(axes: Axes, references: Mapping[str, Number]) -> None:
    """Each line is named where it starts, below the curve; the lowest from below, so that near ones stay apart."""
    lowest = min(references.values(), default=0.0)
    for i, (name, value) in enumerate(references.items()):
        color, below = REFERENCES[i % len(REFERENCES)], value == lowest and len(references) > 1
        axes.axhline(value, color=color, linewidth=1.3, linestyle=(0, (5, 3)), zorder=1)
        axes.annotate(
            f"{name}  {value:.3f}",
            xy=(0.0, value),
            xycoords=("axes fraction", "data"),
            xytext=(6, -5 if below else 4),
            textcoords="offset points",
            va="top" if below else "bottom",
            color=color,
            fontsize=11,
            annotation_clip=False,
        )


def _add_nats(axes: Axes, nats_per_unit: Number) -> None:
    def nats(values: Any) -> Any:
        return np.asarray(values) * nats_per_unit

    def units(values: Any) -> Any:
        return np.asarray(values) / nats_per_unit

    second = axes.secondary_yaxis("right", functions=(nats, units))
    second.set_ylabel("nats per token", color=INK, fontsize=12)
    second.tick_params(colors=INK, length=0, labelsize=11)
    second.spines["right"].set_visible(False)


def _frame(
    axes: Axes, train: Points, line: Sequence[Number], held_out: Sequence[Number], references: Sequence[Number]
) -> None:
    """Leaves the first steep steps out of the picture: they would press everything else flat."""
    shown = [*line[len(line) // 8 :], *held_out[len(held_out) // 4 :], *references]
    if not shown:
        return
    low, high = min(shown), max(shown)
    margin = 0.08 * ((high - low) or abs(high) or 1.0)
    axes.set_ylim(low - margin, high + 2 * margin)
    last = max((x for x, _ in train), default=1.0)
    axes.set_xlim(0, 1.015 * max(last, 1.0))
