"""A residual block: attention, then a feed-forward network, each normalized before it is applied.

Source: Xiong et al. 2020 (pre-norm); Gemma Team 2024 (Gemma 2), section 2 (norms on both sides).
"""

import dataclasses

from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from cupola.core.context import Aside, Context, split_aside
from cupola.core.module import Module, Tree
from cupola.layers.attention import Attention
from cupola.layers.dropout import Dropout
from cupola.layers.kv import Growing, View
from cupola.layers.norm import Norm, RMSNorm


class Block(Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)).

    Args:
        attention: mixes positions.
        feed_forward: any module that takes and gives [B, T, D]; it may say something aside.
        attention_norm, feed_forward_norm: applied to what each of them is given.
        attention_post_norm, feed_forward_post_norm: applied to what each of them gives, before it is
            added; None adds it as it is.
        dropout: applied to what each of them adds; None drops nothing.
    """

    attention: Attention
    feed_forward: Module
    attention_norm: Norm = RMSNorm()
    feed_forward_norm: Norm = RMSNorm()
    attention_post_norm: Norm | None = None
    feed_forward_post_norm: Norm | None = None
    dropout: Dropout | None = None

    def __call__(
        self,
        p: Tree,
        x: Float[Array, "B T D"],
        *,
        positions: Int[Array, "#B T"],
        segments: Int[Array, "B T"] | None = None,
        view: View | None = None,
        context: Context,
    ) -> tuple[Float[Array, "B T D"], Aside]:
        """Returns the residual stream after the block; arguments as in `Attention`."""
        normed = self.attention_norm(p["attention_norm"], x)
        mixed, said = self.attention(p["attention"], normed, positions=positions, segments=segments, view=view)
        if self.attention_post_norm is not None:
            mixed = self.attention_post_norm(p["attention_post_norm"], mixed)
        x = x + self._drop(checkpoint_name(mixed, "attention"), context.at("attention"))
        normed = self.feed_forward_norm(p["feed_forward_norm"], x)
        fed, also = split_aside(self.feed_forward(p["feed_forward"], normed))
        if self.feed_forward_post_norm is not None:
            fed = self.feed_forward_post_norm(p["feed_forward_post_norm"], fed)
        x = x + self._drop(checkpoint_name(fed, "feed_forward"), context.at("feed_forward"))
        also = also.under("feed_forward")
        return x, dataclasses.replace(also, view=said.view)

    def _drop(self, x: Float[Array, "B T D"], context: Context) -> Float[Array, "B T D"]:
        return x if self.dropout is None else self.dropout(x, context)

    def empty_view(self, batch: int, capacity: int) -> Growing:
        """Returns the attention's view that holds nothing yet."""
        return self.attention.empty_view(batch, capacity)
