import jax
import jax.numpy as jnp
import numpy as np
import plain
import pytest
from plain import normal

from cupola.core.context import Aside, Context, Mode
from cupola.core.dtype import FLOAT32
from cupola.core.errors import ConfigError
from cupola.core.module import Module, flat_specs
from cupola.core.param import Param
from cupola.kernels.attention import Mask
from cupola.layers.attention import Attention
from cupola.layers.block import Block
from cupola.layers.dropout import Dropout
from cupola.layers.feed_forward import GatedMLP
from cupola.layers.norm import RMSNorm
from cupola.layers.position import Rope
from cupola.layers.repeat import Form, Repeat, stacked, unstacked
from cupola.layers.stack import Stack, in_a_row

WIDTH, LENGTH = 8, 6
POSITIONS = jnp.arange(LENGTH)[None]


def block(**fields):
    return Block(
        attention=Attention(width=WIDTH, heads=2, rope=Rope(max_length=16), **fields),
        feed_forward=GatedMLP(width=WIDTH, hidden=12),
        attention_norm=RMSNorm(width=WIDTH),
        feed_forward_norm=RMSNorm(width=WIDTH),
    )


NEAR, FAR = block(mask=Mask(causal=True, window=2)), block(key_heads=1)


def made(blocks):
    return Stack(precision=FLOAT32, parts=in_a_row(blocks).parts)


@pytest.fixture(scope="module")
def stack():
    return made([NEAR, NEAR, FAR, NEAR])


@pytest.fixture(scope="module")
def p(stack):
    return stack.init(jax.random.key(1))


def by_hand(stack, p, x):
    layers = [layer for part in unstacked(stack, p)["parts"] for layer in part["block"]]
    for one, own in zip(stack.blocks, layers, strict=True):
        x, _ = one(own, x, positions=POSITIONS, context=Context())
    return x


def forward(stack, p, x, **given):
    given = {"positions": POSITIONS, "context": Context()} | given
    return jax.jit(lambda p, x, given: stack(p, x, **given))(p, x, given)


def test_equal_neighbours_are_one_part(stack):
    assert [part.layers for part in stack.parts] == [2, 1, 1]
    assert stack.layers == 4
    assert [held.attention.groups for held in stack.blocks] == [2, 2, 1, 2]
    assert isinstance(in_a_row([NEAR, NEAR]), Repeat)


def test_is_its_blocks_one_after_the_other(stack, p):
    x = normal(2, LENGTH, WIDTH)
    expected = by_hand(stack, p, x)
    for tree in (p, unstacked(stack, p)):
        out, aside = forward(stack, tree, x)
        assert plain.reordered(out, expected, terms=60)
        assert aside.view is None
    turned = made([NEAR, FAR, NEAR, NEAR])
    assert not plain.reordered(forward(turned, turned.init(jax.random.key(1)), x)[0], expected, terms=60)


def test_cutting_into_layers_and_back_changes_no_number(stack, p):
    cut = unstacked(stack, p)
    assert [len(part["block"]) for part in cut["parts"]] == [2, 1, 1]
    assert unstacked(stack, cut)["parts"][0]["block"] is cut["parts"][0]["block"]
    for tree in (stacked(stack, cut), stacked(stack, p)):
        jax.tree.map(np.testing.assert_array_equal, tree, p)


@pytest.mark.parametrize("cut", [False, True])
def test_its_view_is_one_flat_tuple_that_changes_no_number(stack, p, cut):
    x, tree = normal(2, LENGTH, WIDTH), unstacked(stack, p) if cut else p
    whole, _ = forward(stack, p, x)
    view, parts = stack.empty_view(2, 8), []
    assert [layer.keys.shape for layer in view] == [(2, 8, 2, 4), (2, 8, 2, 4), (2, 8, 1, 4), (2, 8, 2, 4)]
    for at in (slice(0, 4), slice(4, 6)):
        out, aside = forward(stack, tree, x[:, at], positions=POSITIONS[:, at], view=view)
        view = aside.view
        assert isinstance(view, tuple)
        assert len(view) == 4
        parts.append(out)
    assert np.abs(jnp.concatenate(parts, 1) - whole).max() < 1e-5


def test_a_repeat_takes_views_in_a_tuple_too(p):
    repeat = Repeat(precision=FLOAT32, layers=2, block=NEAR)
    tree, x = repeat.init(jax.random.key(2)), normal(2, LENGTH, WIDTH)
    assert repeat.form is Form.SCAN
    view = tuple(one.empty_view(2, 8) for one in repeat.blocks)
    out, aside = forward(repeat, tree, x, view=view)
    assert plain.reordered(out, forward(repeat, tree, x)[0], terms=60)
    assert isinstance(aside.view, tuple)


def test_costs_what_its_blocks_cost(stack, p):
    assert stack.count() == sum(one.count() for one in stack.blocks) == sum(x.size for x in jax.tree.leaves(p))
    assert stack.flops(2, 5) == sum(one.flops(2, 5) for one in stack.blocks)
    assert dict(flat_specs(stack.specs()))["parts.0.block.attention.query"].dims == "L D H C"


class Saying(Module):
    """Says its mean aside."""

    width: int = WIDTH

    def params(self):
        return {"bias": Param((self.width,), "D")}

    def __call__(self, p, x):
        return x + p["bias"][None, None], Aside(metrics={"mean": x.mean()}, losses={"size": x.max()})


def test_what_parts_say_is_told_apart():
    both = made([NEAR.replace("feed_forward", Saying()), FAR.replace("feed_forward", Saying())])
    _, said = forward(both, both.init(jax.random.key(0)), normal(2, LENGTH, WIDTH))
    assert list(said.metrics) == [f"parts.{i}.block.feed_forward.mean" for i in (0, 1)]
    assert list(said.losses) == [f"parts.{i}.block.feed_forward.size" for i in (0, 1)]


def test_parts_draw_apart():
    dropped = Dropout(rate=0.5)
    both = made([NEAR.replace("dropout", dropped), FAR.replace("dropout", dropped)])
    tree, x = both.init(jax.random.key(0)), normal(2, LENGTH, WIDTH)
    contexts = [Context(mode=Mode.TRAIN, key=jax.random.key(seed)) for seed in (0, 0, 1)]
    first, again, other = (forward(both, tree, x, context=context)[0] for context in contexts)
    assert (first == again).all()
    assert (first != other).any()


def test_a_stack_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="parts: a stack of no parts\nGive at least one Repeat."):
        Stack(precision=FLOAT32, parts=())
