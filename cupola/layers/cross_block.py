"""A residual block of a decoder that listens to an encoder: self-attention, cross-attention, feed-forward.

Source: Vaswani et al. 2017, section 3.1; Xiong et al. 2020 (pre-norm).
"""

import dataclasses
from typing import Any

from jaxtyping import Array, Float, Int

from cupola.core.context import Aside, Context, split_aside
from cupola.core.errors import ShapeError
from cupola.core.module import Module, Tree
from cupola.core.record import record
from cupola.layers.attention import Attention
from cupola.layers.cross_attention import CrossAttention, Memory
from cupola.layers.norm import Norm, RMSNorm


@record
class CrossView:
    """What a layer keeps between calls.

    Args:
        own: the view of earlier tokens; None means that there are none.
        memory: of the encoder's sequence.
    """

    own: Any
    memory: Memory


class CrossBlock(Module):
    """x + attention(norm(x)), then x + cross_attention(norm(x)), then x + feed_forward(norm(x)).

    Args:
        attention: mixes positions.
        cross_attention: gathers from the encoder's sequence.
        feed_forward: any module that takes and gives [B, T, D]; it may say something aside.
        attention_norm, cross_attention_norm, feed_forward_norm: applied to what each of them is given.
    """

    attention: Attention
    cross_attention: CrossAttention
    feed_forward: Module
    attention_norm: Norm = RMSNorm()
    cross_attention_norm: Norm = RMSNorm()
    feed_forward_norm: Norm = RMSNorm()

    def __call__(
        self,
        p: Tree,
        x: Float[Array, "N T D"],
        *,
        positions: Int[Array, "#N T"],
        encoded: Float[Array, "B S D"] | None = None,
        view: CrossView | None = None,
        context: Context,
    ) -> tuple[Float[Array, "N T D"], Aside]:
        """Returns the residual stream after the block.

        Args:
            positions: of the tokens; with a view, where it is extended.
            encoded: the encoder's sequence, where there is no view that holds its memory.
            view: what earlier calls kept.

        Raises:
            ShapeError: neither of the two is given, or both.
        """
        held = self._view(p, encoded, view)
        normed = self.attention_norm(p["attention_norm"], x)
        mixed, said = self.attention(p["attention"], normed, positions=positions, view=held.own)
        x = x + mixed
        normed = self.cross_attention_norm(p["cross_attention_norm"], x)
        x = x + self.cross_attention(p["cross_attention"], normed, held.memory)
        normed = self.feed_forward_norm(p["feed_forward_norm"], x)
        fed, also = split_aside(self.feed_forward(p["feed_forward"], normed))
        after = None if view is None else CrossView(own=said.view, memory=held.memory)
        return x + fed, dataclasses.replace(also.under("feed_forward"), view=after)

    def _view(self, p: Tree, encoded: Float[Array, "B S D"] | None, view: CrossView | None) -> CrossView:
        if view is not None and encoded is None:
            return view
        if view is None and encoded is not None:
            return CrossView(own=None, memory=self.cross_attention.remember(p["cross_attention"], encoded))
        raise ShapeError(
            "there is nothing to attend to" if view is None else "a view and an encoded sequence came together",
            where="cross_block",
            remedy="Pass encoded=, or view= which holds its memory.",
        )
