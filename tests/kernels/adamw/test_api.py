"""AdamW and the norm of a tree: every implementation against the equation in float64, and what a trainer relies on."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from judge import DRAWS, SLACK

from cupola.core.errors import Unsupported
from cupola.kernels.adamw import Rule, adamw, global_norm
from cupola.kernels.adamw.api import ADAMW, GLOBAL_NORM

SHAPES = ((), (5,), (8, 24), (0, 4), (2, 3, 16), (32768 + 33,))
"""A number, an odd few, what divides over devices, nothing, and what is longer than a thread's piece."""
RULE = Rule(
    multipliers=(1.0, 2.0, 1.0, 1.0, 0.5, 1.0), decays=(0.1, 0.0, 0.2, 0.1, 0.0, 0.1), b1=0.9, b2=0.95, epsilon=1e-8
)
NOW = {"rate": jnp.float32(0.01), "count": jnp.int32(3), "scale": jnp.float32(0.5)}
FORMATS = [("float32", "float32"), ("float32", "bfloat16"), ("bfloat16", "bfloat16")]


def tree(seed, dtype="float32"):
    draws = np.random.default_rng(seed)
    return [jnp.asarray(draws.normal(size=shape).astype(np.float32), dtype) for shape in SHAPES]


def given(params="float32", gradients="float32", draw=0):
    squares = [x * x for x in tree(3 + 10 * draw)]
    return tree(10 * draw, params), tree(1 + 10 * draw, gradients), tree(2 + 10 * draw), squares


CALLABLE = [i.name for i in ADAMW.implementations if not i.refuses(*given(), RULE, *NOW.values())]


def step(implementation, **options):
    return jax.jit(lambda *trees: adamw(*trees, rule=RULE, **NOW, implementation=implementation), **options)


def equation(params, gradients, means, squares):
    """The step in float64, leaf by leaf."""
    moved, first, second = [], [], []
    count = int(NOW["count"])
    for p, g, m, v, multiplier, decay in zip(
        params, gradients, means, squares, RULE.multipliers, RULE.decays, strict=True
    ):
        p, g, m, v = (np.asarray(x, np.float64) for x in (p, g, m, v))
        g = float(NOW["scale"]) * g
        m, v = RULE.b1 * m + (1 - RULE.b1) * g, RULE.b2 * v + (1 - RULE.b2) * g * g
        direction = m / (1 - RULE.b1**count) / (np.sqrt(v / (1 - RULE.b2**count)) + RULE.epsilon)
        moved.append(p - float(NOW["rate"]) * (multiplier * direction + decay * p))
        first.append(m)
        second.append(v)
    return moved, first, second


@cache
def judged(params, gradients):
    """Returns what is given, the truth, and for each result how far from it one may be: twice the plain formula's error."""
    errors = []
    for draw in range(DRAWS):
        trees = given(params, gradients, draw)
        true, plain = jax.tree.leaves(equation(*trees)), jax.tree.leaves(step("reference")(*trees))
        errors.append([np.abs(np.asarray(a, np.float64) - b).max(initial=0) for a, b in zip(plain, true, strict=True)])
        last = [
            SLACK * float(jnp.finfo(a.dtype).eps) * np.abs(b).max(initial=0) for a, b in zip(plain, true, strict=True)
        ]
        if draw == 0:
            first = trees, true, last
    trees, true, last = first
    return trees, true, 2 * np.max(errors, axis=0) + last


def same(trees, others):
    return all(map(np.array_equal, jax.tree.leaves(trees), jax.tree.leaves(others)))


@pytest.mark.parametrize("formats", FORMATS, ids=str)
@pytest.mark.parametrize("implementation", CALLABLE)
def test_a_step_is_the_equations(implementation, formats):
    trees, true, allowed = judged(*formats)
    moved = jax.tree.leaves(step(implementation)(*trees))
    assert [x.dtype.name for x in moved[: len(SHAPES)]] == [formats[0]] * len(SHAPES)
    assert {x.dtype.name for x in moved[len(SHAPES) :]} == {"float32"}
    for got, expected, far in zip(moved, true, allowed, strict=True):
        assert (np.abs(np.asarray(got, np.float64) - expected) <= far).all()


@pytest.mark.parametrize("change", [{"b1": 0.8}, {"b2": 0.9}, {"decays": (0.0,) * 6}, {"multipliers": (1.0,) * 6}])
def test_another_rule_is_noticed(change):
    trees, true, allowed = judged("float32", "float32")
    other = Rule(**(vars(RULE) | change))
    got = jax.tree.leaves(adamw(*trees, rule=other, **NOW, implementation="reference"))
    assert any((np.abs(np.asarray(a) - b) > far).any() for a, b, far in zip(got, true, allowed, strict=True))


@pytest.mark.parametrize("implementation", CALLABLE)
def test_a_leaf_has_the_same_bits_alone_and_from_run_to_run(implementation):
    trees = given()
    whole = step(implementation)(*trees)
    assert same(step(implementation)(*trees), whole)
    rule = Rule(RULE.multipliers[-1:], RULE.decays[-1:], RULE.b1, RULE.b2, RULE.epsilon)
    alone = jax.jit(lambda *t: adamw(*t, rule=rule, **NOW, implementation=implementation))(*(t[-1:] for t in trees))
    if implementation.startswith("cpu"):  # the compiler rounds as it fuses
        assert same(alone, [t[-1:] for t in whole])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("implementation", CALLABLE)
