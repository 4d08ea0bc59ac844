"""Root-mean-square and layer normalization over the last dimension.

Source: Zhang & Sennrich 2019 (RMSNorm); Ba et al. 2016 (LayerNorm).
"""

from jaxtyping import Array, Float

from cupola.kernels.choose import Implementation, Operation
from cupola.kernels.norm import reference, xla

RMS_NORM = Operation("rms_norm", (Implementation("xla", xla.rms_norm), Implementation("reference", reference.rms_norm)))
LAYER_NORM = Operation(
    "layer_norm", (Implementation("xla", xla.layer_norm), Implementation("reference", reference.layer_norm))
)


def rms_norm(
    x: Float[Array, "*N D"], scale: Float[Array, " D"], *, epsilon: float, implementation: str | None = None
) -> Float[Array, "*N D"]:
    """Returns scale * x / sqrt(mean(x^2) + epsilon).

    Raises:
        Unsupported: an implementation was named that does not exist.

    Cost: one read and one write of x. Numerics: sums in float32, the result in x's dtype.
    """
    return RMS_NORM(implementation, x, scale, epsilon)


def layer_norm(
    x: Float[Array, "*N D"],
    scale: Float[Array, " D"],
    offset: Float[Array, " D"],
    *,
    epsilon: float,
    implementation: str | None = None,
) -> Float[Array, "*N D"]:
    """Returns scale * (x - mean(x)) / sqrt(var(x) + epsilon) + offset.

    Raises:
        Unsupported: an implementation was named that does not exist.

    Cost: one read and one write of x. Numerics: sums in float32, the result in x's dtype.
    """
    return LAYER_NORM(implementation, x, scale, offset, epsilon)
