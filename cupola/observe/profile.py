"""Traces of chosen steps, for Perfetto and TensorBoard, through jax's profiler.

Not here: where the time of a whole run goes (`goodput.py`).
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax


@contextlib.contextmanager
def trace(folder: str | Path) -> Iterator[None]:
    """Records what host and devices do inside, into `folder`.

    A step's work is dispatched, not done, when the step returns: wait for its result inside.

    Example:
        with trace("runs/first/profile"):
            for number in range(3):
                with step(number):
                    state, metrics = jax.block_until_ready(train_step(state, batch))
    """
    with jax.profiler.trace(str(folder)):
        yield


def step(number: int) -> jax.profiler.StepTraceAnnotation:
    """Returns a context that marks training step `number` in the trace."""
    return jax.profiler.StepTraceAnnotation("train", step_num=number)
