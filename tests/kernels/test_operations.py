import importlib
import pkgutil

import jax
import jax.numpy as jnp
import pytest

import cupola.kernels
from cupola.core.errors import Unsupported
from cupola.kernels.choose import Operation
from cupola.kernels.example import FLOATS
from cupola.kernels.measured import call_of
from cupola.kernels.operations import EXAMPLES, OPERATIONS, examples_of

CALLS = [
    pytest.param(example, dtype, sizes, id=f"{example.operation.name}-{number}-{dtype}-{place}")
    for number, example in enumerate(EXAMPLES)
    for dtype in FLOATS
    for place, sizes in enumerate(example.forward + example.backward)
]


def test_no_operation_is_missing():
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(cupola.kernels.__path__, "cupola.kernels.")
        if found.name.endswith(".api")
    ]
    made = {value for module in modules for value in vars(module).values() if isinstance(value, Operation)}
    assert {operation.name: operation for operation in made} == OPERATIONS


@pytest.mark.parametrize(("example", "dtype", "sizes"), CALLS)
def test_an_example_is_honoured_and_has_its_gradients(example, dtype, sizes):
    def value_and_gradients():
        args = example.make(dtype, **sizes)
        assert len(example.operation.weigh(None, *args).verdicts) == len(example.operation.implementations)
        function = next(i for i in example.operation.implementations if i.name == "xla").function
        if sizes not in example.backward:
            return function(*args)
        gradients = jax.vjp(
            lambda *some: function(
                *(
                    some[example.differentiated.index(i)] if i in example.differentiated else x
                    for i, x in enumerate(args)
                )
            ),
            *(args[i] for i in example.differentiated),
        )[1]
        return gradients(jax.tree.map(jnp.ones_like, function(*args)))

    jax.eval_shape(value_and_gradients)


def call(example, sizes):
    found = []
    jax.eval_shape(lambda: found.append(call_of(example.make("float32", **sizes))))
    return found[0]


def test_examples_of_an_operation_are_unlike():
    for name in OPERATIONS:
        calls = [call(example, sizes) for example in examples_of(name) for sizes in example.forward + example.backward]
        assert len(set(calls)) == len(calls), name


def test_an_unknown_operation_or_size_is_refused():
    with pytest.raises(Unsupported, match="no operation 'dott'\nDid you mean 'dot'"):
        examples_of("dott")
    example = examples_of("rms_norm")[0]
    assert example.sizes({"N": 7})["N"] == 7
    with pytest.raises(Unsupported, match="has no size Q=3\nIt has N=1, D=576"):
        example.sizes({"Q": 3})
    with pytest.raises(Unsupported, match="has no size N=0"):
        example.sizes({"N": 0})
