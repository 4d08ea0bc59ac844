"""Training a small decoder on a CPU: Cupola against transformers' Llama on torch.

The same decoder (RMSNorm, rotary positions, gated feed-forward, untied head), batch and optimizer
(AdamW, gradients clipped to norm 1) on both sides, in float32 and in bf16 (torch: autocast), torch
eager and compiled, with whichever of its fused and foreach AdamW is the faster. Ours is the step
that `cupola train` compiles, segments and positions included. Both sides ask the C library to keep
freed memory, as the command line does; `--returned-memory` measures both without.
A second, wider shape is ours alone: it tells which share of the machine's own best rate of matrix products a step
reaches. Passes where our best takes at most 0.6 of the time of torch's best, and the share is at least 45 %.
"""

import argparse
import functools
import json
import os
import sys
from typing import Any

import harness
import jax
import jax.numpy as jnp
import numpy as np

from cupola.core import host
from cupola.core.dtype import BFLOAT16, BFLOAT16_OUTPUTS, FLOAT32
from cupola.data.loader import Batch
from cupola.data.mixture import Mixture, Part
from cupola.data.sources import PythonLibrary
from cupola.layers.attention import Attention
from cupola.layers.block import Block
from cupola.layers.embedding import Head
from cupola.layers.feed_forward import GatedMLP
from cupola.layers.repeat import Form, Repeat
from cupola.models.decoder import Decoder
from cupola.observe.machine import measure
from cupola.optim.learner import Learner
from cupola.optim.optimizer import AdamW
from cupola.train.experiment import Data, Experiment, Steps
from cupola.train.state import initial
from cupola.train.step import make_step

NAME = "train_cpu"
SHAPE = {"width": 256, "layers": 6, "heads": 8, "hidden": 640, "vocabulary": 8192, "batch": 8, "length": 256}
WIDE = SHAPE | {"width": 512, "layers": 8, "hidden": 1408}
WIDE_NAME = "bf16 wide"
PRECISIONS = {"float32": FLOAT32, "bf16": BFLOAT16}
"""What both sides are measured in."""
OUTPUTS = "bf16 outputs"
OURS = PRECISIONS | {OUTPUTS: BFLOAT16_OUTPUTS}
AT_MOST = 0.6
SHARE = 0.45
"""Of the machine's best rate of matrix products, that a step of the wide shape reaches at least."""
RUNS = 2
"""Timed steps a turn."""


def main() -> int:
    """Measures, prints and returns 0 where the bench has passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="bf16 only, in under two minutes; keeps no result")
    parser.add_argument("--returned-memory", action="store_true", help="leave the C library's memory as it is")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    memory = "returned" if asked.returned_memory else "kept"
    if asked.worker:
        serve(asked.worker, memory)
        return 0
    wide = [sys.executable, __file__, "--worker", WIDE_NAME]
    ours, peers = commands(harness.peer_python(NAME), list(PRECISIONS)[asked.quick :], memory)
    machine = measure()
    if memory == "returned":
        wide.append("--returned-memory")
    with harness.workers(ours | peers | {WIDE_NAME: wide}) as made:
        harness.alternate(list(made.values()), seconds=15 if asked.quick else 150, runs=RUNS)
    sides = {n: made[n] for n in ours}, {n: made[n] for n in peers}, made[WIDE_NAME]
    return report(*sides, machine, memory, keep=not asked.quick)


def commands(peer: str, precisions: list[str], memory: str) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Returns the commands of our workers and of the peer's, by name."""
    ours = {p: [sys.executable, __file__, "--worker", p] for p in [*precisions, OUTPUTS]}
    if memory == "returned":
        ours = {name: [*command, "--returned-memory"] for name, command in ours.items()}
    threads, shape = str(len(os.sched_getaffinity(0))), json.dumps(SHAPE)
    script = str(harness.REPOSITORY / "bench" / "peers" / f"{NAME}.py")
    forms = [(p, form, "fused") for p in precisions for form in ("eager", "compiled")] + [
        ("bf16", "compiled", "foreach")
    ]
    return ours, {f"torch {' '.join(form)}": [peer, script, *form, memory, threads, shape] for form in forms}


