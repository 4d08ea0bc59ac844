"""Parameters of a decoder in the forms that a server multiplies fastest with.

Not here: which form a matrix gets (`layers/forms.py`).
"""

import jax

from cupola.core.module import Tree
from cupola.kernels.matmul import Grouped, Packed, PackedGroups
from cupola.layers.forms import formed, formed_head
from cupola.models.decoder import Decoder
from cupola.serve.shapes import LEAST_ROWS


def for_serving(model: Decoder, params: Tree, *, join: bool = True) -> Tree:
    """Returns the parameters cut into layers, matrices packed for the native kernels; where there are none, turned.

    Args:
        join: whether packed matrices that multiply the same activations become one, which adapters cannot stand beside.
    """
    made = formed(model, params, join=join)
    output = "embedding" if model.head is None else "head"
    for name in {"embedding", output}:
        table = made[name]["table"]
        # The head's matrix is the largest that a step reads.
        if name == output or isinstance(table, Grouped):
            made[name] = {**made[name], "table": formed_head(table, model.precision)}
    return made


def least_rows(params: Tree) -> int:
    """Returns how many rows a step must have for a row's bits to be the same in all steps: any, if all matrices are packed.

    Args:
        params: in the forms of `for_serving`; a table that tokens are only looked up in may be plain.
    """
    forms = jax.tree.leaves(params | {"embedding": None}, is_leaf=lambda x: isinstance(x, Packed | PackedGroups))
    return 1 if all(isinstance(held, Packed | PackedGroups) or held.ndim < 2 for held in forms) else LEAST_ROWS
