"""Fits an experiment to the machine that it runs on, by what was measured there.

Invariant: what is learnt stays the same; number formats and the form of compilation may change.
"""

from cupola.core.dtype import BFLOAT16, FLOAT32
from cupola.layers.repeat import Form
from cupola.observe.machine import Machine
from cupola.train.experiment import Experiment

WORTH = 1.3
"""bf16 products must be this much faster than float32 ones: conversions cost something."""
UNROLLED_LAYERS = 16
"""Deeper stacks are scanned even on a CPU, where unrolling is faster, for compilation grows with depth."""


def fit(experiment: Experiment, machine: Machine) -> Experiment:
    """Returns the experiment with bf16 products where they are faster, and layers unrolled on a CPU."""
    rates = machine.matmul_flops_per_second
    precision = BFLOAT16 if rates["bfloat16"] > WORTH * rates["float32"] else FLOAT32
    experiment = experiment.replace("precision", precision)
    on_cpu = all(kind == "cpu" for kind, _ in machine.devices)
    if on_cpu and experiment.model.stack.layers <= UNROLLED_LAYERS:
        experiment = experiment.replace("model.stack.form", Form.UNROLL)
    return experiment
