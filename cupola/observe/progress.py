"""The live display of a run: step, loss, speed, time left; plain lines where there is no terminal.

Not here: the record of metrics (`sinks.py`).
Invariant: showing never changes a run: an update stores numbers, a thread of the display draws them.
"""

import itertools
import math
import threading
import time
from collections.abc import Callable, Mapping

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cupola.observe.log import CONSOLE
from cupola.observe.smooth import Smooth
from cupola.observe.units import Number, seconds_text, short

SPARKS = "▁▂▃▄▅▆▇█"
PLAIN_SECONDS = 5.0
SPAN_STEPS = 20
HISTORY = 512
"""So many smoothed losses are kept for the small curve; older ones are thinned out."""

RATE = "_per_second"
SHOWN: dict[str, Callable[[Number], str]] = {
    "matmul_share": lambda v: f"{v:.0%} of matmul rate",
    "skipped_steps": lambda v: f"{v:.0f} skipped",
}
"""How known metrics read; "loss" is smoothed, rates read as "3.2k tokens/s", others as name and number."""


class Progress:
    """Shows a run while it goes on, whether its budget is steps or time.

    Args:
        title: names the run.
        console: where to; None takes the one that the log uses.
        clock: returns seconds.

    Example:
        with Progress("quickstart") as progress:
            progress.update(step, fraction_done=step / steps, metrics={"loss": 2.4, "tokens_per_second": 1e4})
            progress.note("held out: 2.1 bits per byte")
    """

    def __init__(self, title: str, *, console: Console | None = None, clock: Callable[[], Number] = time.perf_counter):
        self.title = title
        self._console, self._clock = console or CONSOLE, clock
        self._shows_blocks = self._console.encoding.startswith("utf")
        self._dot = "·" if self._shows_blocks else "|"
        self._live: Live | None = None
        self._lock = threading.Lock()
        self._step, self._fraction, self._metrics = 0, 0.0, dict[str, Number]()
        self._loss, self._history, self._every = Smooth(SPAN_STEPS), list[float](), 1
        self._start: tuple[float, float] | None = None
        self._updates, self._last_line = 0, -math.inf

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._live = Live(get_renderable=self.render, console=self._console, refresh_per_second=8)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        elif self._updates:
            self._line()

    def update(self, step: int, fraction_done: Number, metrics: Mapping[str, Number]) -> None:
        """Takes the state of the run; what is shown follows within a fraction of a second.

        Args:
            step: training steps done.
            fraction_done: of the budget, 0 to 1.
            metrics: "loss", "tokens_per_second", "matmul_share" (0 to 1), "skipped_steps", or any other.
        """
        now = self._clock()
        with self._lock:
            self._step, self._fraction = int(step), min(max(float(fraction_done), 0.0), 1.0)
            self._metrics = {**self._metrics, **metrics}
            self._start = self._start or (now, self._fraction)
            self._updates += 1
            if "loss" in metrics:
                self._remember(self._loss.add(float(metrics["loss"])))
        if self._live is None and now - self._last_line >= PLAIN_SECONDS:
            self._last_line = now
            self._line()

    def note(self, text: str) -> None:
        """Prints a line above the display."""
        encoding = self._console.encoding
        text = text.encode(encoding, "replace").decode(encoding)
        self._console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def left_seconds(self) -> float | None:
        """Returns about how long the rest takes; None while nothing is known."""
        if self._start is None or self._fraction <= self._start[1]:
            return None
        spent = self._clock() - self._start[0]
        return spent * (1 - self._fraction) / (self._fraction - self._start[1])

    def render(self) -> RenderableType:
        """Returns the display as it is now, as wide as the console."""
        with self._lock:
            bar = Table.grid(padding=(0, 1), expand=True)
            bar.add_column(no_wrap=True)
            bar.add_column(ratio=1)
            bar.add_column(no_wrap=True, justify="right")
            at = Text.assemble(("step ", "dim"), (f"{self._step:,}", "bold"))
            bar.add_row(at, ProgressBar(total=1.0, completed=self._fraction), self._when())
            inner = min(self._console.width, 100) - 4
            rows: list[RenderableType] = [bar, *packed(self._figures(), inner, dot=self._dot)]
            if len(self._history) > 1 and self._shows_blocks:
                rows.append(Text(spark(self._history, inner), style="cyan", no_wrap=True))
            title = Text(self.title, style="bold")
            return Panel(Group(*rows), title=title, title_align="left", border_style="dim", width=inner + 4)

    def _when(self) -> Text:
        left = self.left_seconds()
        text = Text(f"{self._fraction:.0%}", style="bold")
        if self._fraction == 1:
            text.append("  done", "dim")
        elif left is not None:
            text.append(f"  {seconds_text(max(round(left), 1))} left", "dim")
        return text

    def _figures(self) -> list[Text]:
        parts = [Text.assemble(("loss ", "dim"), (f"{self._loss.value:.3f}", "bold cyan"))] if self._history else []
        for name, value in self._metrics.items():
            if name == "loss" or (name == "skipped_steps" and not value):
                continue
            shown = SHOWN[name](value) if name in SHOWN else _named(name, value)
            parts.append(Text(shown, style="yellow" if name == "skipped_steps" else ""))
        return parts

    def _line(self) -> None:
        with self._lock:
            parts = [f"step {self._step:,}", *self._when().plain.split("  "), *(part.plain for part in self._figures())]
        self.note(f" {self._dot} ".join(parts))

    def _remember(self, loss: float) -> None:
        if math.isfinite(loss) and self._updates % self._every == 0:
            self._history.append(loss)
        if len(self._history) > HISTORY:
            self._history, self._every = self._history[::2], 2 * self._every


def _named(name: str, value: Number) -> str:
    if name.endswith(RATE):
        return f"{short(value)} {name.removesuffix(RATE)}/s"
    return f"{name} {value:.4g}"


def packed(parts: list[Text], width: int, *, dot: str = "·") -> list[Text]:
    """Returns the parts in as few lines as fit, with dots between those of a line."""
    lines: list[Text] = []
    for part in parts:
        if lines and lines[-1].cell_len + 5 + part.cell_len <= width:
            lines[-1].append(f"  {dot}  ", "dim").append_text(part)
        else:
            lines.append(part.copy())
    return lines


def spark(values: list[float], width: int) -> str:
    """Returns a curve of blocks, at most `width` characters.

    The steep start of a run would press the rest flat, so the full block stands for the highest tenth.
    """
    count = min(width, len(values))
    bounds = [round(i * len(values) / count) for i in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(bounds)]
    low, high = min(means), sorted(means)[-1 - len(means) // 10]
    return "".join(SPARKS[round(min((m - low) / ((high - low) or 1.0), 1.0) * (len(SPARKS) - 1))] for m in means)