def report(ours: dict[str, Any], peers: dict[str, Any], wide: Any, machine: Any, memory: str, *, keep: bool) -> int:
    """Prints both tables and the JSON line."""
    flops = flops_of(SHAPE)
    sides = {f"cupola {name}": worker for name, worker in ours.items()} | peers
    fastest = max(machine.matmul_flops_per_second.values())
    harness.table(
        ("a step", "median ms", "least ms", "of bf16 matmul", "peak memory"),
        [
            (
                name,
                f"{1e3 * worker.median:.0f}",
                f"{1e3 * min(worker.seconds):.0f}",
                f"{flops / worker.median / fastest:.1%}",
                f"{worker.peak_bytes / 2**20:.0f} MiB",
            )
            for name, worker in sides.items()
        ],
    )
    share = flops_of(WIDE) / wide.median / fastest
    print(f"{WIDE['width']} wide, {WIDE['layers']} layers: {1e3 * wide.median:.0f} ms a step, ", end="")
    print(f"{share:.1%} of the machine's best rate of matrix products (aim: {SHARE:.0%})\n")
    rows = [
        harness.Row(name.removeprefix("torch "), 1e3 * ours[name.split()[1]].median, 1e3 * w.median, name, "ms")
        for name, w in peers.items()
    ]
    our_best, name = (min(side, key=lambda n, side=side: side[n].median) for side in (ours, peers))
    us, peer = ours[our_best], peers[name]
    best = harness.Row(f"best ({our_best})", 1e3 * us.median, 1e3 * peer.median, name, "ms")
    memories = harness.Row("peak memory of the best", us.peak_bytes / 2**20, peer.peak_bytes / 2**20, name, "MiB")
    rates = {f"{d} matmul": f"{rate / 1e9:.0f} GFLOP/s" for d, rate in machine.matmul_flops_per_second.items()}
    facts = {"machine": f"{machine.processor}, {machine.cores} cores", **rates, "freed memory": memory}
    rounds = {"timed steps": f"{len(us.seconds)} of each"}
    return harness.finish(
        NAME,
        [*rows, best, memories, harness.Row(WIDE_NAME, SHARE / share, 1.0, "the aimed share", "x")],
        passed=best.ours <= AT_MOST * best.peer and share >= SHARE,
        facts=facts | rounds | machine.versions | peer.facts["versions"],
        keep=keep,
    )


def flops_of(shape: dict[str, int]) -> int:
    """Returns the FLOPs of a step at a shape."""
    return 3 * experiment("float32", shape).model.flops(shape["batch"], shape["length"])


def serve(name: str, memory: str) -> None:
    """Compiles our step as `cupola train` does, and answers turns."""
    precision, shape = (OUTPUTS, WIDE) if name == WIDE_NAME else (name, SHAPE)
    if memory == "kept":
        host.keep_freed_memory()
    made = experiment(precision, shape)
    state = initial(made, made.mesh.build())
    random = np.random.default_rng(0).integers(0, shape["vocabulary"], (shape["batch"], shape["length"] + 1), np.int32)
    ones = np.ones_like(random[:, 1:])
    batch = Batch(
        tokens=random[:, :-1],
        targets=random[:, 1:],
        weights=ones.astype(np.float32),
        segments=ones,
        positions=np.cumsum(ones, 1, dtype=np.int32) - 1,
    )
    progress = jnp.float32(0)
    compile_here = functools.partial(jax.jit, donate_argnums=0, compiler_options=host.compiler_options())
    compiled = compile_here(make_step(made)).lower(state, batch, progress).compile()

    def step() -> float:
        nonlocal state
        state, metrics = compiled(state, batch, progress)
        jax.block_until_ready(state)
        return float(metrics["loss"])

    for _ in range(3):
        step()
    harness.serve(step)


def experiment(precision: str, shape: dict[str, int]) -> Experiment:
    """Returns the experiment whose step is measured."""
    block = Block(attention=Attention(heads=shape["heads"]), feed_forward=GatedMLP(hidden=shape["hidden"]))
    model = Decoder(
        vocabulary=shape["vocabulary"],
        width=shape["width"],
        max_length=shape["length"],
        head=Head(),
        stack=Repeat(layers=shape["layers"], block=block, form=Form.UNROLL),
    )
    return Experiment(
        name=NAME,
        model=model,
        data=Data(
            mixture=Mixture(parts=(Part(source=PythonLibrary()),)),
            batch=shape["batch"],
            length_tokens=shape["length"],
        ),
        learner=Learner(optimizer=AdamW(rate=1e-3)),
        budget=Steps(steps=1000),
        precision=OURS[precision],
    )


if __name__ == "__main__":
    sys.exit(main())
