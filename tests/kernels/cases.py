"""The one table of cases: what every implementation of every operation is given.

Each case holds hostile inputs and the plain formula for them. Not here: tolerances (`judge.py`).
"""

import jax
import jax.numpy as jnp
import numpy as np
from form_cases import FORMS, OPERATIONS_ON_FORMS
from judge import Case
from loss_cases import DIVERGENCES, OBJECTIVES
from row_cases import OPERATIONS_ON_ROWS, ROWS

from cupola.kernels.attention.api import ATTEND
from cupola.kernels.attention.mask import Mask
from cupola.kernels.cross_entropy.api import CROSS_ENTROPY, LINEAR_CROSS_ENTROPY, LINEAR_LOG_PROBS
from cupola.kernels.divergence.api import LINEAR_DIVERGENCE
from cupola.kernels.gated.activation import Activation
from cupola.kernels.gated.api import GATE
from cupola.kernels.matmul.api import DOT
from cupola.kernels.matmul.form import Grouped, Int8, LowRank
from cupola.kernels.norm.api import LAYER_NORM, RMS_NORM
from cupola.kernels.rotary.api import ROTATE
from cupola.kernels.rotary.pairing import Pairing

OPERATIONS = (
    ATTEND,
    DOT,
    CROSS_ENTROPY,
    LINEAR_CROSS_ENTROPY,
    LINEAR_LOG_PROBS,
    LINEAR_DIVERGENCE,
    RMS_NORM,
    LAYER_NORM,
    ROTATE,
    GATE,
    *OPERATIONS_ON_ROWS,
    *OPERATIONS_ON_FORMS,
)
NAN = np.float32(np.nan)


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def seen_by(queries, keys, *, causal, window, query_segments, key_segments, start, prefix):
    """Returns [B, T, S], spelled out pair by pair."""
    rows = max(len(x) for x in (start, prefix, query_segments, [0]) if x is not None)
    seen = np.ones((rows, queries, keys), bool)
    for b, t, s in np.ndindex(seen.shape):
        at = t + (0 if start is None else start[b])
        if causal and s > at:
            seen[b, t, s] = False
        if window is not None and s <= at - window:
            seen[b, t, s] = False
        if prefix is not None and s < prefix[b]:
            seen[b, t, s] = True
        if query_segments is not None and (query_segments[b][t] != key_segments[b][s] or query_segments[b][t] == 0):
            seen[b, t, s] = False
    return seen


def mixture(query, key, value, *sinks, seen, scale, soft_cap, product):
    """Returns softmax(scale * query . key) . value; the gradient by hand, from Dao et al. 2022, appendix B.2.

    A soft cap bounds the scores; a sink is one more score of each head, whose value is zero.
    """
    groups, repeats = key.shape[2], query.shape[2] // key.shape[2]

    def shares_of(query, key, *sinks):
        """Returns the shares of the keys, those of the sinks, and the slope of the soft cap."""
        scores, slope = scale * product("bthc,bshc->bhts", query, jnp.repeat(key, repeats, 2)), 1
        if soft_cap is not None:
            part = jnp.tanh(scores / soft_cap)
            scores, slope = soft_cap * part, 1 - part * part
        top = jnp.max(scores, -1, keepdims=True, where=seen, initial=-1e30)
        sink = sinks[0].reshape(1, -1, 1, 1) if sinks else jnp.full((1, 1, 1, 1), -jnp.inf, scores.dtype)
        top = jnp.maximum(top, sink)
        weights = jnp.where(seen, jnp.exp(scores - top), 0)
        total = weights.sum(-1, keepdims=True) + jnp.exp(sink - top)
        total = jnp.where(total > 0, total, 1)
        return weights / total, jnp.exp(sink - top) / total, slope

    def grouped(x):
        return x.reshape(*x.shape[:2], groups, repeats, x.shape[-1]).sum(3)

    @jax.custom_vjp
    def mixed(query, key, value, *sinks):
        return product("bhts,bshc->bthc", shares_of(query, key, *sinks)[0], jnp.repeat(value, repeats, 2))

    def backward(kept, given):
        query, key, value, *sinks, out = kept
        shares, sunk, slope = shares_of(query, key, *sinks)
        for_shares = product("bthc,bshc->bhts", given, jnp.repeat(value, repeats, 2))
        drift = (given * out).sum(-1).transpose(0, 2, 1)[..., None]
        for_scores = scale * shares * (for_shares - drift) * slope
        return (
            product("bhts,bshc->bthc", for_scores, jnp.repeat(key, repeats, 2)),
            grouped(product("bhts,bthc->bshc", for_scores, query)),
            grouped(product("bhts,bthc->bshc", shares, given)),
            *(-(sunk * drift).sum((0, 2, 3)) for _ in sinks),
        )

    mixed.defvjp(lambda *arrays: (out := mixed(*arrays), (*arrays, out)), backward)
    return mixed(query, key, value, *sinks)


