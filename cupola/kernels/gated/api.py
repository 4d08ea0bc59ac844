"""A gate times a value, element by element: SwiGLU, GeGLU and their kin.

Source: Shazeer 2020, GLU variants.
"""

from jaxtyping import Array, Float

from cupola.core.dtype import FLOAT32, Precision
from cupola.kernels.choose import Implementation, Operation
from cupola.kernels.gated import cpu, gpu, reference, xla
from cupola.kernels.gated.activation import Activation
from cupola.kernels.gpu import implementation as on_gpu
from cupola.kernels.native.library import implementations

GATE = Operation(
    "gate",
    (
        *implementations(cpu.gate, cpu.refuses),
        Implementation("xla", xla.gate),
        on_gpu(gpu.gate, gpu.refuses),
        Implementation("reference", reference.gate),
    ),
)


def gate(
    gates: Float[Array, "*N F"],
    values: Float[Array, "*N F"],
    *,
    activation: Activation,
    precision: Precision = FLOAT32,
    implementation: str | None = None,
) -> Float[Array, "*N F"]:
    """Returns activation(gates) * values; SILU gives SwiGLU, GELU gives GeGLU.

    Args:
        precision: its `compute` is the dtype in which gates and values are kept for the gradient.

    Raises:
        Unsupported: an implementation was named that does not exist.
    """
    return GATE(implementation, gates, values, activation, precision)
