import dataclasses

import pytest

from cupola.core.dtype import BFLOAT16, FLOAT32
from cupola.layers.repeat import Form
from cupola.observe.machine import Machine
from cupola.recipes.hardware.machine import UNROLLED_LAYERS, fit
from cupola.recipes.quickstart import quickstart

CPU = Machine(
    platform="Linux x86_64",
    processor="a processor",
    cores=2,
    memory_bytes=2**33,
    devices=(("cpu", 1),),
    device_memory_bytes=None,
    matmul_flops_per_second={"float32": 1e11, "bfloat16": 2e11},
    memory_bytes_per_second=1e10,
    versions={},
)
GPU = dataclasses.replace(CPU, devices=(("NVIDIA H100 80GB HBM3", 1),))


@pytest.mark.parametrize(("bfloat16", "precision"), [(2.0, BFLOAT16), (1.2, FLOAT32), (0.01, FLOAT32)])
def test_bf16_products_are_taken_where_they_pay(bfloat16, precision):
    machine = dataclasses.replace(CPU, matmul_flops_per_second={"float32": 1e11, "bfloat16": bfloat16 * 1e11})
    assert fit(quickstart(), machine).precision == precision


@pytest.mark.parametrize(
    ("machine", "layers", "form"),
    [
        (CPU, 6, Form.UNROLL),
        (CPU, UNROLLED_LAYERS, Form.UNROLL),
        (CPU, UNROLLED_LAYERS + 1, Form.SCAN),
        (GPU, 6, Form.SCAN),
    ],
)
def test_shallow_stacks_are_unrolled_on_a_cpu(machine, layers, form):
    made = fit(quickstart().replace("model.stack.layers", layers), machine)
    assert made.model.stack.form is form


def test_what_is_learnt_stays_the_same():
    made, fitted = quickstart(), fit(quickstart(), CPU)
    assert fitted != made
    assert fitted.model.count() == made.model.count()
    assert fitted.replace("precision", made.precision).replace("model.stack.form", made.model.stack.form) == made