def attention(
    name, queries, keys=None, *, heads=(2, 2), width=4, scale=0.5, size=1.0, offset=0.0, batch=1, soft_cap=None,
    sinks=None, **mask
):  # fmt: skip
    """Attention: `heads` are (query heads, key heads); padding holds NaN; `sinks` are their size."""
    keys, (h, k) = keys or queries, heads
    named = ("window", "query_segments", "key_segments", "start", "prefix")
    options = dict.fromkeys(named) | {"causal": True} | mask
    if options["query_segments"] is not None and options["key_segments"] is None:
        options["key_segments"] = options["query_segments"]
    batch = len(options["start"] or options["prefix"] or options["query_segments"] or [0] * batch)
    seen = seen_by(queries, keys, **options)[:, None]
    arrays = [
        normal(batch, n, m, width, seed=i) * np.float32(size)
        for i, (n, m) in enumerate([(queries, h), (keys, k), (keys, k)])
    ]
    padding = [None] * 4
    if options["query_segments"] is not None:
        padding = [np.asarray(options[side]) == 0 for side in ("query_segments", "key_segments", "key_segments")]
        for array, padded in zip(arrays, padding, strict=True):
            array[padded] = NAN
        padding.append(None)
    arrays += [] if sinks is None else [normal(h, seed=3) * np.float32(sinks)]

    def plain(*arrays, product):
        clean = [
            x if p is None else jnp.where(p[:, :, None, None], 0, x) for x, p in zip(arrays, padding, strict=False)
        ]
        return mixture(*clean, seen=seen, scale=scale, soft_cap=soft_cap, product=product)

    def arguments(arrays, precision):
        held = {n: v if v is None or isinstance(v, int) else jnp.asarray(v) for n, v in options.items()}
        more = () if sinks is None and soft_cap is None else (soft_cap, arrays[3] if len(arrays) > 3 else None)
        return *arrays[:3], Mask(**held), scale, precision, *more

    dims = ("B T H C", "B S K C", "B S K C", "H")
    return Case(ATTEND, name, tuple(arrays), arguments, plain, dims[: len(arrays)])


EDGES = [[1] * 60 + [2] * 68 + [3], [0] * 5 + [7] * 123 + [0]]
ATTENTION = [
    attention(
        "typical", 6, heads=(4, 2), query_segments=[[1, 1, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1], [0] * 6, [3, 3, 0, 4, 4, 4]]
    ),
    attention("length one", 1),
    attention("everything seen", 127, causal=False, heads=(1, 1), width=1),
    attention("one past a block, one key head", 129, heads=(4, 1)),
    attention("past two blocks", 259, heads=(1, 1), width=2),
    attention("window of one", 130, window=1, heads=(1, 1)),
    attention("window across blocks", 131, window=5, heads=(2, 1)),
    attention("window longer than a row", 3, window=100, heads=(3, 3)),
    attention("documents that end at a block", 129, query_segments=EDGES),
    attention("documents and a window", 129, query_segments=EDGES, window=40, heads=(1, 1)),
    attention("documents without causality", 6, causal=False, query_segments=[[2, 2, 1, 1, 2, 0]]),
    attention(
        "queries whose document has no keys",
        4,
        3,
        causal=False,
        query_segments=[[1, 5, 1, 0]],
        key_segments=[[1, 1, 9]],
    ),
    attention("one token against a cache", 1, 9, start=[3, 8], heads=(4, 2)),
    attention("a chunk against a cache", 3, 9, start=[0, 6], heads=(2, 1)),
    attention("a window against a cache", 3, 9, start=[1, 6], window=2),
    attention("more keys than queries", 3, 5),
    attention("more queries than keys", 5, 3),
    attention("a start past every key", 2, 3, start=[5], window=2),
    attention("ties", 8, size=0.0),
    attention("scores that overflow an exponential", 9, offset=10.0),
    attention("one key takes all", 9, size=30.0),
    attention("prefixes", 131, prefix=[0, 40, 131], heads=(2, 1)),
    attention("a prefix behind a window", 130, prefix=[3, 70], window=5),
    attention("a prefix and documents", 129, prefix=[50, 100], query_segments=EDGES, heads=(1, 1)),
    attention("a prefix in a cache", 3, 9, prefix=[2, 8], start=[4, 0], window=2),
    attention("a soft cap", 67, soft_cap=1.5, heads=(2, 1)),
    attention("a soft cap on scores far above it", 9, soft_cap=2.0, size=9.0),
    attention("a soft cap far above the scores", 9, soft_cap=50.0),
    attention("sinks", 130, sinks=1.0, heads=(4, 2)),
    attention("sinks above all scores", 9, sinks=50.0),
    attention("sinks, a soft cap, a window, documents", 129, sinks=2.0, soft_cap=1.0, window=33, query_segments=EDGES),
    attention("a scale below zero", 66, scale=-0.7, heads=(2, 1), sinks=1.0),
    attention("a scale of zero", 5, scale=0.0),
    attention("wide heads", 66, width=130, scale=0.1),
]


