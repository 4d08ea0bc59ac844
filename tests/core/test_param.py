import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.errors import ShapeError
from cupola.core.param import Constant, FanIn, Normal, Param


@pytest.mark.parametrize(
    ("param", "fan_in", "fan_out"),
    [
        (Param((4, 6), "D F"), 4, 6),
        (Param((4, 2, 3), "D H C"), 4, 6),
        (Param((2, 3, 4), "H C D", inputs=2), 6, 4),
        (Param((10, 4), "V D", inputs=-1), 4, 10),
        (Param((4,), "D"), 4, 1),
        (Param((4, 6), "D F").stack("L", 5), 4, 6),
        (Param((10, 4), "V D", inputs=-1).stack("L", 5), 4, 10),
        (Param((4, 6), "D F").stack("E", 3).stack("L", 5), 4, 6),
    ],
)
def test_fans_leave_stacks_out(param, fan_in, fan_out):
    assert (param.fan_in, param.fan_out) == (fan_in, fan_out)


def test_a_stack_leads_and_is_counted():
    stacked = Param((4,), "D").stack("L", 3)
    assert (stacked.shape, stacked.dims, stacked.stacked, stacked.size) == ((3, 4), "L D", 1, 12)
    assert not stacked.is_matrix
    assert Param((4, 6), "D F").stack("L", 3).is_matrix


def test_abstract_is_shape_and_format():
    assert Param((2, 3), "D F", dtype=jnp.bfloat16).abstract == jax.ShapeDtypeStruct((2, 3), jnp.bfloat16)


@pytest.mark.parametrize(
    ("shape", "dims", "message"),
    [
        ((2, 3), "D", "names 1 dimensions of a parameter that has 2"),
        ((2,), "Q", "'Q' in 'Q' is no dimension letter\nLetters: B batch"),
        ((0,), "D", "dimension D has size 0\nSizes are whole numbers from 1"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(shape, dims, message):
    with pytest.raises(ShapeError, match=message):
        Param(shape, dims)


def test_initializers_draw_what_they_say(key):
    wide = Param((400, 50), "D F", dtype=np.dtype("float32"))
    assert float(FanIn(scale=2.0).draw(key, wide).std()) == pytest.approx(2 / 400**0.5, rel=0.02)
    assert float(Normal(std=0.5).draw(key, wide).std()) == pytest.approx(0.5, rel=0.02)
    assert (Constant(value=3.0).draw(key, wide) == 3).all()


@pytest.mark.parametrize("init", [FanIn(), Normal(std=1.0), Constant(value=1.0)])
def test_first_values_have_the_parameters_format(key, init):
    drawn = init.draw(key, Param((2, 3), "D F", dtype=np.dtype("bfloat16")))
    assert (drawn.shape, drawn.dtype) == ((2, 3), jnp.bfloat16)
