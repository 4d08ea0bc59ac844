"""Every operation there is, and the calls by which each is measured and explained.

Not here: how one is chosen (`choose.py`). Invariant: what is missing here is seen by no test of all operations and by
no `cupola kernels`, so a test looks for operations that are.
"""

from cupola.config.suggest import did_you_mean
from cupola.core.errors import Unsupported
from cupola.kernels.adamw import examples as adamw
from cupola.kernels.attention import examples as attention
from cupola.kernels.choose import Operation
from cupola.kernels.cross_entropy import examples as cross_entropy
from cupola.kernels.divergence import examples as divergence
from cupola.kernels.embedding import examples as embedding
from cupola.kernels.example import Example
from cupola.kernels.gated import examples as gated
from cupola.kernels.lstm import examples as lstm
from cupola.kernels.matmul import examples as matmul
from cupola.kernels.norm import examples as norm
from cupola.kernels.paged import examples as paged
from cupola.kernels.rotary import examples as rotary
from cupola.kernels.sample import examples as sample

EXAMPLES: tuple[Example, ...] = (
    *matmul.EXAMPLES,
    *attention.EXAMPLES,
    *paged.EXAMPLES,
    *norm.EXAMPLES,
    *rotary.EXAMPLES,
    *gated.EXAMPLES,
    *cross_entropy.EXAMPLES,
    *adamw.EXAMPLES,
    *sample.EXAMPLES,
    *divergence.EXAMPLES,
    *embedding.EXAMPLES,
    *lstm.EXAMPLES,
)
OPERATIONS: dict[str, Operation] = {example.operation.name: example.operation for example in EXAMPLES}


def examples_of(name: str) -> tuple[Example, ...]:
    """Returns the examples of an operation.

    Raises:
        Unsupported: there is no such operation.
    """
    if name not in OPERATIONS:
        raise Unsupported(f"there is no operation {name!r}", remedy=did_you_mean(name, list(OPERATIONS)))
    return tuple(example for example in EXAMPLES if example.operation.name == name)
