"""Kernels on one GPU: ours against liger-kernel and plain torch, each alone and in a model that is trained.

Each alone: the sizes are those of Liger's own benchmarks, in bf16, value and gradient together. Ours is measured as
"gpu" (our kernels) and as "xla" (the compiler's form), and the faster one counts, as `cupola kernels tune` would choose.
A run is several calls that are queued and waited for together, so that what a launch takes is hidden. The share is of
the bytes that must be moved over the card's bandwidth, or of the FLOPs that must be made over its rate; both rates are
measured in the same run, by a copy and by a product of large matrices. Memory is the most that a call holds, its
arguments included: ours as the compiler accounts for it, torch's as its allocator does.

`--model` trains Llama 3.2's 1B shape end to end: all operations by the compiler, by our kernels, and by our kernels
but for one at a time, beside transformers with and without Liger; AdamW, float32 weights, bf16 products on all sides.

Passes where ours takes at most 1.0 of Liger's time and memory in every case that Liger has. Lower is better throughout.
Needs a GPU that JAX and the peers' torch can use, and exits with status 2 where JAX sees none. `--on-cpu` rehearses
it without one, with tiny sizes and no Liger, which needs a card: its numbers mean nothing and are not kept.
"""

import argparse
import contextlib
import functools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import harness
import jax
import jax.numpy as jnp

from cupola.core.dtype import BFLOAT16
from cupola.kernels.attention import CAUSAL
from cupola.kernels.attention.api import ATTEND, attend
from cupola.kernels.choose import using
from cupola.kernels.cross_entropy import cross_entropy, linear_cross_entropy
from cupola.kernels.cross_entropy.api import LINEAR_CROSS_ENTROPY
from cupola.kernels.example import normal
from cupola.kernels.gated import Activation, gate
from cupola.kernels.gated.api import GATE
from cupola.kernels.gpu import interpreted
from cupola.kernels.norm import Casting, add_rms_norm, layer_norm, rms_norm
from cupola.kernels.norm.api import RMS_NORM
from cupola.kernels.rotary import rotate
from cupola.kernels.rotary.api import ROTATE
from cupola.layers.attention import Attention
from cupola.layers.block import Block
from cupola.layers.feed_forward import GatedMLP
from cupola.layers.repeat import Repeat
from cupola.models.decoder import Decoder
from cupola.optim.learner import Learner
from cupola.optim.optimizer import AdamW

NAME = "kernels_gpu"
SHARE_OF_CARD = 0.45
"""Which part of the card's memory our process takes at its start; the peers take of what is then free."""
CALLS = 10
"""Queued in one run."""
EPSILON = 1e-6
BYTES = 2
"""Of a number in bf16."""
COPY_BYTES, MATRIX = 1 << 30, 8192
SIZES: dict[str, list[dict[str, int]]] = {
    **{name: [{"N": 2048, "D": 2**k} for k in range(10, 16)] for name in ("rms_norm", "add_rms_norm", "layer_norm")},
    **{name: [{"N": 4 * 2**k, "F": 11008} for k in range(10, 14)] for name in ("swiglu", "geglu")},
    "rope": [{"B": 1, "T": 2048, "H": 32, "K": 8, "C": c} for c in (64, 128, 256)],
    "cross_entropy": [{"N": 16384, "V": 2**k} for k in range(12, 18)],
    "linear_cross_entropy": [{"N": 2**k, "D": 4096, "V": 128256} for k in range(12, 16)],
    "attend": [{"B": 4, "T": t, "H": 32, "K": 8, "C": 128} for t in (1024, 2048, 4096)],
}
TINY = {"N": 12, "D": 32, "F": 40, "B": 1, "T": 20, "H": 2, "K": 1, "C": 16, "V": 50}
MODEL = {"width": 2048, "layers": 16, "heads": 32, "key_heads": 8, "hidden": 8192, "vocabulary": 128256, "batch": 4,
         "length": 2048}  # fmt: skip
TINY_MODEL = {"width": 32, "layers": 1, "heads": 2, "key_heads": 1, "hidden": 40, "vocabulary": 60, "batch": 1,
              "length": 16}  # fmt: skip
