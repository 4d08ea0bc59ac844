import jax
import jax.numpy as jnp
import numpy as np
import plain
import pytest
from jax.extend import core
from plain import normal

from cupola.core.context import Aside, Context, Mode
from cupola.core.dtype import FLOAT32
from cupola.core.module import Module, flat_specs
from cupola.core.param import Param
from cupola.layers.attention import Attention
from cupola.layers.block import Block
from cupola.layers.dropout import Dropout
from cupola.layers.feed_forward import GatedMLP
from cupola.layers.norm import RMSNorm
from cupola.layers.position import Rope
from cupola.layers.repeat import Form, Remat, Repeat, unstack

WIDTH, LENGTH, LAYERS = 8, 5, 3
NORM = RMSNorm(width=WIDTH)
BLOCK = Block(
    attention=Attention(width=WIDTH, heads=2, rope=Rope(max_length=16)),
    feed_forward=GatedMLP(width=WIDTH, hidden=12),
    attention_norm=NORM,
    feed_forward_norm=NORM,
)
POSITIONS = jnp.arange(LENGTH)[None]
SEGMENTS = jnp.asarray([[1, 1, 2, 2, 0], [1] * 5])
SUMMED = 2 * LENGTH * LAYERS  # terms of the longest sum: what every token gives a weight, through every layer


def stack(form=Form.SCAN, remat=Remat.EVERYTHING, block=BLOCK):
    return Repeat(precision=FLOAT32, layers=LAYERS, block=block, form=form, remat=remat)


def by_hand(p, x):
    block = stack().block
    for index in range(LAYERS):
        own = jax.tree.map(lambda leaf, i=index: leaf[i], p["block"])
        x, _ = block(own, x, positions=POSITIONS, segments=SEGMENTS, context=Context())
    return x


def forward(stack):
    return lambda p, x: stack(p, x, positions=POSITIONS, segments=SEGMENTS, context=Context())[0]


def pulled(call, p, x):
    def loss(p, x):
        out = call(p, x)
        return (out**2).sum() / 2, out

    grads, out = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(p, x)
    return out, grads


@pytest.fixture(scope="module")
def p():
    return stack().init(jax.random.key(1))


@pytest.fixture(scope="module")
def expected(p):
    return pulled(by_hand, p, normal(2, LENGTH, WIDTH))


@pytest.mark.parametrize(
    ("form", "remat"),
    [(Form.SCAN, remat) for remat in Remat] + [(Form.UNROLL, Remat.EVERYTHING), (Form.UNROLL, Remat.BRANCHES)],
    ids=lambda value: value.value,
)
def test_every_form_is_the_loop_by_hand(form, remat, p, expected):
    assert plain.reordered(pulled(forward(stack(form, remat)), p, normal(2, LENGTH, WIDTH)), expected, SUMMED)


def test_one_layer_more_or_another_order_is_not_the_loop_by_hand(p, expected):
    turned = jax.tree.map(lambda leaf: leaf[::-1], p)
    assert not plain.reordered(pulled(by_hand, turned, normal(2, LENGTH, WIDTH))[0], expected[0], SUMMED)


def products(jaxpr):
    """Returns how many products the equations make, those inside others too; a scan's body once."""
    inner = [
        j
        for eqn in jaxpr.eqns
        for j in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns"))
        if hasattr(j, "eqns")
    ]
    own = sum(eqn.primitive.name == "dot_general" for eqn in jaxpr.eqns)
    return own + sum(products(j.jaxpr if isinstance(j, core.ClosedJaxpr) else j) for j in inner)


def test_rematerialization_computes_again_what_it_does_not_keep(p):
    x = normal(2, LENGTH, WIDTH)
    counts = {}
    for remat in Remat:
        call = forward(stack(Form.SCAN, remat))
        counts[remat] = products(jax.make_jaxpr(jax.grad(lambda p, x, call=call: call(p, x).sum()))(p, x).jaxpr)
    assert counts[Remat.NOTHING] > counts[Remat.EVERYTHING]
    assert counts[Remat.NOTHING] >= counts[Remat.BRANCHES]
    assert counts[Remat.NOTHING] >= counts[Remat.DOTS]


