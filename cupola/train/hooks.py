"""Hooks that show a run and record it.

Invariant: a hook reads; it changes no number of the run.
"""

from collections import deque

from cupola.observe.account import Account
from cupola.observe.machine import Machine
from cupola.observe.progress import Progress
from cupola.observe.sinks import Sinks
from cupola.train.evaluate import Score
from cupola.train.loop import Done, Hook

SPAN_STEPS = 20
"""Steps over which the speed is taken."""


class Speed:
    """Tokens a second and the share of the machine's matmul rate, over the last steps.

    Args:
        machine: whose rate is the whole.
    """

    def __init__(self, machine: Machine):
        self._machine = machine
        self._flops = 0
        self._marks: deque[tuple[float, int]] = deque(maxlen=SPAN_STEPS + 1)

    def before_first(self, known: Account) -> None:
        """Takes the FLOPs of a step."""
        self._flops = known.flops or 0

    def rates(self, done: Done) -> dict[str, float]:
        """Returns the rates after a step; nothing after the first, which has no duration yet."""
        self._marks.append((done.seconds, done.tokens))
        seconds = self._marks[-1][0] - self._marks[0][0]
        if seconds <= 0:
            return {}
        tokens = sum(tokens for _, tokens in list(self._marks)[1:])
        flops = self._flops * (len(self._marks) - 1) / seconds
        return {"tokens_per_second": tokens / seconds, "matmul_share": self._machine.share(flops)}


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
        self._progress.note(f"a step needs {rows['peak']} ({parts}) and {rows['model FLOPs']}FLOP")

    def after_step(self, done: Done) -> None:
        """Moves the display on."""
        shown = {"loss": done.metrics["loss"], "skipped_steps": done.metrics["skipped"], **self._speed.rates(done)}
        self._progress.update(done.step, done.progress, shown)

    def after_evaluation(self, step: int, score: Score) -> None:
        """Prints the score above the display."""
        self._progress.note(f"step {step:,}: held out (sample) {score.bits_per_byte:.3f} bits per byte")


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
        told = {"progress": done.progress, "seconds": done.seconds, "tokens": done.tokens, **self._speed.rates(done)}
        self._sinks.write(done.step, done.metrics | told)

    def after_evaluation(self, step: int, score: Score) -> None:
        """Writes the score."""
        self._sinks.write(step, {"held_out_loss": score.loss, "held_out_bits_per_byte": score.bits_per_byte})
