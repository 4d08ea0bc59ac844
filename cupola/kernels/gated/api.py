"""A gate times a value, element by element: SwiGLU, GeGLU and their kin.

Source: Shazeer 2020, GLU variants.
"""

from jaxtyping import Array, Float

from cupola.kernels.choose import Implementation, Operation
from cupola.kernels.gated import reference, xla
from cupola.kernels.gated.activation import Activation

GATE = Operation("gate", (Implementation("xla", xla.gate), Implementation("reference", reference.gate)))


def gate(
    gates: Float[Array, "*N F"],
    values: Float[Array, "*N F"],
    *,
    activation: Activation,
    implementation: str | None = None,
) -> Float[Array, "*N F"]:
    """Returns activation(gates) * values; SILU gives SwiGLU, GELU gives GeGLU.

    Raises:
        Unsupported: an implementation was named that does not exist.
    """
    return GATE(implementation, gates, values, activation)
