"""Prints what native implementations give for the cases, as one line of digits each: the bits of their results.

The highest level is given every case, the lower ones those of the quick suite.

python bits.py 1     computes on one core
"""

import hashlib
import os
import sys
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    # Before jax makes its threads, one for each core that there is.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[1])])
    sys.path[:0] = [str(Path(__file__).parent)]

import jax
import numpy as np
from cases import CASES
from judge import POLICIES, pull
from matrix import LOWER, QUICK, SAMPLE

from cupola.kernels.adamw.cpu import global_norm
from cupola.kernels.native.library import find
from cupola.kernels.norm import cpu


def digits(results) -> str:
    made = hashlib.sha256()
    for x in jax.tree.leaves(results):
        made.update(np.asarray(x).tobytes())
    return made.hexdigest()[:16]


def lines():
    rows = np.random.default_rng(0).normal(size=(999, 129)).astype(np.float32)
    for level in find().libraries:
        call = jax.jit(lambda x, level=level: cpu.rms_norm(x, x[0], 1e-6, level=level))
        yield from (f"rows {level.value} {digits(call(given))}" for given in (rows, rows + 1))
        yield f"norm of a tree {level.value} {digits(jax.jit(partial(global_norm, level=level))([rows, rows[0]]))}"
    for case in CASES:
        for each in case.operation.implementations:
            asked = each.name.startswith("cpu") and (each.name not in LOWER or case in QUICK | SAMPLE)
            for name, policy in POLICIES.items() if asked else ():
                given = case.given()[name]
                if not each.refuses(*case.arguments(given, policy)):
                    ones = jax.eval_shape(case.call(each.function, policy), *given)
                    call = jax.jit(lambda *a, c=case.call(each.function, policy), o=ones: pull(c, np.ones(o.shape), *a))
                    yield f"{case} {each.name} {name} {digits(call(*given))}"


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    print("\n".join(lines()))
