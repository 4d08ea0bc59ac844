"""Root-mean-square and layer normalization over the last dimension.

The native kernels come first: alone they take 0.3 to 0.8 of the compiler's time, and between native products, which the
compiler fuses nothing with, a training step is 6 % faster by RMSNorm's.
Source: Zhang & Sennrich 2019 (RMSNorm); Ba et al. 2016 (LayerNorm).
"""

from jaxtyping import Array, Float

from cupola.kernels.choose import Implementation, Operation
from cupola.kernels.gpu import implementation as on_gpu
from cupola.kernels.native.library import implementations
from cupola.kernels.norm import cpu, gpu, reference, xla
from cupola.kernels.norm.casting import Casting

RMS_NORM = Operation(
    "rms_norm",
    (
        *implementations(cpu.rms_norm, cpu.refuses_rms_norm),
        Implementation("xla", xla.rms_norm),
        on_gpu(gpu.rms_norm, gpu.refuses_rms_norm),
        Implementation("reference", reference.rms_norm),
    ),
)
LAYER_NORM = Operation(
    "layer_norm",
    (
        *implementations(cpu.layer_norm, cpu.refuses_layer_norm),
        Implementation("xla", xla.layer_norm),
        on_gpu(gpu.layer_norm, gpu.refuses_layer_norm),
        Implementation("reference", reference.layer_norm),
    ),
)
ADD_RMS_NORM = Operation(
    "add_rms_norm",
    (
        *implementations(cpu.add_rms_norm, cpu.refuses_add_rms_norm),
        Implementation("xla", xla.add_rms_norm),
        on_gpu(gpu.add_rms_norm, gpu.refuses_add_rms_norm),
        Implementation("reference", reference.add_rms_norm),
    ),
)
ADD_LAYER_NORM = Operation(
    "add_layer_norm",
    (
        *implementations(cpu.add_layer_norm, cpu.refuses_add_layer_norm),
        Implementation("xla", xla.add_layer_norm),
        on_gpu(gpu.add_layer_norm, gpu.refuses_add_layer_norm),
        Implementation("reference", reference.add_layer_norm),
    ),
)


def rms_norm(
    x: Float[Array, "*N D"],
    scale: Float[Array, " D"],
    *,
    epsilon: float,
    offset: float = 0.0,
    casting: Casting = Casting.GEMMA,
    implementation: str | None = None,
) -> Float[Array, "*N D"]:
    """Returns (offset + scale) * x / sqrt(mean(x^2) + epsilon).

    Args:
        offset: added to scale in float32; Gemma's is 1.
        casting: where it rounds to x's dtype.

    Raises:
        Unsupported: an implementation was named that does not exist or cannot honour the arguments.

    Cost: one read and one write of x. Numerics: sums in float32, the result in x's dtype.
    """
    return RMS_NORM(implementation, x, scale, epsilon, offset, casting)


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
        Unsupported: an implementation was named that does not exist or cannot honour the arguments.

    Cost: one read and one write of x. Numerics: sums in float32, the result in x's dtype.
    """
    return LAYER_NORM(implementation, x, scale, offset, epsilon)


def add_rms_norm(
    x: Float[Array, "*N D"],
    residual: Float[Array, "*N D"],
    scale: Float[Array, " D"],
    *,
    epsilon: float,
    offset: float = 0.0,
    casting: Casting = Casting.GEMMA,
    implementation: str | None = None,
) -> tuple[Float[Array, "*N D"], Float[Array, "*N D"]]:
    """Returns (rms_norm(x + residual), x + residual).

    Args:
        offset: added to scale in float32; Gemma's is 1.
        casting: where it rounds to x's dtype.

    Raises:
        Unsupported: an implementation was named that does not exist or cannot honour the arguments.

    Cost: one read of x and residual, one write of each result.
    Numerics: the sum is rounded to x's dtype, and what is normalized is the rounded one; sums in float32.
    """
    return ADD_RMS_NORM(implementation, x, residual, scale, epsilon, offset, casting)


def add_layer_norm(
    x: Float[Array, "*N D"],
    residual: Float[Array, "*N D"],
    scale: Float[Array, " D"],
    offset: Float[Array, " D"],
    *,
    epsilon: float,
    implementation: str | None = None,
) -> tuple[Float[Array, "*N D"], Float[Array, "*N D"]]:
    """Returns (layer_norm(x + residual), x + residual).

    Raises:
        Unsupported: an implementation was named that does not exist or cannot honour the arguments.

    Cost: one read of x and residual, one write of each result.
    Numerics: the sum is rounded to x's dtype, and what is normalized is the rounded one; sums in float32.
    """
    return ADD_LAYER_NORM(implementation, x, residual, scale, offset, epsilon)
