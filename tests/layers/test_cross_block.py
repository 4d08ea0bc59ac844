import jax.numpy as jnp
import plain
import pytest
from plain import normal

from cupola.core.context import Context
from cupola.core.dtype import FLOAT32
from cupola.core.errors import ShapeError
from cupola.layers.attention import Attention
from cupola.layers.cross_attention import CrossAttention
from cupola.layers.cross_block import CrossBlock, CrossView
from cupola.layers.feed_forward import MLP

WIDTH = 8
BLOCK = CrossBlock(
    attention=Attention(heads=2, rope=None, width=WIDTH, precision=FLOAT32),
    cross_attention=CrossAttention(heads=2, width=WIDTH, precision=FLOAT32),
    feed_forward=MLP(hidden=12, width=WIDTH, precision=FLOAT32),
)
for name in ("attention_norm", "cross_attention_norm", "feed_forward_norm"):
    BLOCK = BLOCK.replace(f"{name}.width", WIDTH).replace(f"{name}.precision", FLOAT32)
BLOCK = BLOCK.replace("precision", FLOAT32)


def run(p, x, positions, **given):
    return BLOCK(p, x, positions=positions, context=Context(), **given)


def test_by_parts_is_the_whole(key):
    p, x, encoded = BLOCK.init(key), normal(2, 5, WIDTH), normal(2, 3, WIDTH, seed=1)
    whole, said = run(p, x, jnp.arange(5)[None], encoded=encoded)
    assert said.view is None
    memory = BLOCK.cross_attention.remember(p["cross_attention"], encoded)
    view = CrossView(own=BLOCK.attention.empty_view(2, 5), memory=memory)
    first, said = run(p, x[:, :3], jnp.arange(3)[None], view=view)
    second, said = run(p, x[:, 3:], jnp.arange(3, 5)[None], view=said.view)
    assert plain.reordered(jnp.concatenate([first, second], axis=1), whole, terms=WIDTH)
    # The control: what is heard counts.
    other, _ = run(p, x, jnp.arange(5)[None], encoded=-encoded)
    assert not plain.reordered(other, whole, terms=WIDTH)


def test_it_needs_one_of_the_two(key):
    p, x = BLOCK.init(key), normal(2, 5, WIDTH)
    with pytest.raises(ShapeError, match="nothing to attend to"):
        run(p, x, jnp.arange(5)[None])
    memory = BLOCK.cross_attention.remember(p["cross_attention"], x)
    with pytest.raises(ShapeError, match="came together"):
        run(p, x, jnp.arange(5)[None], encoded=x, view=CrossView(own=None, memory=memory))
