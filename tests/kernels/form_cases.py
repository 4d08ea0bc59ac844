"""Cases of products with packed weights and of grouped rows, and of losses with what is said aside.

Not here: products with the other forms (`cases.py`).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from judge import Case

from cupola.kernels.choose import Operation
from cupola.kernels.cross_entropy.api import LINEAR_LOSSES
from cupola.kernels.cross_entropy.objective import Objective
from cupola.kernels.matmul.api import DOT, DOT_EXPERTS
from cupola.kernels.matmul.form import Grouped, LowRank, dense
from cupola.kernels.matmul.packed import Activations, Packed, pack_groups


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def exact(*shape, seed=1):
    """Returns numbers that bfloat16 holds: packing rounds nothing, and the product alone is judged."""
    return np.float32(normal(*shape, seed=seed).astype(jnp.bfloat16))


def packed(name, rows, inputs, outputs, *, rank=0):
    """A packed matrix, under an adapter if it has a rank; inputs and outputs may be several dims."""
    k, f = int(np.prod(inputs)), int(np.prod(outputs))
    matrix = exact(k, f)
    adapter = (normal(k, rank, seed=2), normal(rank, f, seed=3)) if rank else ()

    def plain(x, *adapter, product):
        flat = x.reshape(-1, k)
        out = product("nk,kf->nf", flat, jnp.asarray(matrix, x.dtype))
        if adapter:
            out = out + 0.25 * product("nr,rf->nf", product("nk,kr->nr", flat, adapter[0]), adapter[1])
        return out.reshape(rows, *outputs)

    def arguments(arrays, precision):
        base = Packed.pack(jnp.asarray(matrix).reshape(*inputs, *outputs), len(inputs))
        weight = LowRank(base=base, down=arrays[1], up=arrays[2], scale=0.25) if rank else base
        return arrays[0], weight, precision, len(inputs)

    return Case(DOT, name, (normal(rows, *inputs), *adapter), arguments, plain)


def packed_groups(name, rows, inputs, outputs, *, group, bits, offsets=True, size=1.0):
    """A packed matrix of small whole numbers; activations are rounded to whole numbers of 8 bits, group by group."""
    zero, draw = 2 ** (bits - 1), np.random.default_rng(inputs)
    codes = draw.integers(0, 2**bits, (outputs, inputs // group, group), dtype=np.uint8)
    held = codes if bits == 8 else codes[..., : group // 2] | codes[..., group // 2 :] << 4
    scales = normal(outputs, inputs // group, seed=1) * np.float32(size)
    added = normal(outputs, inputs // group, seed=2) if offsets else np.zeros_like(scales)
    matrix = ((np.float64(codes) - zero) * scales[..., None] + added[..., None]).reshape(outputs, inputs)

    def plain(x, product):
        groups = x.reshape(rows, -1, group)
        step = jnp.abs(groups).max(-1, keepdims=True) / 127
        whole = (jnp.round(groups / jnp.where(step > 0, step, 1)) * step).reshape(x.shape)
        return product("nk,fk->nf", x + jax.lax.stop_gradient(whole - x), jnp.asarray(matrix, x.dtype))

    def arguments(arrays, precision):
        how = {"shape": (inputs, outputs), "bits": bits, "zero": zero}
        more = (jnp.asarray(added),) if offsets else ()
        form = Grouped(jnp.asarray(held.reshape(outputs, -1)), jnp.asarray(scales), *more, **how)
        return arrays[0], pack_groups(form), precision, 1

    return Case(DOT, name, (normal(rows, inputs),), arguments, plain)


def codes_beside_activations(name, rows, inputs, outputs, *, group, bits, offsets=True):
    """As above, with activations as they are given; the numbers of the matrix are such as bfloat16 holds."""
    zero, draw = 2 ** (bits - 1), np.random.default_rng(inputs)
    codes = draw.integers(0, 2**bits, (outputs, inputs // group, group), dtype=np.uint8)
    held = codes if bits == 8 else codes[..., : group // 2] | codes[..., group // 2 :] << 4
    scales = np.float32(2.0) ** draw.integers(-3, 3, (outputs, inputs // group))
    added = scales * draw.integers(-8, 9, scales.shape).astype(np.float32) if offsets else np.zeros_like(scales)
    matrix = ((np.float64(codes) - zero) * scales[..., None] + added[..., None]).reshape(outputs, inputs)

    def plain(x, product):
        return product("nk,fk->nf", x, jnp.asarray(matrix, x.dtype))

    def arguments(arrays, precision):
        more = (jnp.asarray(added),) if offsets else ()
        how = {"shape": (inputs, outputs), "bits": bits, "zero": zero}
        form = Grouped(jnp.asarray(held.reshape(outputs, -1)), jnp.asarray(scales), *more, **how)
        return arrays[0], pack_groups(form, Activations.AS_GIVEN), precision, 1

    return Case(DOT, name, (normal(rows, inputs),), arguments, plain)


def experts(name, rows, sizes, inputs, outputs, *, keep=False):
    """Rows that stand in groups; `keep`: the matrices are packed, and have no gradient."""
    matrices, ends = exact(len(sizes), inputs, outputs), np.cumsum(sizes)
    owner = np.searchsorted(ends, np.arange(rows), side="right")

    def plain(x, weight=None, *, product):
        weight = jnp.asarray(matrices, x.dtype) if weight is None else weight
        each = product("nk,ekf->enf", x, weight)
        return jnp.where(owner[None, :, None] == np.arange(len(sizes))[:, None, None], each, 0).sum(0)

    def arguments(arrays, precision):
        weight = Packed.pack(jnp.asarray(matrices), 1, 1) if keep else arrays[1]
        return arrays[0], weight, jnp.asarray(sizes, jnp.int32), precision

    x = normal(rows, inputs)
    return Case(DOT_EXPERTS, name, (x,) if keep else (x, matrices), arguments, plain, ("B D", "E D F")[: 2 - keep])


PACKED = [
    packed("packed, one number", 1, (1,), (1,)),
    packed("packed, one row", 1, (33,), (17,)),
    packed("packed, odd sizes", 67, (35,), (49,)),
    packed("packed, heads coming in", 5, (2, 9), (7,)),
    packed("packed, heads going out", 18, (33,), (3, 5)),
    packed("packed under an adapter", 9, (7,), (5,), rank=3),
    packed_groups("packed groups of 4 bits", 19, 64, 17, group=32, bits=4),
    packed_groups("packed groups of 4 bits, one row", 1, 48, 5, group=16, bits=4, offsets=False),
    packed_groups("packed groups of 8 bits", 5, 40, 33, group=8, bits=8),
    codes_beside_activations("codes of 4 bits beside activations", 19, 64, 17, group=32, bits=4),
    codes_beside_activations("codes of 8 bits beside activations, one row", 1, 40, 33, group=8, bits=8, offsets=False),
    packed_groups("packed groups whose scales are zero", 3, 16, 3, group=16, bits=8, size=0.0, offsets=False),
]
EXPERTS = [
    experts("typical", 8, [3, 0, 4, 1], 4, 8),
    experts("rows beyond all groups", 7, [2, 1], 5, 3),
    experts("no rows for any", 5, [0, 0, 0], 3, 2),
    experts("one takes all", 33, [0, 33], 3, 17),
    experts("packed, odd sizes", 67, [13, 0, 40, 6], 35, 49, keep=True),
    experts("packed, four matrices", 8, [3, 0, 4, 1], 35, 49, keep=True),
    experts("packed, one row each", 3, [1, 1, 1], 33, 17, keep=True),
]

AS_ONE = Operation(
    LINEAR_LOSSES.name,
    tuple(
        dataclasses.replace(i, function=lambda *given, f=i.function: jnp.stack(f(*given)))
        for i in LINEAR_LOSSES.implementations
    ),
)
"""The losses with what is said aside as one array."""


def losses(name, rows, vocabulary, *, z_loss=0.1):
    """Positions of weight 0 hold NaN; targets are the largest logits, or their neighbours."""
    draw = np.random.default_rng(len(name))
    weights = np.float32(draw.choice([0, 0.5, 1, 2], rows))
    x, head = normal(*rows, 5), normal(vocabulary, 5, seed=1)
    best = (x @ head.T).argmax(-1)
    targets = np.int32((best + draw.integers(0, 2, rows)) % vocabulary)
    x[weights == 0] = np.nan

    def plain(x, head, product):
        counts = weights != 0
        logits = product("btd,vd->btv", jnp.where(counts[..., None], x, 0), head)
        top = jax.lax.stop_gradient(logits.max(-1))
        normalizer = top + jnp.log(jnp.exp(logits - top[..., None]).sum(-1))
        hit = jnp.where(targets[..., None] == np.arange(vocabulary)[None, None], logits, 0).sum(-1)
        aside = z_loss * (weights * normalizer**2).sum()
        correct = (weights * (targets == best)).sum()
        loss = (weights * (normalizer - hit)).sum() + aside
        return jnp.stack((loss, jax.lax.stop_gradient(aside), jnp.asarray(correct, x.dtype)))

    def arguments(arrays, precision):
        return *arrays, jnp.asarray(targets), jnp.asarray(weights), precision, Objective(z_loss=z_loss), None

    return Case(AS_ONE, name, (x, head), arguments, plain, ("B T D", "V D"))


SAID_ASIDE = [
    losses("typical", (4, 6), 38),
    losses("past a chunk", (1, 141), 17),
    losses("no z-loss", (2, 3), 9, z_loss=0.0),
]
FORMS = [*PACKED, *EXPERTS, *SAID_ASIDE]
OPERATIONS_ON_FORMS = (DOT_EXPERTS, AS_ONE)


def next_matrix(x, weight, *rest):
    return DOT_EXPERTS("reference", x, jnp.roll(weight, 1, 0), *rest)


def one_row_early(x, weight, sizes, precision):
    return DOT_EXPERTS("reference", x, weight, sizes.at[0].add(-1).at[1].add(1), precision)


def as_it_is(x, weight, precision, contract):
    """Activations are not rounded to whole numbers."""
    return DOT("reference", x, dense(weight), precision, contract)


def aside_alone(x, head, targets, weights, precision, objective, classes):
    plain = AS_ONE("reference", x, head, targets, weights, precision, Objective(), classes)
    return plain.at[1].set(AS_ONE("reference", x, head, targets, weights, precision, objective, classes)[1])


BROKEN_ON_FORMS = {
    "dot: activations are not rounded": ("packed groups of 8 bits", as_it_is),
    "dot_experts: the next matrix": ("typical", next_matrix),
    "dot_experts: a row is in the next group": ("typical", one_row_early),
    "linear_losses: the z-loss is aside of the loss": ("typical", aside_alone),
}