ABLATED = (ATTEND, RMS_NORM, ROTATE, GATE, LINEAR_CROSS_ENTROPY)


def main() -> int:
    """Measures, prints and returns 0 where the bench has passed, 2 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="store_true", help="train a model end to end instead")
    parser.add_argument("--quick", action="store_true", help="the first size of each kernel")
    parser.add_argument("--on-cpu", action="store_true", help="a rehearsal without a GPU; its numbers mean nothing")
    parser.add_argument("--peer-python", help="that has torch and Liger; default: that of bench/setup")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    os.environ |= {"JAX_PLATFORMS": "cpu"} if asked.on_cpu else {"XLA_CLIENT_MEM_FRACTION": str(SHARE_OF_CARD)}
    if asked.worker:
        serve(model=asked.model, on_cpu=asked.on_cpu)
        return 0
    card = "a rehearsal on a CPU: no measurement" if asked.on_cpu else find_card()
    if card is None:
        print(
            f"bench/{NAME}.py needs an NVIDIA GPU and JAX for it, and JAX sees no GPU here. On a machine that has one, "
            'type: .venv/bin/pip install "jax[cuda13]" (--on-cpu rehearses the bench without; its numbers mean nothing)',
            file=sys.stderr,
        )
        return 2
    script = str(harness.REPOSITORY / "bench" / "peers" / f"{NAME}.py")
    python, device = asked.peer_python or harness.peer_python(NAME), "cpu" if asked.on_cpu else "cuda"
    flags = [flag for flag, given in (("--model", asked.model), ("--on-cpu", asked.on_cpu)) if given]
    shape = json.dumps(TINY_MODEL if asked.on_cpu else MODEL) if asked.model else "{}"
    commands = {"cupola": [sys.executable, __file__, "--worker", *flags]}
    commands |= {name: [python, script, name, device, shape] for name in ("torch", "liger")[: 1 if asked.on_cpu else 2]}
    with harness.workers(commands) as made:
        report = report_model if asked.model else report_kernels
        return report(made, {"card": card}, quick=asked.quick, on_cpu=asked.on_cpu)


def find_card() -> str | None:
    """Returns the name of the GPU that JAX sees; asked by a process of its own, which gives its memory back."""
    look = "import jax; print(jax.devices('gpu')[0].device_kind)"
    told = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=False)
    return told.stdout.strip() if told.returncode == 0 else None


def times(workers: dict[str, harness.Worker], asked: dict[str, list[str]], rounds: int) -> dict[str, tuple[float, int]]:
    """Returns the median seconds of a run and its memory, by side: workers take turns with what each is asked."""
    for _ in range(rounds):
        for name, cases in asked.items():
            for case in cases:
                workers[name].turn(1, case)
    found = {}
    for name, cases in asked.items():
        for case in cases:
            note: Any = workers[name].notes[case][-1]
            if "cannot" not in note:
                label = name if len(cases) == 1 else json.loads(case)["which"]
                found[label] = workers[name].median_of(case), int(note["peak_bytes"])
    return found


def rates(ours: harness.Worker, on_cpu: bool) -> tuple[float, float]:
    """Returns the bytes and the FLOPs that the card makes in a second, as it was measured."""
    size, side = (1 << 20, 128) if on_cpu else (COPY_BYTES, MATRIX)
    copy, matrix = (
        json.dumps({"op": op, "sizes": {"N": n}, "which": "xla"})
        for op, n in (("copy", size // BYTES), ("matrix", side))
    )
    for case in (copy, matrix) * 3:
        ours.turn(1, case)
    return 2 * CALLS * size / ours.median_of(copy), 2 * CALLS * side**3 / ours.median_of(matrix)


def report_kernels(workers: dict[str, harness.Worker], facts: dict[str, str], *, quick: bool, on_cpu: bool) -> int:
    """Measures each kernel alone; prints the tables and the JSON line."""
    bandwidth, rate = rates(workers["cupola"], on_cpu)
    lines, rows, passed = [], [], True
    for op, grid in SIZES.items():
        for sizes in grid[: 1 if quick or on_cpu else None]:
            sizes = {name: TINY[name] for name in sizes} if on_cpu else sizes
            spec = {"op": op, "sizes": sizes}
            asked = {name: [json.dumps(spec | {"which": name})] for name in workers if name != "cupola"}
            asked["cupola"] = [json.dumps(spec | {"which": which}) for which in ("gpu", "xla")]
            found = times(workers, asked, rounds=1 if on_cpu else 5)
            name = f"{op} {' '.join(f'{k}={v}' for k, v in sizes.items())}"
            ours = min((found[which] for which in ("gpu", "xla") if which in found), key=lambda each: each[0])
            floor = max(moved(op, sizes) / bandwidth, made(op, sizes) / rate)
            for side, (seconds, peak) in found.items():
                each = seconds / CALLS
                lines.append((name, side, f"{1e6 * each:.0f}", f"{floor / each:.1%}", f"{peak / 2**20:.0f}"))
                if side in ("torch", "liger"):
                    time = harness.Row(name, 1e6 * ours[0] / CALLS, 1e6 * each, side, "us")
                    memory = harness.Row(f"{name}, memory", ours[1] / 2**20, peak / 2**20, side, "MiB")
                    # On a CPU torch accounts for no memory.
                    rows += [time, memory] if peak else [time]
                    passed &= side != "liger" or (time.ours <= time.peer and memory.ours <= memory.peer)
    harness.table(("value and gradient", "side", "us", "of the card", "MiB"), lines)
    facts |= {"bandwidth": f"{bandwidth / 1e9:.0f} GB/s, a copy", "rate": f"{rate / 1e12:.1f} TFLOP/s, bf16 {MATRIX}^3"}
    for worker in workers.values():
        facts |= worker.facts["versions"]
    status = harness.finish(NAME, rows, passed=passed, facts=facts, keep=not (quick or on_cpu))
    return 0 if on_cpu else status


def moved(op: str, sizes: dict[str, int]) -> int:
    """Returns the bytes that value and gradient must read and write, small arrays apart."""
    n = sizes.get("N", 0)
    match op:
        case "rms_norm" | "layer_norm":
            return 5 * n * sizes["D"] * BYTES
        case "add_rms_norm":
            return 8 * n * sizes["D"] * BYTES
        case "swiglu" | "geglu":
            return 8 * n * sizes["F"] * BYTES
        case "rope":
            return 4 * sizes["B"] * sizes["T"] * (sizes["H"] + sizes["K"]) * sizes["C"] * BYTES
        case "cross_entropy":
            return 3 * n * sizes["V"] * BYTES
    return 0


def made(op: str, sizes: dict[str, int]) -> float:
    """Returns the FLOPs of the products of value and gradient."""
    match op:
        case "linear_cross_entropy":
            return 6 * math.prod(sizes.values())
        case "attend":
            # Two products forward, five backward, half of each hidden.
            return 7 * sizes["B"] * sizes["T"] ** 2 * sizes["H"] * sizes["C"]
    return 0


def report_model(workers: dict[str, harness.Worker], facts: dict[str, str], *, quick: bool, on_cpu: bool) -> int:
    """Measures training steps; prints the tables and the JSON line."""
    shape = TINY_MODEL if on_cpu else MODEL
    tokens, (_, rate) = shape["batch"] * shape["length"], rates(workers["cupola"], on_cpu)
    ours = [json.dumps({"op": "step", "which": which}) for which in variants()]
    peers = {name: [json.dumps({"op": "step", "which": name})] for name in workers if name != "cupola"}
    found = times(workers, peers | {"cupola": ours}, rounds=1 if on_cpu else 2 if quick else 8)
    flops = 3 * decoder(shape).flops(shape["batch"], shape["length"])
    harness.table(
        ("a training step", "ms", "tokens/s", "MFU", "peak MiB"),
        [
            (side, f"{1e3 * s:.0f}", f"{tokens / s:.0f}", f"{flops / s / rate:.1%}", f"{peak / 2**20:.0f}")
            for side, (s, peak) in found.items()
        ],
    )
    best = min((each for side, each in found.items() if side not in peers), key=lambda each: each[0])
    rows = []
    for side in peers:
        rows.append(harness.Row("a training step", 1e3 * best[0], 1e3 * found[side][0], side, "ms"))
        if peak := found[side][1]:  # On a CPU torch accounts for none.
            rows.append(harness.Row("a training step, memory", best[1] / 2**20, peak / 2**20, side, "MiB"))
    facts |= {"model": ", ".join(f"{k} {v}" for k, v in shape.items()), "rate": f"{rate / 1e12:.1f} TFLOP/s, measured"}
    passed = all(row.ours <= row.peer for row in rows)
    return harness.finish(f"{NAME}_model", rows, passed=passed, facts=facts, keep=not (quick or on_cpu)) * (not on_cpu)


# From here on: our worker.


def serve(*, model: bool, on_cpu: bool) -> None:
    """Answers turns; a case is made when it is first asked for, and kept while it is the last one."""
    with interpreted() if on_cpu else contextlib.nullcontext():
        versions = {"jax": jax.__version__, "jax device": jax.devices()[0].device_kind}
        harness.serve(Cases(model, on_cpu), warm=lambda: None, versions=versions)


class Cases(dict[str, Callable[[], Any]]):
    """The runs of a worker, by what is asked as JSON."""

    def __init__(self, model: bool, on_cpu: bool) -> None:
        super().__init__({"": lambda: None})
        self.trained = Trained(TINY_MODEL if on_cpu else MODEL) if model else None
        self.last = ""

    def __missing__(self, asked: str) -> Callable[[], Any]:
        self.pop(self.last, None)
        self.last, spec = asked, json.loads(asked)
        self[asked] = self.trained.run(spec["which"]) if self.trained and spec["op"] == "step" else alone(**spec)
        return self[asked]


def alone(op: str, sizes: dict[str, int], which: str) -> Callable[[], Any]:
    """Returns a run of one kernel."""
    function, arrays = call(op, **sizes)
    with using(which):
        compiled = jax.jit(function).lower(*arrays).compile()
    peak = memory(compiled)

    def run() -> dict[str, Any]:
        for _ in range(CALLS):
            out = compiled(*arrays)
        jax.block_until_ready(out)
        return {"peak_bytes": peak}

    run()
    return run


def memory(compiled: Any) -> int:
    """Returns the most bytes that a call holds."""
    held = compiled.memory_analysis()
    own = held.argument_size_in_bytes + held.output_size_in_bytes - held.alias_size_in_bytes
    return own + held.temp_size_in_bytes


def call(op: str, **sizes: int) -> tuple[Callable[..., Any], tuple[jax.Array, ...]]:
    """Returns a function that computes value and gradient, and its arrays."""
    if op == "copy":
        return jnp.negative, (normal(0, (sizes["N"],), "bfloat16"),)
    if op == "matrix":
        return jnp.matmul, tuple(normal(seed, (sizes["N"],) * 2, "bfloat16") for seed in (0, 1))
    function, arrays = operation(op, **sizes)
    given = tuple(x for x in arrays if jnp.issubdtype(x.dtype, jnp.floating))

    def both(*arrays: jax.Array) -> Any:
        out, back = jax.vjp(function, *arrays)
        return out, back(jax.tree.map(jnp.ones_like, out))

    return both, given


def operation(op: str, **sizes: int) -> tuple[Callable[..., Any], tuple[jax.Array, ...]]:
    """Returns an operation as Liger's benchmarks call it, and the arrays that it is differentiated for."""

    def make(seed: int, *dims: str) -> jax.Array:
        return normal(seed, tuple(sizes[dim] for dim in dims), "bfloat16")

    def rope(q: jax.Array, k: jax.Array) -> Any:
        angles = normal(2, (1, sizes["T"], sizes["C"] // 2))
        return tuple(rotate(x, jnp.cos(angles), jnp.sin(angles)) for x in (q, k))

    targets = jnp.arange(sizes.get("N", 0), dtype=jnp.int32)[None] % sizes.get("V", 1)
    ones = jnp.ones(targets.shape, jnp.float32)
    llama = {"epsilon": EPSILON, "casting": Casting.LLAMA}
    match op:
        case "rms_norm":
            return functools.partial(rms_norm, **llama), (make(0, "N", "D"), make(1, "D"))
        case "add_rms_norm":
            return functools.partial(add_rms_norm, **llama), (make(0, "N", "D"), make(2, "N", "D"), make(1, "D"))
        case "layer_norm":
            return functools.partial(layer_norm, epsilon=EPSILON), (make(0, "N", "D"), make(1, "D"), make(2, "D"))
        case "swiglu" | "geglu":
            kind = Activation.SILU if op == "swiglu" else Activation.GELU_TANH
            return functools.partial(gate, activation=kind, precision=BFLOAT16), (make(0, "N", "F"), make(1, "N", "F"))
        case "rope":
            return rope, (make(0, "B", "T", "H", "C"), make(1, "B", "T", "K", "C"))
        case "cross_entropy":
            return lambda logits: cross_entropy(logits[None], targets, ones), (make(0, "N", "V"),)
        case "linear_cross_entropy":
            return (
                lambda x, head: linear_cross_entropy(x[None], head, targets, ones, precision=BFLOAT16),
                (make(0, "N", "D"), make(1, "V", "D")),
            )
    heads = make(1, "B", "T", "K", "C"), make(2, "B", "T", "K", "C")
    return functools.partial(attend, mask=CAUSAL, precision=BFLOAT16), (make(0, "B", "T", "H", "C"), *heads)


def decoder(shape: dict[str, int]) -> Decoder:
    """Returns the model that is trained."""
    block = Block(
        attention=Attention(heads=shape["heads"], key_heads=shape["key_heads"]),
        feed_forward=GatedMLP(hidden=shape["hidden"]),
    )
    stack = Repeat(layers=shape["layers"], block=block)
    model = Decoder(vocabulary=shape["vocabulary"], width=shape["width"], max_length=shape["length"], stack=stack)
    return model.replace("precision", BFLOAT16)


def variants() -> Iterator[str]:
    """Yields what is compiled: everything by the compiler, by our kernels, and by these but for one."""
    yield from ("xla", "gpu", *(f"gpu but {operation.name}" for operation in ABLATED))


class Trained:
    """A model with its optimizer, which all forms of the step train on."""

    def __init__(self, shape: dict[str, int]) -> None:
        self.model, self.learner = decoder(shape), Learner(optimizer=AdamW(rate=1e-4))
        self.specs = self.model.specs()
        params = self.model.init(jax.random.key(0))
        self.state = params, self.learner.init(params, self.specs)
        self.tokens = jax.random.randint(
            jax.random.key(1), (shape["batch"], shape["length"] + 1), 0, shape["vocabulary"]
        )

    def run(self, which: str) -> Callable[[], Any]:
        """Returns a run of one step in a form of `variants`."""
        ours = [each for each in ABLATED if which != "xla" and which != f"gpu but {each.name}"]
        with using("xla"), using("gpu", *ours) if ours else contextlib.nullcontext():
            compiled = jax.jit(self.step, donate_argnums=0).lower(self.state, self.tokens).compile()
        peak = memory(compiled)

        def run() -> dict[str, Any]:
            self.state, loss = compiled(self.state, self.tokens)
            return {"peak_bytes": peak, "loss": float(loss)}

        run()
        return run

    def step(self, state: Any, tokens: jax.Array) -> Any:
        """Returns the next state and the loss."""
        params, optimizer = state
        weights = jnp.full(tokens[:, 1:].shape, 1 / tokens[:, 1:].size, jnp.float32)

        def loss(params: Any) -> jax.Array:
            return self.model.loss(params, self.model(params, tokens[:, :-1]).states, tokens[:, 1:], weights)

        value, grads = jax.value_and_grad(loss)(params)
        params, optimizer, _ = self.learner.update(grads, optimizer, params, self.specs, jnp.float32(0))
        return (params, optimizer), value


if __name__ == "__main__":
    sys.exit(main())
