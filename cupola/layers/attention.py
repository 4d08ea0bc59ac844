"""Grouped-query attention: projections, positions, the view of keys and values, the mixture.

Not here: the mixture itself (`kernels/attention`), views (`kv.py`), angles (`position.py`).
Invariant: one call serves training, prefill and decoding; only the view differs.
Source: Vaswani et al. 2017; Ainslie et al. 2023 (our heads, key_heads = their H, G).
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cupola.config.value import bound
from cupola.core.context import Aside
from cupola.core.errors import ConfigError
from cupola.core.module import Module, Tree
from cupola.core.param import FanIn, Initializer, Param
from cupola.kernels.attention import CAUSAL, Mask, attend
from cupola.kernels.matmul import dot
from cupola.layers.kv import Growing
from cupola.layers.norm import RMSNorm
from cupola.layers.position import Rope


class Attention(Module):
    """Attention of a sequence to itself, with key heads shared by groups of query heads.

    Args:
        width: of the residual stream.
        heads: query heads.
        key_heads: key and value heads; None means one for each query head.
        head_width: numbers in a head; None means width / heads.
        rope: rotary positions; None leaves order to the mask alone.
        qk_norm: normalizes each query and key before they are turned; None leaves them as they are.
        mask: which keys a query sees, beside those of its own document.
        scale: multiplies scores; None means 1 / sqrt(head_width).
        init_output: draws the output projection.
    """

    width: int = bound("residual width")
    heads: int
    key_heads: int | None = None
    head_width: int | None = None
    rope: Rope | None = Rope()
    qk_norm: RMSNorm | None = None
    mask: Mask = CAUSAL
    scale: float | None = None
    init_output: Initializer = FanIn()

    @property
    def groups(self) -> int:
        """Number of key and value heads."""
        return self.key_heads or self.heads

    @property
    def head_size(self) -> int:
        """Numbers in a head."""
        return self.head_width or self.width // self.heads

    def shares(self) -> dict[str, Any]:
        """Returns its fields, except that inside it the width is that of a head."""
        return super().shares() | {"width": self.head_size, "head_width": self.head_size}

    def check(self) -> None:
        if self.head_width is None and self.width % self.heads:
            fit = [str(n) for n in range(1, self.width + 1) if self.width % n == 0 and self.width // n % 2 == 0]
            near = sorted(fit, key=lambda n: abs(int(n) - self.heads))[:3]
            raise ConfigError(
                f"heads={self.heads} does not divide width={self.width}",
                remedy=f"Use heads={' or '.join(sorted(near, key=int))}, or give head_width.",
            )
        if self.heads % self.groups:
            fit = [str(n) for n in range(1, self.heads + 1) if self.heads % n == 0]
            raise ConfigError(
                f"key_heads={self.groups} does not divide heads={self.heads}",
                remedy=f"Each key head serves the same number of query heads. Use key_heads={', '.join(fit)}.",
            )

    def params(self) -> dict[str, Param]:
        query, key = (self.width, self.heads, self.head_size), (self.width, self.groups, self.head_size)
        back = Param((self.heads, self.head_size, self.width), "H C D", init=self.init_output, inputs=2)
        return {
            "query": Param(query, "D H C"),
            "key": Param(key, "D K C"),
            "value": Param(key, "D K C"),
            "output": back,
        }

    def __call__(
        self,
        p: Tree,
        x: Float[Array, "B T D"],
        *,
        positions: Int[Array, "#B T"],
        segments: Int[Array, "B T"] | None = None,
        view: Growing | None = None,
    ) -> tuple[Float[Array, "B T D"], Aside]:
        """Returns what each position gathers, and aside the view with this call's keys and values.

        Args:
            positions: of the tokens in their documents; with a view, where it is extended.
            segments: document of each token, 0 for padding; None means one document a row.
            view: keys and values of earlier calls; None means that there are none.
        """
        query, key, value = (dot(x, p[name], self.precision) for name in ("query", "key", "value"))
        if self.qk_norm is not None:
            query, key = self.qk_norm(p["qk_norm"], query), self.qk_norm(p["qk_norm"], key)
        if self.rope is not None:
            query, key = self.rope(query, positions), self.rope(key, positions)
        mask = self.mask.within(segments, segments)
        if view is not None:
            start = jnp.broadcast_to(positions[:, 0], x.shape[:1])
            view = view.extend(key, value, start)
            key, value, mask = view.keys, view.values, self.mask.starting(start)
        mixed = attend(query, key, value, mask=mask, scale=self.scale, precision=self.precision)
        return dot(mixed, p["output"], self.precision, contract=2), Aside(view=view)

    def empty_view(self, batch: int, capacity: int) -> Growing:
        """Returns a view for `capacity` tokens a row that holds nothing yet."""
        return Growing.empty(batch, capacity, self.groups, self.head_size, self.precision.output)

    def flops(self, batch: int, length: int) -> int:
        """Returns the FLOPs of its projections and of the scores and mixtures that the mask shows."""
        seen = self.mask.count(length)
        return super().flops(batch, length) + 4 * batch * seen * self.heads * self.head_size
