import jax
import jax.numpy as jnp
import numpy as np
import plain
import pytest
from plain import normal

from cupola.core.context import Aside, Context, Mode
from cupola.core.dtype import FLOAT32
from cupola.core.errors import ConfigError
from cupola.core.module import Module
from cupola.core.param import Constant, Param
from cupola.layers.attention import Attention
from cupola.layers.block import Block
from cupola.layers.dropout import Dropout
from cupola.layers.feed_forward import GatedMLP
from cupola.layers.norm import RMSNorm
from cupola.layers.position import Rope

AT = jnp.arange(5)[None]


def block(**fields):
    parts = {
        "attention": Attention(width=8, heads=2, rope=Rope(max_length=8)),
        "feed_forward": GatedMLP(width=8, hidden=6),
        "attention_norm": RMSNorm(width=8),
        "feed_forward_norm": RMSNorm(width=8, epsilon=1e-3),
    }
    return Block(**{"precision": FLOAT32} | parts | fields)


def test_adds_each_part_of_what_is_normed(key):
    whole, x = block(), normal(2, 5, 8)
    p = whole.init(key)
    out, aside = whole(p, x, positions=AT, context=Context())
    mixed, _ = whole.attention(p["attention"], whole.attention_norm(p["attention_norm"], x), positions=AT)
    middle = x + mixed
    fed = whole.feed_forward(p["feed_forward"], whole.feed_forward_norm(p["feed_forward_norm"], middle))
    assert plain.reordered(out, middle + fed, terms=2)
    assert aside == Aside()


class Saying(Module):
    """Adds a constant, and says a loss, a metric and a view that is none of attention's."""

    def params(self):
        return {"constant": Param((1,), "D", init=Constant(value=3.0))}

    def __call__(self, p, x):
        said = Aside(losses={"balance": jnp.ones(())}, metrics={"load": x.sum()}, view="its own")
        return 0 * x + p["constant"][None, None], said


def test_what_the_feed_forward_says_is_named_and_the_view_is_attentions(key):
    whole, x = block(feed_forward=Saying()), normal(2, 5, 8)
    view = whole.empty_view(2, 8)
    _, said = whole(whole.init(key), x, positions=AT, view=view, context=Context())
    assert (list(said.losses), list(said.metrics)) == (["feed_forward.balance"], ["feed_forward.load"])
    assert jax.tree.structure(said.view) == jax.tree.structure(view)
    assert said.view.keys[:, :5].any()
    assert not said.view.keys[:, 5:].any()


def test_dropout_falls_on_what_each_part_adds(key):
    x = normal(2, 5, 8)
    whole = block(dropout=Dropout(rate=0.5), feed_forward=Saying())
    p = whole.init(key)
    train, evaluate = Context(mode=Mode.TRAIN, key=key), Context(key=key)
    added, full = (whole(p, x, positions=AT, context=context)[0] - x for context in (train, evaluate))
    mixed = full - 3
    # Each part stays, doubled, or goes: four sums are possible.
    possible = jnp.stack([a * mixed + b * 3 for a in (0, 2) for b in (0, 2)])
    nearest = abs(possible - added[None]).min(0)
    assert nearest.max() < 1e-5
    assert len(set(abs(possible - added[None]).argmin(0).flatten().tolist())) == 4
    with pytest.raises(ConfigError, match="the call has no key"):
        whole(p, x, positions=AT, context=Context(mode=Mode.TRAIN))


def test_norms_behind_each_part_stand_before_the_sum(key):
    post = RMSNorm(width=8, epsilon=1e-2, offset=1.0)
    whole, x = block(attention_post_norm=post, feed_forward_post_norm=post), normal(2, 5, 8)
    p = whole.init(key)
    p["attention_post_norm"]["scale"] = normal(8, seed=3)
    p["feed_forward_post_norm"]["scale"] = normal(8, seed=4)
    out, _ = whole(p, x, positions=AT, context=Context())

    def normed(y, name):
        return plain.rms_norm(np.asarray(y), np.asarray(p[name]["scale"]), post)

    mixed, _ = whole.attention(p["attention"], whole.attention_norm(p["attention_norm"], x), positions=AT)
    middle = x + normed(mixed, "attention_post_norm")
    fed = whole.feed_forward(p["feed_forward"], whole.feed_forward_norm(p["feed_forward_norm"], middle))
    assert plain.reordered(out, middle + normed(fed, "feed_forward_post_norm"), terms=8)
    assert not plain.reordered(out, middle + fed, terms=8)
