"""Grouped-query attention: projections, positions, the view of keys and values, the mixture.

Not here: the mixture itself (`kernels/attention`), views (`kv.py`), angles (`position.py`).
Invariant: one call serves training, prefill and decoding; only the view differs.
Source: Vaswani et al. 2017; Ainslie et al. 2023 (our heads, key_heads = their H, G).
"""

import enum
from typing import Any, ClassVar

from jaxtyping import Array, Float, Int

from cupola.config.value import bound
from cupola.core.context import Aside
from cupola.core.errors import ConfigError
from cupola.core.module import Module, Tree
from cupola.core.param import FanIn, Initializer, Param
from cupola.kernels.attention import CAUSAL, Mask, attend
from cupola.kernels.matmul import dot
from cupola.layers.kv import Growing, View
from cupola.layers.linear import bias_of, biased, maps
from cupola.layers.norm import RMSNorm
from cupola.layers.position import Rope


class Bias(enum.Enum):
    """Which projections of attention add a learned vector."""

    NONE = ()
    INPUTS = ("query", "key", "value")
    NO_KEY = ("query", "value", "output")
    """A key's bias adds the same to all scores of a query, which changes no distribution."""
    ALL = ("query", "key", "value", "output")


class Attention(Module):
    """Attention of a sequence to itself, with key heads shared by groups of query heads.

    Args:
        width: of the residual stream.
        heads: query heads.
        key_heads: key and value heads; None means one for each query head.
        head_width: numbers in a head; None means width / heads.
        rope: rotary positions; None leaves order to the mask alone.
        query_norm: normalizes each query before it is turned; None leaves them as they are.
        key_norm: the same for keys.
        bias: which projections have one.
        mask: which keys a query sees, beside those of its own document.
        scale: multiplies scores; None means 1 / sqrt(head_width).
        init_output: draws the output projection.
    """

    width: int = bound("residual width")
    heads: int
    key_heads: int | None = None
    head_width: int | None = None
    rope: Rope | None = Rope()
    query_norm: RMSNorm | None = None
    key_norm: RMSNorm | None = None
    bias: Bias = Bias.NONE
    mask: Mask = CAUSAL
    scale: float | None = None
    init_output: Initializer = FanIn()
    beside: ClassVar[tuple[str, ...]] = ("query", "key", "value")

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
        weights = {
            "query": Param(query, "D H C"),
            "key": Param(key, "D K C"),
            "value": Param(key, "D K C"),
            "output": back,
        }
        return weights | {f"{name}_bias": bias_of(weights[name]) for name in self.bias.value}

    def __call__(
        self,
        p: Tree,
        x: Float[Array, "B T D"],
        *,
        positions: Int[Array, "#B T"],
        segments: Int[Array, "B T"] | None = None,
        view: View | None = None,
    ) -> tuple[Float[Array, "B T D"], Aside]:
        """Returns what each position gathers, and aside the view with this call's keys and values.

        Args:
            positions: of the tokens in their documents; with a view, where it is extended.
            segments: document of each token, 0 for padding; None means one document a row.
            view: keys and values of earlier calls; None means that there are none.
        """
        inputs = zip(self.beside, maps(x, p, self.beside_params(), self.precision), strict=True)
        query, key, value = (biased(p, name, out) for name, out in inputs)
        if self.query_norm is not None:
            query = self.query_norm(p["query_norm"], query)
        if self.key_norm is not None:
            key = self.key_norm(p["key_norm"], key)
        if self.rope is not None:
            query, key = self.rope(query, positions), self.rope(key, positions)
        how: dict[str, Any] = {"scale": self.scale, "precision": self.precision}
        if view is None:
            mixed = attend(query, key, value, mask=self.mask.within(segments, segments), **how)
        else:
            mixed, view = view.attend(query, key, value, positions=positions, mask=self.mask, **how)
        out = dot(mixed, p["output"], self.precision, contract=2)
        return biased(p, "output", out), Aside(view=view)

    def empty_view(self, batch: int, capacity: int) -> Growing:
        """Returns a view for `capacity` tokens a row that holds nothing yet."""
        return Growing.empty(batch, capacity, self.groups, self.head_size, self.precision.output)

    def flops(self, batch: int, length: int) -> int:
        """Returns the FLOPs of its projections and of the scores and mixtures that the mask shows."""
        seen = self.mask.count(length)
        return super().flops(batch, length) + 4 * batch * seen * self.heads * self.head_size
