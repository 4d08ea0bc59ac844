"""A whole model with every operation switched at once: nothing changes but rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.dtype import BFLOAT16
from cupola.kernels.choose import Implementation, Operation, same_at_all_sizes, using

DRAWS = 8
KINDS = [None, "xla", "reference"]


@pytest.fixture(scope="module")
def run(language):
    """Returns what compiles and runs the loss and its gradients with an implementation named for all operations."""
    tokens = jax.random.randint(jax.random.key(5), (2, 33), 0, language.model.vocabulary)
    weights = jnp.ones((2, 32)).at[1, 20:].set(0)

    def loss(params, model):
        states = model(params, tokens[:, :-1]).states
        return model.loss(params, states, tokens[:, 1:], weights)

    call = jax.jit(jax.value_and_grad(loss), static_argnums=1)

    def results(implementation, params=language.params, model=language.model):
        with using(implementation):
            return [np.asarray(x, np.float64) for x in jax.tree.leaves(call(params, model))]

    return results


@pytest.fixture(scope="module")
def allowed(run, language):
    """How far apart two ways to compute may be: twice what it changes that each weight moves by its rounding.

    An operation rounds what it gives at least as much as if each of its weights were a neighbouring number.
    """
    base, eps = run("reference"), np.finfo(np.float32).eps

    def moved(draw):
        keys = np.random.default_rng(draw)
        return jax.tree.map(lambda x: x * (1 + eps * keys.choice([-1, 1], x.shape)).astype(x.dtype), language.params)

    changes = [map(far, run("reference", moved(draw)), base) for draw in range(DRAWS)]
    return [2 * max(each) for each in zip(*changes, strict=True)]


def far(ours, theirs):
    return float(np.abs(ours - theirs).max())


@pytest.mark.parametrize("implementation", KINDS)
def test_switching_every_operation_changes_no_result(implementation, run, allowed):
    base = run("reference")
    beyond = {
        i: (far(a, b), most) for i, (a, b, most) in enumerate(zip(run(implementation), base, allowed, strict=True))
    }
    assert {i: pair for i, pair in beyond.items() if not pair[0] <= pair[1]} == {}


def test_fewer_digits_are_noticed(run, allowed, language):
    base, rounded = run("reference"), run("xla", model=language.model.replace("precision", BFLOAT16))
    assert all(far(a, b) > most for a, b, most in zip(rounded, base, allowed, strict=True))


def test_one_operation_is_switched_alone_and_contexts_add_up():
    fast, slow = (Implementation(name, lambda name=name: name) for name in ("fast", "slow"))
    one, other = Operation("one", (fast, slow)), Operation("other", (fast, slow))
    with using("slow", one):
        assert (one(None), other(None), one("fast")) == ("slow", "fast", "fast")
        with using("slow", other):
            assert (one(None), other(None)) == ("slow", "slow")
            assert same_at_all_sizes(lambda: one(None))() == "slow"
        with using("fast"):
            assert one(None) == "fast"
    assert one(None) == "fast"


def test_it_is_switched_at_all(run):
    """Other ways to compute round otherwise: were the bits the same, nothing would have been switched."""
    assert any((a != b).any() for a, b in zip(run("xla"), run("reference"), strict=True))
    assert all((a == b).all() for a, b in zip(run("xla"), run("xla"), strict=True))
