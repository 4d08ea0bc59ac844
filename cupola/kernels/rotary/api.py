"""Rotary position embedding: pairs of a head's numbers turn by an angle that grows with position.

Not here: the angles (`layers/position.py` keeps them as a table, which costs a look-up; sines made
inside a compiled step are computed again for every element that uses them).
Source: Su et al. 2021 (RoFormer), section 3.2.2.
"""

from jaxtyping import Array, Float

from cupola.core.errors import ShapeError
from cupola.kernels.choose import Implementation, Operation
from cupola.kernels.gpu import implementation as on_gpu
from cupola.kernels.native.library import implementations
from cupola.kernels.rotary import cpu, gpu, reference, xla
from cupola.kernels.rotary.pairing import Pairing

ROTATE = Operation(
    "rotate",
    (
        *implementations(cpu.rotate, cpu.refuses),
        Implementation("xla", xla.rotate),
        on_gpu(gpu.rotate, gpu.refuses),
        Implementation("reference", reference.rotate),
    ),
)


def rotate(
    x: Float[Array, "B T H C"],
    cos: Float[Array, "#B T R"],
    sin: Float[Array, "#B T R"],
    *,
    pairing: Pairing = Pairing.HALVES,
    implementation: str | None = None,
) -> Float[Array, "B T H C"]:
    """Returns x with pair i of each head turned by the angle whose cosine and sine stand at i.

    Args:
        cos, sin: of the angles in radians, R = C / 2 of them at each position.

    Raises:
        ShapeError: C is not twice R.
        Unsupported: an implementation was named that does not exist.

    Numerics: products in float32, the result in x's dtype.
    """
    if x.shape[-1] != 2 * cos.shape[-1]:
        raise ShapeError(
            f"{cos.shape[-1]} angles turn heads {2 * cos.shape[-1]} wide, but these are {x.shape[-1]} wide",
            where="rotate",
            remedy="Pass one angle for every two numbers of a head; a head's width is even.",
        )
    return ROTATE(implementation, x, cos, sin, pairing)
