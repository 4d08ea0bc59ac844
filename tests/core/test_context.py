import jax
import jax.numpy as jnp
import pytest

from cupola.core.context import Aside, Context, Mode, split_aside
from cupola.core.errors import ConfigError
from cupola.core.rng import stream


def same(a, b):
    return (jax.random.key_data(a) == jax.random.key_data(b)).all()


def test_a_child_draws_from_its_own_stream(key):
    context = Context(mode=Mode.TRAIN, key=key)
    assert context.at("block").mode is Mode.TRAIN
    assert same(context.at("block").draw("dropout"), stream(stream(key, "block"), "dropout"))
    assert not same(context.at("block").draw("dropout"), context.at("head").draw("dropout"))


def test_a_layer_of_a_scan_is_a_child_by_its_index(key):
    context = Context(mode=Mode.TRAIN, key=key)
    first, second = jax.vmap(lambda i: jax.random.key_data(context.at(i).draw("dropout")))(jnp.arange(2))
    assert (first != second).any()
    assert (first == jax.random.key_data(context.at(jnp.asarray(0)).draw("dropout"))).all()


def test_without_a_key_nothing_is_drawn():
    assert Context().at("block") == Context()
    with pytest.raises(ConfigError, match="dropout draws random numbers, but the call has no key\nPass Context"):
        Context(mode=Mode.TRAIN).draw("dropout")


def test_the_mode_is_static_and_the_key_is_traced(key):
    assert jax.tree.leaves(Context(mode=Mode.TRAIN, key=key)) == [key]
    told = []
    jax.jit(lambda context: told.append(context.mode))(Context(mode=Mode.TRAIN, key=key))
    assert told == [Mode.TRAIN]


def test_what_is_said_aside_is_named_from_the_container():
    aside = Aside(losses={"balance": jnp.ones(())}, metrics={"load": jnp.zeros(())}, view=3).under("router")
    assert (list(aside.losses), list(aside.metrics), aside.view) == (["router.balance"], ["router.load"], 3)


def test_what_is_said_aside_is_a_tree():
    doubled = jax.tree.map(lambda x: 2 * x, Aside(losses={"a": jnp.ones(())}))
    assert doubled.losses["a"] == 2


def test_a_module_may_say_nothing_aside():
    x = jnp.ones(2)
    array, aside = split_aside(x)
    assert array is x
    assert aside == Aside()
    assert split_aside((x, Aside(view=1)))[1].view == 1


def test_two_modules_say_what_both_say():
    one = Aside(losses={"a": jnp.ones(())}, state={"mean": jnp.zeros(2)}, view=1).under("one")
    both = one | Aside(metrics={"b": jnp.ones(())}, state={"mean": jnp.ones(2)}).under("two")
    assert (list(both.losses), list(both.metrics), list(both.state)) == (
        ["one.a"],
        ["two.b"],
        ["one.mean", "two.mean"],
    )
    assert both.view is None
