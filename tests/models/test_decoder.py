import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.config import text
from cupola.core.context import Aside
from cupola.core.dtype import BFLOAT16
from cupola.core.errors import ConfigError, ShapeError
from cupola.core.module import Module
from cupola.core.param import Param
from cupola.kernels.attention import Mask
from cupola.kernels.attention import reference as attention
from cupola.kernels.attention.api import ATTEND
from cupola.kernels.choose import Operation
from cupola.kernels.cross_entropy import Objective
from cupola.kernels.matmul import dot
from cupola.layers.attention import Attention
from cupola.layers.feed_forward import GatedMLP
from cupola.layers.norm import RMSNorm
from cupola.layers.repeat import Form, Remat

EPS = float(np.finfo(np.float32).eps)
TOKENS = jnp.asarray([[1, 4, 9, 2, 2, 7], [3, 3, 10, 0, 8, 5]])
TARGETS = jnp.asarray([[4, 9, 2, 2, 7, 1], [3, 10, 0, 8, 5, 6]])
WEIGHTS = jnp.asarray([[1.0, 1, 0, 1, 0, 1], [1, 0, 0, 1, 1, 1]])


@pytest.fixture(scope="module")
def states(model, p):
    return jax.jit(lambda p: model(p, TOKENS).states)(p)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("normed", [False, True])
def test_its_parameters_are_counted(model, tied, normed):
    d, h, k, c, f, v, layers = 8, 4, 2, 2, 12, 11, 2
    model = model.replace("head", None) if tied else model
    model = model.replace("stack.block.attention.query_norm", RMSNorm()) if normed else model
    block = 2 * d * h * c + 2 * d * k * c + 3 * d * f + 2 * d + (c if normed else 0)
    assert model.count() == (1 if tied else 2) * v * d + layers * block + d
    held = jax.tree.leaves(model.init(jax.random.key(0)))
    assert sum(x.size for x in held) == model.count()


