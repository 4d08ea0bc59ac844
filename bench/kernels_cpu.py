"""Each operation of `cupola/kernels` on a CPU, against the compiler's form of it and against torch.

The calls are those by which the package measures itself (`cupola/kernels/operations.py`): sizes of real
models, forward where a server computes them, with the gradient where a trainer does. Ours is what is
chosen; a weight that no longer changes is in the form in which the server keeps it, and the compiler gets
the one that it is fastest with. torch gets tensors of the dtype throughout, eager. All take turns in one
run; the least time of each counts, since what else the machine does can only add to it.
Passes where ours is
* 1.5 times as fast as the better of both in products with packed bf16 weights at 1, 8 and 32 rows,
* 1.5 times as fast as the better of both in attention, forward and with its gradient,
* twice as fast with int8 weights at 1 row as the best with float32 weights,
* nowhere slower than the compiler's form, beyond what is chance.
Lower is better throughout.
"""

import argparse
import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import harness
import jax.numpy as jnp

from cupola.kernels import operations, tune
from cupola.kernels.example import FLOATS
from cupola.kernels.matmul import Packed, Turned
from cupola.kernels.matmul.form import Grouped, Int8
from cupola.kernels.matmul.packed import pack_groups
from cupola.observe.machine import measure

NAME = "kernels_cpu"
CHANCE = 1.1
TURN_SECONDS = 0.03
MICRO = 1e6


def main() -> int:
    """Measures, prints and returns 0 where the bench has passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the first size of each example, in under two minutes")
    parser.add_argument("--only", metavar="OPERATION", choices=operations.OPERATIONS, help="one operation")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        harness.serve(Cases({"": lambda: None}))
        return 0
    script = str(harness.REPOSITORY / "bench" / "peers" / f"{NAME}.py")
    commands = {
        "cupola": [sys.executable, __file__, "--worker"],
        "torch": [harness.peer_python(NAME), script, str(len(os.sched_getaffinity(0)))],
    }
    machine = measure()
    with harness.workers(commands) as made:
        found = []
        for case in cases(asked.only, quick=asked.quick):
            found.append(times(case, made["cupola"], made["torch"], seconds=0.2 if asked.quick else 1))
            print(" ".join(line(found[-1])), file=sys.stderr, flush=True)
        versions = machine.versions | made["torch"].facts["versions"]
    facts = {"machine": f"{machine.processor}, {machine.cores} cores"} | versions
    return report(found, facts, keep=not (asked.quick or asked.only))


@dataclasses.dataclass(frozen=True)
class Case:
    """A call that is measured.

    Args:
        operation: its name.
        example: which of the operation's.
        gradient: whether it is computed with the result.
    """

    operation: str
    example: int
    dtype: str
    sizes: dict[str, int]
    gradient: bool


@dataclasses.dataclass(frozen=True)
class Times:
    """What a call took, in seconds; None where there is no such implementation.

    Args:
        form: of the weight, where it is no plain array.
        chosen: the implementation.
    """

    case: Case
    form: str
    chosen: str
    ours: float
    xla: float
    torch: float | None

    @property
    def name(self) -> str:
        """Of the case, as it is printed."""
        sizes = " ".join(f"{name}={size}" for name, size in self.case.sizes.items())
        words = self.case.operation, self.form, self.case.dtype, sizes, "with gradient" if self.case.gradient else ""
        return " ".join(filter(None, words))

    @property
    def peers(self) -> dict[str, float]:
        """The times of those that ours is compared with."""
        return {"xla": self.xla} | ({} if self.torch is None else {"torch": self.torch})


def cases(only: str | None, *, quick: bool) -> Iterator[Case]:
    """Yields the calls that the package measures itself by; the quick run has the first of each kind."""
    for name in operations.OPERATIONS if only is None else [only]:
        for number, example in enumerate(operations.examples_of(name)):
            for gradient, sizes in ((False, example.forward), (True, example.backward)):
                for dtype in FLOATS:
                    for each in sizes[: 1 if quick else None]:
                        yield Case(name, number, dtype, dict(each), gradient)


def times(case: Case, ours: harness.Worker, peer: harness.Worker, seconds: float) -> Times:
    """Returns what a call took on each side, which take turns."""
    asked = {which: json.dumps(dataclasses.asdict(case) | {"which": which}) for which in ("chosen", "xla")}
    ours.turn(1, asked["chosen"])
    said: Any = ours.notes[asked["chosen"]][0]
    turns = [(ours, asked["chosen"])]
    if said["chosen"] != "xla" or said["packed"]:
        turns.append((ours, asked["xla"]))
    for_peer = json.dumps(dataclasses.asdict(case) | {"form": said["form"]})
    peer.turn(1, for_peer)
    if "cannot" not in peer.notes[for_peer][0]:
        turns.append((peer, for_peer))
    for worker, each in turns[1:]:
        worker.turn(1, each)
    one = max(worker.timed[each][0] for worker, each in turns)
    runs, rounds = max(1, min(100, int(TURN_SECONDS / one))), max(3, int(seconds / max(one, TURN_SECONDS) / len(turns)))
    for _ in range(rounds):
        for worker, each in turns:
            worker.turn(runs, each)
    least = {(worker.name, each): min(worker.timed[each]) for worker, each in turns}
    chosen = least[ours.name, asked["chosen"]]
    xla, torch = least.get((ours.name, asked["xla"]), chosen), least.get((peer.name, for_peer))
    return Times(case, said["form"], said["chosen"], chosen, xla, torch)


class Cases(dict[str, Callable[[], Any]]):
    """The runs of a worker, by what is asked as JSON; only the last two are kept."""

    def __missing__(self, asked: str) -> Callable[[], Any]:
        return run_of(asked)


@functools.lru_cache(maxsize=2)
def run_of(asked: str) -> Callable[[], dict[str, Any]]:
    """Returns a run that tells which implementation it is of, and of which form its weight was made."""
    case = json.loads(asked)
    example = operations.examples_of(case["operation"])[case["example"]]
    args = example.make(case["dtype"], **case["sizes"])
    form = next((form_of(arg) for arg in args if form_of(arg)), "")
    if case["which"] == "chosen":
        args = tuple(map(as_served, args))
    chosen = example.operation.choose("xla" if case["which"] == "xla" else None, *args)
    run = tune.compiled(chosen, args, example.differentiated if case["gradient"] else ())
    said = {"chosen": chosen.name, "form": form, "packed": form not in ("", form_of(args[1]))}

    def noted() -> dict[str, Any]:
        run()
        return said

    return noted


def form_of(arg: Any) -> str:
    """Returns the name of a weight's form; nothing for what is no weight or a plain array."""
    named = isinstance(arg, Turned | Int8 | Grouped)
    return f"{type(arg).__name__}{arg.bits if isinstance(arg, Grouped) else ''}" if named else ""


