"""Fits an experiment to the machine that it runs on, by what was measured there.

Invariant: what is learnt stays the same; number formats and the form of compilation may change.
"""

from typing import TypeVar

from cupola.core.dtype import BFLOAT16, FLOAT32, Precision
from cupola.layers.repeat import Form, Repeat
from cupola.observe.machine import Machine
from cupola.train.experiment import Training

Kind = TypeVar("Kind", bound=Training)

WORTH = 1.3
"""bf16 products must be this much faster than float32 ones: conversions cost something."""
UNROLLED_LAYERS = 16
"""Deeper stacks are scanned even on a CPU, where unrolling is faster, for compilation grows with depth."""


def products(machine: Machine) -> Precision:
    """Returns products of bf16 where they are faster than those of float32, by so much that it pays."""
    rates = machine.matmul_flops_per_second
    return BFLOAT16 if rates["bfloat16"] > WORTH * rates["float32"] else FLOAT32


def fit(experiment: Kind, machine: Machine) -> Kind:
    """Returns the experiment with bf16 products where they are faster, and layers unrolled on a CPU."""
    experiment = experiment.replace("precision", products(machine))
    on_cpu = all(kind == "cpu" for kind, _ in machine.devices)
    layers = sum(value.layers for _, value in experiment.model.walk() if isinstance(value, Repeat))
    if on_cpu and 0 < layers <= UNROLLED_LAYERS:
        experiment = experiment.swap(Repeat, lambda repeat: repeat.replace("form", Form.UNROLL))
    return experiment
