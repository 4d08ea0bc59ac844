"""Gradients of a batch that is too large for memory, one part after another.

Invariant: value and gradient equal those of the whole batch, however unequally the weights (such as
trained tokens) fall on its parts.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from cupola.core.errors import ShapeError
from cupola.core.module import Tree

Summed = tuple[Array, tuple[Array, Tree, *tuple[Tree, ...]]]
"""(loss, (weight, metrics, *others)): of a batch, loss and metrics as sums over the weight."""
Graded = tuple[Summed, Tree]
"""(summed, gradient of its loss): what `jax.value_and_grad(..., has_aux=True)` returns."""


def accumulated(grad_function: Callable[[Tree, Int[Array, ""]], Graded], batch: Tree, micro_batches: int) -> Graded:
    """Returns ((mean loss, (weight, mean metrics, *others)), gradient of the mean loss) of the whole batch.

    Every part holds every `micro_batches`-th example, so a batch that is split over devices is cut
    into parts without moving an example between them. A batch of no weight gives zeros.

    Args:
        grad_function: from a part of the batch, and its number to draw random numbers from, to the
            same form with sums in place of means: ((sum of weighted losses, (sum of weights, weighted
            sums of metrics, *others)), gradient of the sum of weighted losses). Of the others, such as
            running statistics, the parts' mean is returned, whatever the weights, in their own dtypes.
        batch: a tree of arrays with equal leading dims.
        micro_batches: into how many parts it is cut.

    Raises:
        ShapeError: the examples do not divide into equal parts.
    """
    sizes = {len(leaf) for leaf in jax.tree.leaves(batch)}
    for size in sizes:
        if micro_batches < 1 or size % micro_batches:
            divisors = ", ".join(str(n) for n in range(1, size + 1) if size % n == 0)
            raise ShapeError(
                f"a batch of {size} does not divide into {micro_batches} equal parts",
                where="micro_batches",
                remedy=f"Use micro_batches={divisors}.",
            )

    def part(number: Int[Array, ""]) -> Tree:
        return jax.tree.map(lambda x: x.reshape(-1, micro_batches, *x.shape[1:])[:, number], batch)

    def add(sums: Tree, number: Int[Array, ""]) -> tuple[Tree, None]:
        return jax.tree.map(jnp.add, sums, grad_function(part(number), number)), None

    number = jnp.int32(0)
    if micro_batches == 1:
        (total, (weight, metrics, *others)), gradient = grad_function(batch, number)
    else:
        sums = jax.eval_shape(grad_function, part(number), number)
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32)), sums)
        (total, (weight, metrics, *others)), gradient = jax.lax.scan(add, nothing, jnp.arange(micro_batches))[0]
        _, (_, _, *forms) = sums[0]
        others = jax.tree.map(lambda x, form: (x / micro_batches).astype(form.dtype), others, forms)
    share = 1 / jnp.where(weight > 0, weight, 1)
    mean, means, gradient = jax.tree.map(lambda x: x * share, (total, metrics, gradient))
    return (mean, (weight, means, *others)), gradient