def as_served(arg: Any) -> Any:
    """Returns a weight that no longer changes as the server keeps it; anything else as it is."""
    if isinstance(arg, Turned) and arg.values.dtype == jnp.bfloat16:
        return Packed.pack(arg.values.T)
    return pack_groups(arg) if isinstance(arg, Int8 | Grouped) else arg


def aims(found: list[Times]) -> dict[str, list[tuple[Times, float]]]:
    """Returns the cases of each aim, and how ours stands to it: 1 or more reaches it."""
    products = [t for t in found if t.case.operation == "dot" and not t.case.gradient]
    float32: dict[str, float] = {}
    for t in products:
        if t.case.dtype == "float32" and t.form in ("", "Turned"):
            at = str(t.case.sizes)
            float32[at] = min(float32.get(at, t.ours), t.ours, *t.peers.values())
    packed = [t for t in products if (t.form, t.case.dtype) == ("Turned", "bfloat16") and t.case.sizes["M"] <= 32]
    small = [t for t in products if t.form in ("Int8", "Grouped8") and t.case.sizes["M"] == 1]
    attention = [t for t in found if t.case.operation == "attend"]
    return {
        "packed bf16 at 1, 8, 32 rows: 1.5 x the better": [(t, min(t.peers.values()) / t.ours / 1.5) for t in packed],
        "attention: 1.5 x the better": [(t, min(t.peers.values()) / t.ours / 1.5) for t in attention],
        "int8 at 1 row: 2 x float32": [(t, float32[str(t.case.sizes)] / t.ours / 2) for t in small],
        "never slower than XLA, beyond chance": [(t, CHANCE * t.xla / t.ours) for t in found],
    }


def line(t: Times) -> tuple[str, ...]:
    """Returns a line of the first table."""
    torch = "" if t.torch is None else f"{MICRO * t.torch:.1f}"
    best = min(t.peers.values())
    return t.name, f"{MICRO * t.ours:.1f}", t.chosen, f"{MICRO * t.xla:.1f}", torch, f"{best / t.ours:.2f}"


def report(found: list[Times], facts: dict[str, str], *, keep: bool) -> int:
    """Prints the table, how the aims stand, and the JSON line."""
    harness.table(("case", "ours us", "chosen", "XLA us", "torch us", "x as fast"), [line(t) for t in found])
    passed = True
    for aim, reached in aims(found).items():
        missed = [t.name for t, share in reached if share < 1]
        passed &= not missed
        print(f"{'missed' if missed else 'reached' if reached else 'not measured':<13} {aim} ({len(reached)} cases)")
        for name in missed:
            print(f"{'':<13} - {name}")
    print()
    rows = []
    for t in found:
        peer = min(t.peers, key=lambda name, t=t: t.peers[name])
        rows.append(harness.Row(f"{t.name} ({t.chosen})", MICRO * t.ours, MICRO * t.peers[peer], peer, "us"))
    return harness.finish(NAME, rows, passed=passed, facts=facts, keep=keep)


if __name__ == "__main__":
    sys.exit(main())
