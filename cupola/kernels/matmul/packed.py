"""Matrices in the order in which a CPU's matrix instructions read them.

Not here: the other forms (`form.py`), the products (`cpu.py`).
Invariant: `dense(packed)` is the matrix, rounded to bfloat16 if it was dense.
"""

import dataclasses
import enum
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from cupola.core.errors import Unsupported
from cupola.core.record import record
from cupola.kernels.matmul.form import Grouped, Int8, Weight, dense

COLUMNS = 16
"""Outputs of one block: the float32 numbers of a register."""
DEPTH = 32
"""Inputs are padded to a multiple of it: the bfloat16 numbers of a row of a tile."""

CODES = 8
"""A group of codes is a multiple of it: four of 4 bits, and the four beside them in the same bytes."""


@record
class Packed:
    """A dense matrix in bfloat16: what a server on a CPU keeps of weights that no longer change.

    Blocks of 16 outputs; in a block pairs of inputs; of a pair the two numbers of each output side by
    side. A product reads it once, in order, and a row's result is the same bits whatever other rows
    come with it. It may be stacked: `shape` is that of one matrix.

    Args:
        values: the numbers, inputs padded to a multiple of 32 and outputs to one of 16, by zeros.
        shape: of the matrix that this stands for, [K, F], where each may be several dims.
        inputs: how many dims K is.
    """

    values: Float[Array, "*L N P 16 2"]
    shape: tuple[int, ...] = dataclasses.field(kw_only=True, metadata={"static": True})
    inputs: int = dataclasses.field(default=1, kw_only=True, metadata={"static": True})

    @classmethod
    def pack(cls, weight: Float[Array, "..."], inputs: int = 1, stacked: int = 0) -> "Packed":
        """Returns the form of a matrix whose first `inputs` dims are summed over.

        Args:
            stacked: how many dims before those are a stack of matrices.
        """
        stack, shape = weight.shape[:stacked], weight.shape[stacked:]
        k, f = math.prod(shape[:inputs]), math.prod(shape[inputs:])
        around = [(0, 0)] * stacked + [(0, -k % DEPTH), (0, -f % COLUMNS)]
        flat = jnp.pad(weight.reshape(*stack, k, f).astype(jnp.bfloat16), around)
        parts = flat.reshape(*stack, flat.shape[-2] // 2, 2, flat.shape[-1] // COLUMNS, COLUMNS)
        at = len(stack)
        values = parts.transpose(*range(at), at + 2, at, at + 3, at + 1)
        return cls(values=values, shape=tuple(shape), inputs=inputs)

    @property
    def sizes(self) -> tuple[int, int]:
        """How many numbers K and F are."""
        return math.prod(self.shape[: self.inputs]), math.prod(self.shape[self.inputs :])

    @property
    def dtype(self) -> jnp.dtype:
        """In which it is multiplied."""
        return self.values.dtype

    def column(self, index: Int[Array, "..."]) -> Float[Array, "... K"]:
        """Returns the weights of some outputs: rows of a table of embeddings that is the head too."""
        found = self.values[index // COLUMNS, :, index % COLUMNS]
        return found.reshape(*index.shape, -1)[..., : self.sizes[0]]


@dense.register
def _(weight: Packed) -> Float[Array, "..."]:
    stack = weight.values.shape[:-4]
    at, (k, f) = len(stack), weight.sizes
    matrix = weight.values.transpose(*range(at), at + 1, at + 3, at, at + 2)
    matrix = matrix.reshape(*stack, 2 * weight.values.shape[-3], COLUMNS * weight.values.shape[-4])
    return matrix[..., :k, :f].reshape(*stack, *weight.shape)


class Activations(enum.Enum):
    """How activations are multiplied by quantized weights; every implementation rounds them so."""

    AS_GIVEN = "as given"
    """As by a dense matrix: both in the dtype of the precision policy (W4A16, W8A16)."""
    INT8 = "int8"
    """As whole numbers of 8 bits too, each group of a row with a scale of its own, so that its largest is 127
    (W4A8, W8A8)."""


@record
class PackedGroups:
    """Small whole numbers in groups, as in `Grouped`: what a server on a CPU keeps of quantized weights.

    Args:
        codes: blocks of 16 outputs; in a block runs of 4 codes of each output, or of 4 pairs of 4 bits:
            the first half of a group stands in the low halves, the second in the high ones.
        scales: one a group, as [blocks, groups, 16].
        offsets: likewise; None: all are zero.
        shape, bits, zero: as of `Grouped`.
        inputs: how many dims K is.
        group: codes that share a scale.
        activations: how they are multiplied.
    """

    codes: UInt8[Array, "*L N P 16 4"]
    scales: Float[Array, "*L N G 16"]
    offsets: Float[Array, "*L N G 16"] | None = None
    shape: tuple[int, ...] = dataclasses.field(kw_only=True, metadata={"static": True})
    bits: int = dataclasses.field(kw_only=True, metadata={"static": True})
    zero: int = dataclasses.field(kw_only=True, metadata={"static": True})
    inputs: int = dataclasses.field(kw_only=True, metadata={"static": True})
    group: int = dataclasses.field(kw_only=True, metadata={"static": True})
    activations: Activations = dataclasses.field(default=Activations.INT8, kw_only=True, metadata={"static": True})

    @property
    def sizes(self) -> tuple[int, int]:
        """How many numbers K and F are."""
        return math.prod(self.shape[: self.inputs]), math.prod(self.shape[self.inputs :])

    @property
    def dtype(self) -> jnp.dtype:
        """In which what stands beside it is kept, such as adapters."""
        return jnp.dtype(jnp.float32)

    def column(self, index: Int[Array, "..."]) -> Float[Array, "... K"]:
        """Returns the weights of some outputs: rows of a table of embeddings that is the head too."""
        flat = index.reshape(-1)

        def lines(x: Array) -> Array:
            return x[flat // COLUMNS, :, flat % COLUMNS].reshape(len(flat), -1)

        offsets = None if self.offsets is None else lines(self.offsets)
        shape = (self.sizes[0], len(flat))
        found = Grouped(lines(self.codes), lines(self.scales), offsets, shape=shape, bits=self.bits, zero=self.zero)
        return dense(found).T.reshape(*index.shape, -1)


def pack_groups(weight: Grouped | Int8, activations: Activations = Activations.INT8) -> PackedGroups:
    """Returns the packed form of a quantized weight: the same numbers.

    Raises:
        Unsupported: its groups are no multiple of 8, or it is stacked.
    """
    weight = _in_groups(weight) if isinstance(weight, Int8) else weight
    if (size := group_of(weight)) is None:
        raise Unsupported(
            f"groups of a weight {weight.shape} with {weight.scales.shape} scales cannot be packed",
            where="pack_groups",
            remedy=f"Groups must be multiples of {CODES}, and a stack cut into its matrices.",
        )
    outputs, at = weight.codes.shape[0], 1
    inputs = weight.codes.shape[1] * 8 // weight.bits
    while math.prod(weight.shape[:at]) < inputs:
        at += 1
    around = ((0, -outputs % COLUMNS), (0, 0))

    def blocks(x: Array) -> Array:
        padded = jnp.pad(x, around)
        return padded.reshape(-1, COLUMNS, x.shape[1]).swapaxes(1, 2)

    runs = jnp.pad(weight.codes, around).reshape(-1, COLUMNS, weight.codes.shape[1] // 4, 4)
    return PackedGroups(
        codes=runs.swapaxes(1, 2),
        scales=blocks(weight.scales),
        offsets=None if weight.offsets is None else blocks(weight.offsets),
        shape=weight.shape,
        bits=weight.bits,
        zero=weight.zero,
        inputs=at,
        group=size,
        activations=activations,
    )


def group_of(weight: Grouped) -> int | None:
    """Returns how many codes share a scale; None if the form cannot be packed."""
    if weight.codes.ndim != 2 or not weight.scales.shape[-1]:
        return None
    size = weight.codes.shape[-1] * 8 // weight.bits // weight.scales.shape[-1]
    same = weight.offsets is None or weight.offsets.dtype == weight.scales.dtype
    return size if size and size % CODES == 0 and same and weight.scales.dtype in (jnp.float16, jnp.float32) else None


def _in_groups(weight: Int8) -> Grouped:
    """Returns the same numbers in groups of up to 64, all of an output with the same scale."""
    inputs = math.prod(weight.values.shape[:-1])
    size = math.gcd(inputs, 64)
    scales = jnp.broadcast_to(weight.scales[:, None], (weight.values.shape[-1], inputs // size))
    codes = (weight.values.reshape(inputs, -1).T.astype(jnp.int16) + 128).astype(jnp.uint8)
    return Grouped(codes, scales.astype(jnp.float32), shape=weight.values.shape, bits=8, zero=128)


@dense.register
def _(weight: PackedGroups) -> Float[Array, "..."]:
    def lines(x: Array) -> Array:
        return x.swapaxes(1, 2).reshape(-1, x.shape[1], *x.shape[3:])

    outputs = weight.sizes[1]
    codes = lines(weight.codes).reshape(-1, weight.codes.shape[1] * 4)
    offsets = None if weight.offsets is None else lines(weight.offsets)[:outputs]
    scales = lines(weight.scales)[:outputs]
    form = Grouped(codes[:outputs], scales, offsets, shape=weight.shape, bits=weight.bits, zero=weight.zero)
    return dense(form)


def as_multiplied(x: Float[Array, "*N K"], weight: Weight) -> Float[Array, "*N K"]:
    """Returns activations as a weight's form has them multiplied: rounded to 8 bits in groups, or as they are.

    The gradient passes the rounding as if there were none.
    """
    if not isinstance(weight, PackedGroups) or weight.activations is Activations.AS_GIVEN:
        return x
    groups = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, weight.group)
    top = jnp.max(jnp.abs(groups), axis=-1, keepdims=True)
    whole = jnp.round(groups * jnp.where(top > 0, 127 / jnp.where(top > 0, top, 1), 0))
    rounded = (whole * (top / 127)).reshape(x.shape)
    return x + jax.lax.stop_gradient(rounded - x)