def test_a_gradient_that_is_not_finite_spoils_its_own_numbers_alone(implementation, bad):
    params, gradients, means, squares = given()
    clean = step(implementation)(params, gradients, means, squares)
    spoilt = step(implementation)(params, [*gradients[:-1], gradients[-1].at[77].set(bad)], means, squares)
    for before, after in zip(clean, spoilt, strict=True):
        assert not np.isfinite(after[-1][77])
        assert same([*after[:-1], np.delete(after[-1], 77)], [*before[:-1], np.delete(before[-1], 77)])


@pytest.mark.parametrize("implementation", CALLABLE)
def test_what_is_donated_is_written_over_and_nothing_is_copied(implementation):
    trees = given()
    made = step(implementation, donate_argnums=(0, 2, 3)).lower(*trees).compile()
    memory = made.memory_analysis()
    assert memory.alias_size_in_bytes == sum(x.nbytes for t in (trees[0], *trees[2:]) for x in t)
    assert memory.temp_size_in_bytes < trees[0][-1].nbytes
    kept = jax.tree.map(jnp.copy, trees)
    assert same(made(*trees), step(implementation)(*kept))


@pytest.mark.parametrize("implementation", CALLABLE)
def test_on_a_mesh_each_device_moves_its_own_part(implementation):
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("fsdp", "tensor"))
    specs = [(), (), ("fsdp", "tensor"), (), (None, None, ("tensor", "fsdp")), ()]
    places = [NamedSharding(mesh, PartitionSpec(*spec)) for spec in specs]
    trees = given()
    cut = [list(map(jax.device_put, t, places)) for t in trees]
    made = step(implementation).lower(*cut).compile()
    assert "all-gather" not in made.as_text()
    moved = made(*cut)
    assert [x.sharding.is_equivalent_to(p, x.ndim) for x, p in zip(moved[0], places, strict=True)] == [True] * 6
    if implementation.startswith("cpu"):
        assert same(moved, step(implementation)(*trees))
    norm = jax.jit(lambda x: global_norm(x, implementation=implementation))
    true = np.sqrt(sum(np.square(np.asarray(x, np.float64)).sum() for x in trees[1]))
    assert abs(float(norm(cut[1])) - true) <= 2 * max(abs(float(norm(trees[1])) - true), np.spacing(np.float32(true)))


@pytest.mark.parametrize("implementation", CALLABLE)
def test_vmap_is_one_after_another(implementation):
    trees = given()
    pairs = [[jnp.stack([x, x + 1]) for x in t] for t in trees]
    mapped = jax.jit(jax.vmap(step(implementation)))(*pairs)
    ones = [step(implementation)(*([x[i] for x in t] for t in pairs)) for i in range(2)]
    for i, one in enumerate(ones):
        if implementation.startswith("cpu"):
            assert same(jax.tree.map(lambda x, i=i: x[i], mapped), one)
    norms = jax.vmap(lambda x: global_norm(x, implementation=implementation))(pairs[1])
    assert norms.shape == (2,)
    assert norms[1] > norms[0]


@pytest.mark.parametrize("implementation", CALLABLE)
def test_the_norm_is_as_exact_as_the_plain_one(implementation):
    norm = jax.jit(lambda x: global_norm(x, implementation=implementation))
    for dtype in ("float32", "bfloat16"):
        errors = []
        for draw in range(DRAWS):
            arrays = tree(draw, dtype)
            true = np.sqrt(sum(np.square(np.asarray(x, np.float64)).sum() for x in arrays))
            plain = global_norm(arrays, implementation="reference")
            errors.append((abs(float(norm(arrays)) - true), abs(float(plain) - true)))
        ours, plain = np.max(errors, axis=0)
        assert ours <= 2 * plain + SLACK * np.spacing(np.float32(true))


@pytest.mark.parametrize("implementation", CALLABLE)
def test_the_norm_of_hostile_trees(implementation):
    norm = jax.jit(lambda x: global_norm(x, implementation=implementation))
    assert norm([]) == 0
    assert norm([jnp.zeros((0, 3)), jnp.zeros(7)]) == 0
    assert norm([jnp.asarray([-3.0, 0, 0]), jnp.float32(4)]) == 5
    for bad in (np.nan, np.inf, -np.inf, 3e38):
        assert not np.isfinite(norm([jnp.zeros(99), jnp.zeros(40000).at[39999].set(bad)]))


def test_dtypes_that_native_code_does_not_take_are_refused():
    if not any(name.startswith("cpu") for name in CALLABLE):
        pytest.skip("no native library")
    half = [x.astype(jnp.float16) for x in tree(1)]
    with pytest.raises(Unsupported, match="gradients are float16, and it takes float32 and bfloat16"):
        adamw(tree(0), half, tree(2), tree(3), rule=RULE, **NOW, implementation="cpu")
    with pytest.raises(Unsupported, match="means are float16, and it takes float32"):
        adamw(tree(0), tree(1), half, tree(3), rule=RULE, **NOW, implementation="cpu")
    with pytest.raises(Unsupported, match="arrays are float16"):
        global_norm(half, implementation="cpu")
    assert GLOBAL_NORM.choose(None, half).name == "xla"
