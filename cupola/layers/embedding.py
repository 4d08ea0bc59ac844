"""Token embedding, and the head that gives logits: its own matrix, or the embedding's."""

from jaxtyping import Array, Float, Int

from cupola.config.value import bound
from cupola.core.module import Module, Tree
from cupola.core.param import FanIn, Initializer, Normal, Param, Role


class Embedding(Module):
    """A row of numbers for each token; the same table may serve as the head (a tied embedding).

    Args:
        vocabulary: number of rows.
        width: of a row.
        scale: multiplies each row that is looked up, and none that serves as head: Gemma's is sqrt(width).
        init_table: draws the table.
    """

    vocabulary: int = bound("number of tokens")
    width: int = bound("residual width")
    scale: float = 1.0
    init_table: Initializer = Normal(std=0.02)

    def params(self) -> dict[str, Param]:
        return {"table": Param((self.vocabulary, self.width), "V D", init=self.init_table, role=Role.INPUT)}

    def __call__(self, p: Tree, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Returns the row of each token, scaled: where the residual stream begins."""
        table = p["table"]
        found = table[tokens] if isinstance(table, Array) else table.column(tokens)
        found = found.astype(self.precision.accumulate)
        return found if self.scale == 1 else found * self.scale

    def flops(self, batch: int, length: int) -> int:
        """Returns 0: a look-up multiplies nothing."""
        return 0


class Head(Module):
    """A vocabulary's output matrix of its own: an untied embedding.

    The product with it belongs to the loss and to the sampler, which never hold all logits
    (`kernels/cross_entropy`).

    Args:
        vocabulary: number of rows.
        width: of a row.
        init_table: draws the table.
    """

    vocabulary: int = bound("number of tokens")
    width: int = bound("residual width")
    init_table: Initializer = FanIn()

    def params(self) -> dict[str, Param]:
        shape = (self.vocabulary, self.width)
        return {"table": Param(shape, "V D", init=self.init_table, role=Role.OUTPUT, inputs=-1)}
