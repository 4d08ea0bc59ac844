"""Memory and time of the fused linear cross-entropy with its gradient, against the plain form, on a CPU.

The plain form makes all logits, takes their log-softmax and lets the compiler derive the gradient; both
get the same operands, in float32 and in bf16 products. What is compared is what a step holds beside its
arguments and its results (the head and its gradient, which every form has): as the compiler accounts for
it, and as the process grows while it runs. Passes where the plain form takes at least 5 times the memory
by both measures and the fused form is not slower in any case. Each form has a process of its own, which
keeps freed memory as the trainer does. Lower is better throughout.
"""

import argparse
import contextlib
import ctypes
import functools
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness
import jax
import jax.numpy as jnp

from cupola.core import host
from cupola.core.dtype import BFLOAT16, FLOAT32, Precision
from cupola.kernels.cross_entropy import linear_cross_entropy
from cupola.kernels.cross_entropy.api import LINEAR_CROSS_ENTROPY
from cupola.observe.machine import measure

NAME = "cross_entropy_memory"
VOCABULARY, WIDTH, ROWS = 131_072, 512, (512, 1024)
PRECISIONS = {"float32": FLOAT32, "bf16": BFLOAT16}
AT_LEAST = 5
MIB = 2**20
FORMS = ("fused", "xla", "plain")


def main() -> int:
    """Measures, prints and returns 0 where the bench has passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="512 rows only, in under two minutes")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        serve(**json.loads(asked.worker))
        return 0
    lines, rows, passed = [], [], True
    for name in PRECISIONS:
        for count in ROWS[: 1 if asked.quick else None]:
            made = compare(name, count, seconds=4 if asked.quick else 10)
            lines += [line(f"{name}, {count} rows: {form}", worker) for form, worker in made.items()]
            case = f"{name}, {count} rows"
            rows += compared(case, made["fused"], made["plain"])
            passed &= all(row.ours * AT_LEAST <= row.peer for row in rows[-3:-1]) and rows[-1].ours <= rows[-1].peer
    harness.table(("a step", "temporaries MiB", "grown MiB", "median ms", "least ms"), lines)
    machine = measure()
    facts = {"machine": f"{machine.processor}, {machine.cores} cores", "vocabulary": f"{VOCABULARY} x {WIDTH}"}
    chosen = {"fused is": made["fused"].facts["implementation"]}
    return harness.finish(NAME, rows, passed=passed, facts=facts | chosen | machine.versions, keep=not asked.quick)


def compare(precision: str, rows: int, seconds: float) -> dict[str, Any]:
    """Returns the workers of one case, measured in turns; each form has a process of its own."""
    commands = {
        form: [sys.executable, __file__, "--worker", json.dumps({"form": form, "precision": precision, "rows": rows})]
        for form in FORMS
    }
    with harness.workers(commands) as made:
        harness.alternate(list(made.values()), seconds=seconds, runs=1)
    return dict(made)


def grown(worker: Any) -> float:
    """Returns by how much the process grew in a step at most, beside its results."""
    return max(note["grown"] for note in worker.notes[""]) - worker.facts["results"]


def line(name: str, worker: Any) -> tuple[str, ...]:
    """Returns a line of the first table."""
    memory = f"{worker.facts['temporaries'] / MIB:.0f}", f"{grown(worker) / MIB:.0f}"
    return name, *memory, f"{1e3 * worker.median:.0f}", f"{1e3 * min(worker.seconds):.0f}"


def compared(case: str, ours: Any, plain: Any) -> list[harness.Row]:
    """Returns the three comparisons of a case: both memories, then the time."""
    counted = ours.facts["temporaries"] / MIB, plain.facts["temporaries"] / MIB
    return [
        harness.Row(f"{case}: temporaries", *counted, "plain", "MiB"),
        harness.Row(f"{case}: growth", grown(ours) / MIB, grown(plain) / MIB, "plain", "MiB"),
        harness.Row(f"{case}: time", 1e3 * min(ours.seconds), 1e3 * min(plain.seconds), "plain", "ms"),
    ]


def plain(x: jax.Array, head: jax.Array, targets: jax.Array, weights: jax.Array, precision: Precision) -> jax.Array:
    """Returns the loss as one writes it first: all logits, their log-softmax, the targets' entries."""
    exact = jax.lax.Precision.HIGHEST if precision is FLOAT32 else None
    operands = x.astype(precision.compute), head.astype(precision.compute)
    logits = jnp.einsum("btd,vd->btv", *operands, precision=exact, preferred_element_type=jnp.float32)
    return -jnp.sum(weights * jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)[..., 0])


def serve(form: str, precision: str, rows: int) -> None:
    """Compiles a step, says what the compiler accounts for, and answers turns."""
    policy = PRECISIONS[precision]
    fused = functools.partial(linear_cross_entropy, precision=policy, implementation="xla" if form == "xla" else None)
    loss = functools.partial(plain, precision=policy) if form == "plain" else fused
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (1, rows, WIDTH))
    head = jax.random.normal(keys[1], (VOCABULARY, WIDTH)) / WIDTH**0.5
    targets, weights = jax.random.randint(keys[2], (1, rows), 0, VOCABULARY), jnp.ones((1, rows))
    step = jax.jit(jax.value_and_grad(loss, (0, 1)), compiler_options=host.compiler_options())
    compiled = step.lower(x, head, targets, weights).compile()
    account = compiled.memory_analysis()
    chosen = LINEAR_CROSS_ENTROPY.choose(None, x, head, targets, weights, policy).name

    jax.block_until_ready((x, head, targets, weights))
    ctypes.CDLL(None).malloc_trim(0)  # Else what was freed on the way here would be taken for nothing.
    host.keep_freed_memory()
    before = resident()  # Before the first run: what it frees may stay with the process.

    def work() -> dict[str, float]:
        with watched() as most:
            jax.block_until_ready(compiled(x, head, targets, weights))
        return {"grown": most() - before}

    harness.serve(
        work,
        temporaries=account.temp_size_in_bytes,
        results=account.output_size_in_bytes,
        implementation=chosen,
    )


def resident() -> int:
    """Returns the bytes in memory that are the process's own: pages of files come and go with what others need."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


@contextlib.contextmanager
def watched() -> Iterator[Callable[[], int]]:
    """Looks every few milliseconds; gives what tells the most that was resident."""
    seen, over = [resident()], threading.Event()

    def look() -> None:
        while not over.wait(0.005):
            seen.append(resident())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lambda: max(seen)
    finally:
        seen.append(resident())
        over.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
