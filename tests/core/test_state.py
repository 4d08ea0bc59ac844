import jax
import jax.numpy as jnp
import pytest

from cupola.core.context import Aside
from cupola.core.dtype import FLOAT32
from cupola.core.errors import ConfigError, ShapeError
from cupola.core.module import Module
from cupola.core.param import Constant, Param, Role
from cupola.core.state import learned, rejoined, with_state


class Counted(Module):
    """Counts its calls."""

    width: int = 3

    def params(self):
        return {
            "weight": Param((self.width,), "D", role=Role.SCALAR),
            "calls": Param((self.width,), "D", init=Constant(), role=Role.STATE),
        }

    def __call__(self, p, x):
        return x * p["weight"], Aside(state={"calls": p["calls"] + 1})


class Two(Module):
    parts: tuple[Counted, ...] = (Counted(), Counted())


TWO = Two(precision=FLOAT32)


@pytest.fixture
def p(key):
    return TWO.init(key)


def test_what_a_call_said_is_written_and_nothing_else(p):
    _, said = TWO.parts[1](p["parts"][1], jnp.ones(3))
    after = with_state(p, said.under("parts.1"), TWO.specs())
    assert (after["parts"][1]["calls"] == 1).all()
    assert not after["parts"][0]["calls"].any()
    assert after["parts"][1]["weight"] is p["parts"][1]["weight"]


def test_it_keeps_the_parameters_format(p):
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), p)
    after = with_state(low, Aside(state={"parts.0.calls": jnp.ones(3)}), TWO.specs())
    assert {x.dtype.name for x in jax.tree.leaves(after)} == {"bfloat16"}


def test_state_that_the_model_has_not_is_refused(p):
    with pytest.raises(ConfigError, match="parts.2.calls: state is said of it.*\nDid you mean 'parts.[01].calls'"):
        with_state(p, Aside(state={"parts.2.calls": jnp.ones(3)}), TWO.specs())
    with pytest.raises(ConfigError, match="parts.0.weight"):
        with_state(p, Aside(state={"parts.0.weight": jnp.ones(3)}), TWO.specs())
    with pytest.raises(ShapeError, match=r"parts.0.calls: state of shape \(\) for a parameter of \(3,\)"):
        with_state(p, Aside(state={"parts.0.calls": jnp.ones(())}), TWO.specs())


def test_what_is_learned_and_what_is_state_part_and_join(p):
    specs = TWO.specs()
    part = learned(p, specs)
    assert [x.shape for x in jax.tree.leaves(part)] == [(3,), (3,)]
    assert jax.tree.structure(part) == jax.tree.structure(learned(specs, specs))
    doubled = rejoined(jax.tree.map(lambda x: 2 * x, part), p)
    assert (doubled["parts"][0]["weight"] == 2 * p["parts"][0]["weight"]).all()
    assert doubled["parts"][0]["calls"] is p["parts"][0]["calls"]


def test_without_state_a_tree_keeps_its_form(p):
    specs = {"weight": TWO.specs()["parts"][0]["weight"]}
    assert jax.tree.structure(learned(specs, specs)) == jax.tree.structure(specs)


def test_only_what_is_learned_is_counted():
    assert TWO.count() == 6