def product_of(name, rows, weight, *, contract=1, form="array", size=1.0):
    """A matrix product; `rows` are the leading dims of x, `weight` the shape of the matrix."""
    x = normal(*rows, *weight[:contract]) * np.float32(size)
    letters = f"{'nm'[: len(rows)]}", "kl"[:contract], "fg"[: len(weight) - contract]
    across = f"{letters[0]}{letters[1]},{letters[1]}{letters[2]}->{letters[0]}{letters[2]}"
    matrix, down, up = normal(*weight, seed=1), normal(weight[0], 3, seed=2), normal(3, weight[-1], seed=3)
    values = np.random.default_rng(4).integers(-127, 128, weight).astype(np.int8)
    scales = np.abs(normal(weight[-1], seed=5)) / 127
    scale = 0.25
    arrays = {
        "array": (x, matrix),
        "int8": (x, scales),
        "low rank": (x, matrix, down, up),
        "low rank over int8": (x, scales, down, up),
    }[form]

    def plain(x, base, *adapter, product):
        if "int8" in form:
            main = product(across, x, jnp.asarray(values, base.dtype)) * base.reshape((1,) * (x.ndim - 1) + base.shape)
        else:
            main = product(across, x, base)
        inner = product(across.replace("f", "r"), x, adapter[0]) if adapter else None
        return (
            main + scale * product("nr,rf->nf" if len(rows) == 1 else "nmr,rf->nmf", inner, adapter[1])
            if adapter
            else main
        )

    def arguments(arrays, precision):
        x, base, *adapter = arrays
        base = Int8(values=jnp.asarray(values), scales=base) if "int8" in form else base
        weight = LowRank(base=base, down=adapter[0], up=adapter[1], scale=scale) if adapter else base
        return x, weight, precision, contract

    return Case(DOT, name, arrays, arguments, plain, ("B T D", "D F")[: len(arrays)])


