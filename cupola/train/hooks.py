"""Hooks that show a run and record it.

Invariant: a hook reads; it changes no number of the run.
"""

from collections import deque

from cupola.observe.account import Account
from cupola.observe.machine import Machine
from cupola.observe.progress import Progress
from cupola.observe.sinks import Sinks
from cupola.train.task import Done, Hook, Scored

SPAN_STEPS = 20
"""Steps over which the speed is taken."""


class Speed:
    """Tokens a second and the share of the machine's matmul rate, over the last steps.

    Args:
        machine: whose rate is the whole.
        unit: what stands for tokens (`Training.unit`).
    """

    def __init__(self, machine: Machine, unit: str = "tokens"):
        self.unit = unit
        self._machine = machine
        self._flops: int | None = None
        self._marks: deque[tuple[float, int, int | None]] = deque(maxlen=SPAN_STEPS + 1)

    def before_first(self, known: Account) -> None:
        """Takes the FLOPs of a step, for steps that do not tell their own."""
        self._flops = known.flops

    def rates(self, done: Done) -> dict[str, float]:
        """Returns the rates after a step; nothing after the first, which has no duration yet."""
        self._marks.append((done.seconds, done.tokens, self._flops if done.flops is None else done.flops))
        (begin, *_), *rest = self._marks
        seconds = done.seconds - begin
        if seconds <= 0:
            return {}
        rates = {f"{self.unit}_per_second": sum(tokens for _, tokens, _ in rest) / seconds}
        flops = [flops for _, _, flops in rest if flops is not None]
        if len(flops) < len(rest):
            return rates
        return rates | {"matmul_share": self._machine.share(sum(flops) / seconds)}


class Display(Hook):
    """Shows a run on a terminal.

    Args:
        progress: the display, already entered.
        speed: what it shows of the speed.
    """

    def __init__(self, progress: Progress, speed: Speed):
        self._progress, self._speed = progress, speed

    def before_first(self, known: Account) -> None:
        """Prints what a step needs."""
        self._speed.before_first(known)
        rows = dict(known.rows())
        parts = ", ".join(f"{name} {rows[name]}" for name in ("parameters", "optimizer", "temporaries"))
        work = "" if known.flops is None else f" and {rows['model FLOPs']}FLOP"
        self._progress.note(f"a step needs {rows['peak']} ({parts}){work}")

    def after_step(self, done: Done) -> None:
        """Moves the display on."""
        shown = {"loss": done.metrics["loss"], "skipped_steps": done.metrics["skipped"], **self._speed.rates(done)}
        self._progress.update(done.step, done.progress, shown)

    def after_evaluation(self, step: int, score: Scored) -> None:
        """Prints the score above the display."""
        self._progress.note(f"step {step:,}: held out (sample) {score.text()}")


class Record(Hook):
    """Writes every metric of a run to its sinks.

    Args:
        sinks: where to.
        speed: a counter of its own.
    """

    def __init__(self, sinks: Sinks, speed: Speed):
        self._sinks, self._speed = sinks, speed

    def before_first(self, known: Account) -> None:
        """Takes the FLOPs of a step."""
        self._speed.before_first(known)

    def after_step(self, done: Done) -> None:
        """Writes the step's metrics."""
        told = {"progress": done.progress, "seconds": done.seconds, self._speed.unit: done.tokens}
        told |= self._speed.rates(done)
        self._sinks.write(done.step, done.metrics | told)

    def after_evaluation(self, step: int, score: Scored) -> None:
        """Writes the score."""
        self._sinks.write(step, score.metrics)