def products(jaxpr, times=1):
    """Yields (FLOPs, times) of every product of matrices, a scan's body as often as it runs."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            ((summed, _), _), operand = eqn.params["dimension_numbers"], eqn.invars[0].aval.shape
            yield times * 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(operand[i] for i in summed)
        again = times * eqn.params["length"] if eqn.primitive.name == "scan" else times
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            if hasattr(inner, "eqns"):
                yield from products(getattr(inner, "jaxpr", inner), again)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("mask", [Mask(), Mask(causal=True), Mask(causal=True, window=2)], ids=str)
def test_its_flops_are_those_of_the_products_made(model, p, tied, mask, monkeypatch):
    """Counted in what is traced; attention computes hidden pairs too, which do not count."""
    model = model.replace("head", None) if tied else model
    model = model.replace("stack.block.attention.mask", mask)
    only = tuple(i for i in ATTEND.implementations if i.name == "reference")
    monkeypatch.setattr("cupola.kernels.attention.api.ATTEND", Operation("attend", only))
    traced = jax.make_jaxpr(lambda p: model.logits(p, model(p, TOKENS).states))(model.abstract())
    batch, length = TOKENS.shape
    pairs = length * length - int(mask.visible(length, length).sum()) if mask.causal else 0
    hidden = model.stack.layers * 4 * batch * pairs * 4 * 2
    assert model.flops(batch, length) == sum(products(traced.jaxpr)) - hidden
    assert only[0].function is attention.attend


def test_loss_and_logits_are_the_log_probs(model, p, states):
    log_probs = model.log_probs(p, states, TARGETS)
    from_logits = jnp.take_along_axis(jax.nn.log_softmax(model.logits(p, states)), TARGETS[..., None], -1)[..., 0]
    terms = model.width + model.vocabulary  # summed in a logit and in its normalizer
    assert np.abs(log_probs - from_logits).max() <= terms * EPS * np.abs(log_probs).max()
    loss = model.loss(p, states, TARGETS, WEIGHTS)
    mean = -(WEIGHTS * log_probs).sum() / WEIGHTS.sum()
    assert abs(loss / WEIGHTS.sum() - mean) <= WEIGHTS.size * EPS * abs(mean)
    assert (log_probs < 0).all()


@partial(jax.jit, static_argnums=0)
@partial(jax.value_and_grad, argnums=1)
def trained(model, p, targets, weights):
    """Returns the loss and its gradient for the parameters."""
    return model.loss(p, model(p, TOKENS).states, targets, weights)


def same_bits(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a, b))


@pytest.mark.parametrize("policy", ["float32", "bfloat16"])
def test_an_untrained_token_may_have_any_target(model, p, policy):
    model = model.replace("precision", BFLOAT16) if policy == "bfloat16" else model
    before = trained(model, p, TARGETS, WEIGHTS)
    for other in (jnp.full_like(TARGETS, 5), jnp.full_like(TARGETS, -1), jnp.full_like(TARGETS, 10**6)):
        assert same_bits(before, trained(model, p, jnp.where(WEIGHTS == 0, other, TARGETS), WEIGHTS))
    # The control: a trained token's target matters.
    assert not same_bits(before, trained(model, p, TARGETS.at[0, 0].set(5), WEIGHTS))


def test_a_tied_head_is_the_embedding(model, p):
    tied = model.replace("head", None)
    assert tied.output_table(p) is p["embedding"]["table"]
    assert model.output_table(p) is p["head"]["table"]
    own = {name: tree for name, tree in p.items() if name != "head"}
    _, grads = trained(tied, own, TARGETS, WEIGHTS)
    unseen = 6  # no row of the batch, so only the head's part of the gradient reaches it
    assert not (unseen == TOKENS).any()
    assert grads["embedding"]["table"][unseen].any()
    _, apart = trained(model, p, TARGETS, WEIGHTS)
    assert not apart["embedding"]["table"][unseen].any()


def test_a_soft_cap_holds_wherever_logits_are_made(model, p, states):
    soft = model.replace("soft_cap", 0.5)
    logits = soft.logits(p, states)
    np.testing.assert_array_equal(logits, 0.5 * jnp.tanh(model.logits(p, states) / 0.5))
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), TARGETS[..., None], -1)[..., 0]
    terms = model.width + model.vocabulary
    assert np.abs(soft.log_probs(p, states, TARGETS) - picked).max() <= terms * EPS * np.abs(picked).max()
    loss = soft.loss(p, states, TARGETS, WEIGHTS)
    assert abs(loss + (WEIGHTS * picked).sum()) <= WEIGHTS.size * terms * EPS * abs(loss)
    # The control: without a cap it is another loss.
    assert abs(loss - model.loss(p, states, TARGETS, WEIGHTS)) > WEIGHTS.size * terms * EPS * abs(loss)


def test_an_objective_of_another_cap_is_refused(model, p, states):
    with pytest.raises(ConfigError, match="not the model's soft cap"):
        model.loss(p, states, TARGETS, WEIGHTS, Objective(soft_cap=1.0))


class Squared(Module):
    """Another feed-forward network: one product, squared, and something said aside."""

    width: int
    hidden: int

    def params(self):
        return {"in": Param((self.width, self.hidden), "D F"), "out": Param((self.hidden, self.width), "F D")}

    def __call__(self, p, x):
        inner = dot(x, p["in"], self.precision) ** 2
        return dot(inner, p["out"], self.precision), Aside(metrics={"size": inner.mean()}, losses={"z": inner.max()})


@pytest.mark.parametrize("form", Form)
def test_another_feed_forward_takes_one_line(model, form):
    other = model.replace("stack.form", form).swap(GatedMLP, lambda mlp: Squared(width=mlp.width, hidden=mlp.hidden))
    assert model.count() - other.count() == 2 * 8 * 12
    p = other.init(jax.random.key(0))
    said = jax.jit(lambda p: other(p, TOKENS).aside)(p)
    assert {name: x.shape for name, x in said.metrics.items()} == {"stack.block.feed_forward.size": (2,)}
    assert {name: x.shape for name, x in said.losses.items()} == {"stack.block.feed_forward.z": (2,)}
    loss, grads = trained(other, p, TARGETS, WEIGHTS)
    assert jnp.isfinite(loss)
    assert all(leaf.any() for leaf in jax.tree.leaves(grads))


def test_its_text_rebuilds_it(model):
    rich = (
        model.replace("stack.block.attention.mask", Mask(causal=True, window=4))
        .replace("stack.block.attention.key_norm", RMSNorm(epsilon=1e-5, offset=1.0))
        .replace("stack.remat", Remat.DOTS)
        .replace("precision", BFLOAT16)
    )
    for one in (model, rich):
        again = text.parse(text.show(one))
        assert again == one
        assert hash(again) == hash(one)
        assert text.show(again) == text.show(one)
    assert text.show(rich) != text.show(model)


def test_packed_documents_are_each_their_own(model, p):
    segments = jnp.asarray([[1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 0, 0]])
    positions = jnp.asarray([[0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 0, 0]])
    packed = model(p, TOKENS, positions=positions, segments=segments).states
    for row, part in ((0, slice(0, 3)), (0, slice(3, 6)), (1, slice(0, 4))):
        alone = model(p, TOKENS[row : row + 1, part]).states
        assert np.abs(packed[row : row + 1, part] - alone).max() < 1e-5
    whole = model(p, TOKENS, positions=positions).states
    assert np.abs(whole[0, 3:] - packed[0, 3:]).max() > 1e-3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m, p: m(p, jnp.zeros((1, 17), int)),
            "model: 17 tokens a row are more than max_length=16\n"
            "Pass at most 16, or build the model with max_length=17.",
        ),
        (
            lambda m, p: m(p, TOKENS, view=m.empty_view(2, 16)),
            "model: a view came without positions\nPass positions=: where the new tokens stand.",
        ),
        (
            lambda m, p: m.empty_view(1, 17),
            "model: a view of 17 tokens is more than max_length=16\nAsk for at most 16 tokens, prompt included.",
        ),
    ],
)
def test_what_it_cannot_place_is_refused(model, p, call, message):
    with pytest.raises(ShapeError) as caught:
        call(model, p)
    assert str(caught.value) == message


def test_a_width_belongs_to_the_decoder(model):
    wide = model.replace("width", 16)
    assert {a.width for _, a in wide.walk() if isinstance(a, Attention | GatedMLP)} == {16}
    assert wide.stack.block.attention.rope.head_width == 4
    assert wide.stack.block.attention.rope.max_length == 16