def test_specs_are_the_blocks_with_layers_in_front():
    one = dict(flat_specs(stack().block.specs()))
    for path, param in flat_specs(stack().specs()):
        alone = one[path.removeprefix("block.")]
        assert (param.shape, param.dims) == ((LAYERS, *alone.shape), f"L {alone.dims}")
        assert (param.fan_in, param.fan_out, param.is_matrix) == (alone.fan_in, alone.fan_out, alone.is_matrix)
    assert stack().count() == LAYERS * stack().block.count()
    assert stack().flops(2, 5) == LAYERS * stack().block.flops(2, 5)


def test_layers_begin_apart(p):
    gates = p["block"]["feed_forward"]["gate"]
    assert (gates[0] != gates[1]).all()
    assert np.std(gates) == pytest.approx(WIDTH**-0.5, rel=0.15)


def test_unstacking_takes_apart_and_its_gradient_puts_together(p):
    parts = unstack(p["block"], LAYERS)
    assert len(parts) == LAYERS
    together = jax.tree.map(lambda *each: jnp.stack(each), *parts)
    jax.tree.map(np.testing.assert_array_equal, together, p["block"])
    grads = jax.grad(lambda w: sum(i * part.sum() for i, part in enumerate(unstack(w, LAYERS))))(jnp.ones((LAYERS, 2)))
    np.testing.assert_array_equal(grads, [[0, 0], [1, 1], [2, 2]])


@pytest.mark.parametrize("form", Form)
def test_each_layer_has_its_view(form, p):
    repeat, x = stack(form), normal(2, LENGTH, WIDTH)
    whole, _ = jax.jit(lambda p, x: repeat(p, x, positions=POSITIONS, context=Context()))(p, x)
    view, parts = repeat.empty_view(2, 8), []
    step = jax.jit(lambda p, x, at, view: repeat(p, x, positions=at, view=view, context=Context()))
    for at in range(LENGTH):
        out, said = step(p, x[:, at : at + 1], jnp.asarray([[at]]), view)
        assert jax.tree.structure(said.view) == jax.tree.structure(view)
        view = said.view
        parts.append(out)
    assert np.abs(jnp.concatenate(parts, 1) - whole).max() < 1e-5


class Saying(Module):
    """A feed-forward network that says a loss and a metric."""

    width: int

    def params(self):
        return {"scale": Param((self.width,), "D")}

    def __call__(self, p, x):
        return x * p["scale"][None, None], Aside(losses={"balance": x.mean()}, metrics={"load": (x**2).sum((0, 1))})


@pytest.mark.parametrize("form", Form)
def test_what_blocks_say_aside_comes_stacked(form):
    repeat = stack(form, block=BLOCK.replace("feed_forward", Saying(width=WIDTH)))
    _, said = repeat(repeat.init(jax.random.key(0)), normal(2, LENGTH, WIDTH), positions=POSITIONS, context=Context())
    assert {name: x.shape for name, x in said.losses.items()} == {"block.feed_forward.balance": (LAYERS,)}
    assert {name: x.shape for name, x in said.metrics.items()} == {"block.feed_forward.load": (LAYERS, WIDTH)}
    assert len(set(said.losses["block.feed_forward.balance"].tolist())) == LAYERS
    assert said.view is None


def test_scanned_and_unrolled_layers_drop_the_same_numbers(p):
    train = Context(mode=Mode.TRAIN, key=jax.random.key(3))
    x = normal(2, LENGTH, WIDTH)

    def dropped(form, context):
        repeat = stack(form, block=BLOCK.replace("dropout", Dropout(rate=0.5)))
        return jax.jit(lambda p, x: repeat(p, x, positions=POSITIONS, context=context))(p, x)[0]

    assert plain.reordered(dropped(Form.SCAN, train), dropped(Form.UNROLL, train), SUMMED)
    assert not plain.reordered(dropped(Form.SCAN, train), dropped(Form.SCAN, Context()), SUMMED)
