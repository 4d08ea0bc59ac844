"""Parameters of a decoder in the forms that a server multiplies fastest with.

Not here: which form a matrix gets (`layers/forms.py`).
"""

from cupola.core.module import Tree
from cupola.kernels.matmul import is_for
from cupola.layers.forms import formed, packed_head
from cupola.models.decoder import Decoder


def for_serving(model: Decoder, params: Tree, *, join: bool = True) -> Tree:
    """Returns the parameters cut into layers, matrices packed for the native kernels; where there are none, turned.

    Args:
        join: whether packed matrices that multiply the same activations become one, which adapters cannot stand beside.
    """
    made = formed(model, params, join=join)
    if is_for(model.precision):
        # The head's matrix is the largest that a step reads; tokens can be looked up in the packed one too.
        name = "embedding" if model.head is None else "head"
        made[name] = {**made[name], "table": packed_head(made[name]["table"])}
    return made
