"""Attention of one sequence to another: a decoder's to what an encoder has made.

Not here: attention of a sequence to itself (`attention.py`), the mixture (`kernels/attention`).
Invariant: keys and values depend on the other sequence alone, so they are computed once for it.
Source: Vaswani et al. 2017, section 3.2.3.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cupola.config.value import bound
from cupola.core.errors import ConfigError, ShapeError
from cupola.core.module import Module, Tree
from cupola.core.param import FanIn, Initializer, Param
from cupola.core.record import record
from cupola.kernels.attention import Mask, attend
from cupola.kernels.matmul import dot
from cupola.layers.attention import Bias
from cupola.layers.linear import bias_of, biased


@record
class Memory:
    """Keys and values of a sequence that is attended to.

    Args:
        keys: one a position.
        values: the same.
        segments: 1 for each position, 0 for padding; None means that there is none.
    """

    keys: Float[Array, "B S H C"]
    values: Float[Array, "B S H C"]
    segments: Int[Array, "B S"] | None = None


class CrossAttention(Module):
    """Attention to a memory.

    Args:
        width: of the residual stream.
        memory_width: of the other sequence; None means the same.
        heads: of queries, keys and values.
        bias: which projections have one.
        init_output: draws the output projection.
    """

    width: int = bound("residual width")
    memory_width: int | None = None
    heads: int
    bias: Bias = Bias.NONE
    init_output: Initializer = FanIn()

    @property
    def head_size(self) -> int:
        """Numbers in a head."""
        return self.width // self.heads

    def check(self) -> None:
        if self.width % self.heads:
            fit = ", ".join(str(n) for n in range(1, self.width + 1) if self.width % n == 0)
            raise ConfigError(f"heads={self.heads} does not divide width={self.width}", remedy=f"Use one of {fit}.")

    def params(self) -> dict[str, Param]:
        inner = Param((self.memory_width or self.width, self.heads, self.head_size), "D H C")
        back = Param((self.heads, self.head_size, self.width), "H C D", init=self.init_output, inputs=2)
        query = Param((self.width, self.heads, self.head_size), "D H C")
        weights = {"query": query, "key": inner, "value": inner, "output": back}
        return weights | {f"{name}_bias": bias_of(weights[name]) for name in self.bias.value}

    def remember(self, p: Tree, states: Float[Array, "B S D"], segments: Int[Array, "B S"] | None = None) -> Memory:
        """Returns the memory of a sequence; arguments as in `Memory`."""
        keys, values = (biased(p, name, dot(states, p[name], self.precision)) for name in ("key", "value"))
        return Memory(keys=keys, values=values, segments=segments)

    def __call__(self, p: Tree, x: Float[Array, "N T D"], memory: Memory) -> Float[Array, "N T D"]:
        """Returns what each position gathers from the memory of its row.

        Several rows may share a memory, such as the beams of a search: they stand next to each other.

        Raises:
            ShapeError: there are not as many rows to each memory.
        """
        rows, length, memories = len(x), x.shape[1], len(memory.keys)
        if rows % memories:
            raise ShapeError(
                f"{rows} rows do not share {memories} memories evenly",
                where="cross_attention",
                remedy=f"Pass a multiple of {memories} rows.",
            )
        query = biased(p, "query", dot(x, p["query"], self.precision))
        query = query.reshape(memories, -1, *query.shape[2:])
        mask = Mask()
        if memory.segments is not None:
            mask = mask.within(jnp.ones(query.shape[:2], jnp.int32), memory.segments)
        mixed = attend(query, memory.keys, memory.values, mask=mask, precision=self.precision)
        mixed = mixed.reshape(rows, length, *mixed.shape[2:])
        return biased(p, "output", dot(mixed, p["output"], self.precision, contract=2))

    def flops(self, batch: int, length: int) -> int:
        """Returns the FLOPs of its queries and outputs; those of a memory depend on its length, and come once."""
        return 4 * batch * length * self.width * self.heads * self.head_size