def grouped_product(name, rows, inputs, outputs, *, group, bits, zero=0, offsets=True, contract=1, size=1.0):
    """The product with a matrix in groups of small whole numbers; inputs and outputs may be several dims."""
    k, f = int(np.prod(inputs)), int(np.prod(outputs))
    codes = np.random.default_rng(k).integers(0, 2**bits, (f, k // group, group), dtype=np.uint8)
    packed = codes if bits == 8 else codes[..., : group // 2] | codes[..., group // 2 :] << 4
    arrays = (normal(*rows, *inputs), normal(f, k // group, seed=1) * np.float32(size))
    arrays += (normal(f, k // group, seed=2),) if offsets else ()

    def plain(x, scales, *offsets, product):
        matrix = (jnp.asarray(codes, scales.dtype) - zero) * scales[..., None]
        matrix = matrix + offsets[0][..., None] if offsets else matrix
        out = product("nk,fk->nf", x.reshape(-1, k), matrix.reshape(f, k))
        return out.reshape(*rows, *outputs)

    def arguments(arrays, precision):
        x, scales, *offsets = arrays
        how = {"shape": (*inputs, *outputs), "bits": bits, "zero": zero}
        weight = Grouped(jnp.asarray(packed.reshape(f, -1)), scales, *offsets, **how)
        return x, weight, precision, contract

    return Case(DOT, name, arrays, arguments, plain)


PRODUCTS = [
    grouped_product("groups of 4 bits", (9,), (8,), (5,), group=4, bits=4),
    grouped_product("groups of 4 bits, few rows", (2,), (6,), (3,), group=6, bits=4, zero=8, offsets=False),
    grouped_product("groups of 8 bits, heads going out", (2, 3), (8,), (2, 3), group=2, bits=8, zero=128),
    grouped_product("groups of 8 bits, heads coming in", (7,), (2, 4), (5,), group=4, bits=8, contract=2),
    grouped_product("groups whose scales are zero", (5,), (4,), (3,), group=2, bits=4, size=0.0),
    product_of("typical", (4, 6), (3, 8)),
    product_of("one number", (1,), (1, 1)),
    product_of("one row", (1, 1), (129, 5)),
    product_of("few rows", (3,), (5, 7)),
    product_of("odd sizes", (127,), (3, 129)),
    product_of("heads going out", (2, 3), (5, 2, 4)),
    product_of("heads coming in", (2, 3), (2, 4, 5), contract=2),
    product_of("zeros", (5,), (3, 2), size=0.0),
    *(
        product_of(f"{form}, {rows} rows", (rows,), (7, 5), form=form)
        for form in ("int8", "low rank", "low rank over int8")
        for rows in (2, 9)
    ),
]


def cross_entropy(name, rows, vocabulary, *, targets=None, weights=None, width=5, size=1.0, log_probs=False):
    """The loss (or the log-probabilities) of a linear head; positions of weight 0 hold NaN."""
    draw = np.random.default_rng(len(name))
    x, head = normal(*rows, width), normal(vocabulary, width, seed=1) * np.float32(size)
    targets = np.int32(draw.integers(0, vocabulary, rows) if targets is None else targets)
    weights = np.float32(draw.choice([0, 0.5, 1, 2], rows) if weights is None else weights)
    if not log_probs:
        x[weights == 0] = NAN

    def each(x, head, product):
        logits = product("btd,vd->btv", x, head)
        top = jax.lax.stop_gradient(logits.max(-1))
        total = jnp.exp(logits - top[..., None]).sum(-1)
        hit = targets[..., None] == np.arange(vocabulary)[None, None]
        return jnp.where(hit, logits, 0).sum(-1) - top - jnp.log(total)

    def loss(x, head, product):
        counts = weights != 0
        log_probs = each(jnp.where(counts[..., None], x, 0), head, product)
        return -(weights * jnp.where(counts, log_probs, 0)).sum()

    dims = ("B T D", "V D")
    if log_probs:
        return Case(LINEAR_LOG_PROBS, name, (x, head), lambda a, policy: (*a, jnp.asarray(targets), policy), each, dims)

    def arguments(arrays, precision):
        return *arrays, jnp.asarray(targets), jnp.asarray(weights), precision

    return Case(LINEAR_CROSS_ENTROPY, name, (x, head), arguments, loss, dims)


LOSSES = [
    case
    for log_probs in (False, True)
    for case in (
        cross_entropy("typical", (4, 6), 38, log_probs=log_probs),
        cross_entropy("one past a chunk, odd sizes", (1, 257), 129, log_probs=log_probs),
        cross_entropy("chunks over a batch", (3, 127), 17, log_probs=log_probs),
        cross_entropy("more rows than a chunk holds", (300, 2), 7, width=2, log_probs=log_probs),
        cross_entropy("blocks of a vocabulary", (1, 5), 16_380, width=2, log_probs=log_probs),
        cross_entropy("ties", (2, 3), 6, size=0.0, log_probs=log_probs),
        cross_entropy("logits that overflow an exponential", (2, 5), 6, size=100.0, log_probs=log_probs),
    )
] + [
    cross_entropy("every target ignored", (2, 3), 9, weights=np.zeros((2, 3))),
    cross_entropy("ignored targets that are no tokens", (1, 4), 9, weights=[[1, 0, 0, 1]], targets=[[3, -1, 900, 8]]),
    cross_entropy("length one", (1, 1), 3, weights=[[1]]),
    cross_entropy("a vocabulary of one", (1, 2), 1, log_probs=True),
    cross_entropy("negative weights", (2, 3), 9, weights=[[1, -1, 2], [0, 0, -3]]),
]


def elementwise(operation, name, plain, arrays, *rest, dims=()):
    """An operation without products: a policy rounds what it is given."""
    return Case(
        operation,
        name,
        arrays,
        lambda arrays, precision: (*arrays, *rest),
        lambda *arrays, product: plain(*arrays),
        dims,
        takes_policy=False,
    )


def norm(name, x, *, centred, epsilon=1e-6):
    width = x.shape[-1]
    vectors = normal(width, seed=1), normal(width, seed=2)

    def plain(x, scale, offset=None):
        row = (1,) * (x.ndim - 1) + scale.shape
        x = x - x.mean(-1, keepdims=True) if centred else x
        out = scale.reshape(row) * x / jnp.sqrt((x * x).mean(-1, keepdims=True) + epsilon)
        return out + offset.reshape(row) if centred else out

    operation, arrays = (LAYER_NORM, (x, *vectors)) if centred else (RMS_NORM, (x, vectors[0]))
    return elementwise(operation, name, plain, arrays, epsilon, dims=("B T D", "D", "D")[: len(arrays)])


NORMS = [
    norm(name, x, centred=centred, epsilon=epsilon)
    for centred in (False, True)
    for name, x, epsilon in (
        ("typical", normal(4, 6, 8), 1e-6),
        ("one row of width one", normal(1), 1e-2),
        ("odd sizes and heads", normal(2, 3, 3, 129), 1e-6),
        ("rows of zeros and of ties", np.float32([[0] * 4, [3] * 4]), 1e-2),
        ("tiny rows, which epsilon governs", normal(2, 5) * np.float32(1e-4), 1e-6),
        ("huge rows", normal(2, 5) * np.float32(1e12), 1e-6),
    )
]


def rotary(name, positions, *, heads=2, width=6, pairing=Pairing.HALVES, batch=None):
    positions = np.asarray(positions)
    angles = positions[..., None] * 10.0 ** -np.arange(width // 2)
    cos, sin = (f(angles).astype(np.float32) for f in (np.cos, np.sin))
    x = normal(batch or len(positions), positions.shape[1], heads, width)

    def plain(x):
        c, s = (jnp.asarray(t, x.dtype)[:, :, None] for t in (cos, sin))
        if pairing is Pairing.HALVES:
            a, b = x[..., : width // 2], x[..., width // 2 :]
            return jnp.concatenate((a * c - b * s, a * s + b * c), -1)
        a, b = x[..., ::2], x[..., 1::2]
        return jnp.stack((a * c - b * s, a * s + b * c), -1).reshape(x.shape)

    case = elementwise(ROTATE, name, plain, (x,), dims=("B T H C",))
    return Case(**vars(case) | {"arguments": lambda arrays, _: (*arrays, jnp.asarray(cos), jnp.asarray(sin), pairing)})


ROTATIONS = [
    rotary("typical", [[0, 1, 2, 3, 4, 5]] * 4, heads=4),
    rotary("neighbours", [[0, 1, 2]], pairing=Pairing.NEIGHBOURS),
    rotary("length one, one pair", [[7]], width=2),
    rotary("out of order, rows apart", [[5, 0, 900, 3], [1, 1, 0, 2]]),
    rotary("positions that rows share", [[4, 2, 0]], batch=3, pairing=Pairing.NEIGHBOURS),
    rotary("odd sizes", [range(127)], heads=3, width=2),
]

PLAIN_ACTIVATIONS = {
    Activation.SILU: lambda x: x / (1 + jnp.exp(-x)),
    Activation.GELU: lambda x: x * (1 + jax.lax.erf(x / np.sqrt(2).astype(x.dtype))) / 2,
    Activation.GELU_TANH: lambda x: x * (1 + jnp.tanh(np.sqrt(2 / np.pi).astype(x.dtype) * (x + 0.044715 * x**3))) / 2,
    Activation.RELU: lambda x: jnp.where(x > 0, x, 0),
    Activation.RELU_SQUARED: lambda x: jnp.where(x > 0, x * x, 0),
}


def gated(name, gates, activation):
    def plain(gates, values):
        return PLAIN_ACTIVATIONS[activation](gates) * values

    return elementwise(GATE, name, plain, (gates, normal(*gates.shape, seed=1)), activation, dims=("B T F", "B T F"))


def special(gates):
    """Returns the numbers with ties at zero and some far out among them."""
    gates[0, :6] = 0, -0.0, 20, -20, 60, -60
    return gates


GATES = [
    gated("typical", normal(4, 6, 8), Activation.SILU),
    *(gated(f"{kind.value}, odd sizes, ties at zero, far out", special(normal(3, 127)), kind) for kind in Activation),
]

CASES = [*ATTENTION, *PRODUCTS, *LOSSES, *OBJECTIVES, *DIVERGENCES, *NORMS, *ROTATIONS, *GATES, *ROWS, *FORMS]
TYPICAL = [case for case in CASES if case.name == "typical"]
