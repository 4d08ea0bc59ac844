"""The native matrix products: bits, edges, refusals; their values are judged with every implementation's."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.dtype import BFLOAT16, FLOAT32, Precision
from cupola.core.errors import Unsupported
from cupola.kernels.matmul import Activations, Adapted, Grouped, Int8, Packed, dot, dot_experts, pack_groups
from cupola.kernels.matmul.form import dense
from cupola.kernels.native.level import Level
from cupola.kernels.native.library import reasons

LEVELS = [
    pytest.param(f"cpu/{level.value}", marks=pytest.mark.skipif(bool(why), reason="; ".join(why)), id=level.value)
    for level in Level
    for why in [reasons(level)]
]
every_level = pytest.mark.parametrize("native", LEVELS)
POLICIES = {"float32": FLOAT32, "bfloat16": BFLOAT16}
ROWS = (1, 2, 3, 5, 8, 15, 16, 17, 31, 32, 33, 64, 70)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape), jnp.float32)


def groups(inputs, outputs, bits, group=16, zero=None, offset=True, activations=Activations.INT8):
    draw = np.random.default_rng(bits)
    codes = jnp.asarray(draw.integers(0, 256, (outputs, inputs * bits // 8)), jnp.uint8)
    scales, offsets = (jnp.asarray(draw.normal(size=(outputs, inputs // group)), jnp.float16) for _ in range(2))
    how = {"shape": (inputs, outputs), "bits": bits, "zero": 2 ** (bits - 1) if zero is None else zero}
    return pack_groups(Grouped(codes, scales, offsets if offset else None, **how), activations)


def forms(inputs=96, outputs=150):
    """A weight in every form that has a native kernel, by name."""
    matrix = normal(inputs, outputs, seed=1)
    return {
        "packed": Packed.pack(matrix),
        "4 bits": groups(inputs, outputs, 4),
        "8 bits": groups(inputs, outputs, 8),
        "int8": pack_groups(Int8.quantize(matrix)),
        "4 bits, as given": groups(inputs, outputs, 4, activations=Activations.AS_GIVEN),
        "8 bits, as given": groups(inputs, outputs, 8, activations=Activations.AS_GIVEN),
    }


FORMS_AND_POLICIES = [
    (form, name) for form in forms() for name in POLICIES if name == "bfloat16" or "given" not in form
]
every_form_and_policy = pytest.mark.parametrize(("form", "policy"), FORMS_AND_POLICIES)


@every_form_and_policy
@every_level
def test_a_rows_bits_are_the_same_whatever_rows_come_with_it(native, form, policy):
    weight, x = forms()[form], normal(80, 96)
    run = jax.jit(partial(dot, precision=POLICIES[policy], implementation=native))
    whole = np.asarray(run(x, weight))
    np.testing.assert_array_equal(run(x, weight), whole)
    for rows in ROWS:
        for start in (0, 80 - rows):
            np.testing.assert_array_equal(run(x[start : start + rows], weight), whole[start : start + rows])


@pytest.mark.parametrize("rows", [1, 40, 1060])
@every_level
def test_products_that_are_split_among_threads_and_caches_are_whole(native, rows):
    """Wide and deep enough for every way that the work is cut."""
    x, matrix = normal(rows, 1600), normal(1600, 333, seed=1).astype(jnp.bfloat16).astype(jnp.float32)
    for precision in POLICIES.values():
        given = x.astype(precision.compute).astype(jnp.float32)
        exact = np.float64(given) @ np.float64(matrix)
        far = np.abs(dot(x, Packed.pack(matrix), precision, implementation=native) - exact).max()
        plain = np.abs(dot(given, matrix, FLOAT32, implementation="reference") - exact).max()
        assert far <= 2 * plain + np.finfo(np.float32).eps * np.abs(exact).max()


@pytest.mark.parametrize("group", [8, 16, 32, 40, 64, 96, 128])
@every_level
def test_groups_of_every_size_have_the_bits_of_every_level(native, group):
    """With groups that fill a part of a tile, one, several or none, and codes less their zero in 8 bits and in more."""
    x, least = normal(33, 4 * group), f"cpu/{next(iter(Level)).value}"
    for bits, zero, offset in ((4, 8, True), (4, 0, False), (8, 128, False), (8, 0, True)):
        weight = groups(4 * group, 50, bits, group, zero, offset)
        ours, same = (dot(x, weight, BFLOAT16, implementation=name) for name in (native, least))
        np.testing.assert_array_equal(ours, same)


@pytest.mark.parametrize(("bits", "group"), [(4, 8), (4, 40), (8, 8), (8, 40), (4, 160)])
@pytest.mark.parametrize("offset", [True, False], ids=["offsets", "no offsets"])
@pytest.mark.parametrize("scales", [jnp.float16, jnp.float32])
@every_level
def test_codes_beside_activations_as_given_have_the_bits_of_the_packed_matrix(native, bits, group, offset, scales):
    """With inputs that fill whole tiles and that do not, and with rows that are taken in every way."""
    weight = groups(160, 70, bits, group, offset=offset, activations=Activations.AS_GIVEN)
    weight = dataclasses.replace(
        weight,
        scales=weight.scales.astype(scales),
        offsets=None if weight.offsets is None else weight.offsets.astype(scales),
    )
    same = Packed.pack(dense(weight))
    for rows in (1, 16, 40):
        x = normal(rows, 160)
        ours, theirs = (np.asarray(dot(x, form, BFLOAT16, implementation=native)) for form in (weight, same))
        # A scale times a code and an offset are rounded once where the form's own matrix rounds twice.
        assert np.abs(ours - theirs).max() <= float(jnp.finfo(jnp.bfloat16).eps) * np.abs(theirs).max()


@pytest.mark.parametrize("form", forms())
@every_level
def test_what_is_not_finite_stays_in_its_row(native, form):
    x = normal(20, 96)
    spoiled = x.at[3, 50].set(jnp.nan).at[7, 0].set(jnp.inf)
    clean, out = (dot(y, forms()[form], BFLOAT16, implementation=native) for y in (x, spoiled))
    kept = np.delete(np.arange(20), [3, 7])
    np.testing.assert_array_equal(np.asarray(out)[kept], np.asarray(clean)[kept])
    assert jnp.isnan(out[3]).all()
    assert not jnp.isfinite(out[7]).any()


@every_form_and_policy
@every_level
def test_rows_of_zeros_give_zeros_and_no_rows_nothing(native, form, policy):
    weight, precision = forms()[form], POLICIES[policy]
    assert not dot(jnp.zeros((3, 96)), weight, precision, implementation=native).any()
    assert dot(jnp.zeros((0, 96)), weight, precision, implementation=native).shape == (0, 150)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (31, 15), (33, 17)])
@every_level
def test_a_matrix_of_any_size(native, shape):
    x, matrix = jnp.ones((2, shape[0])), jnp.ones(shape)
    for precision in POLICIES.values():
        out = dot(x, Packed.pack(matrix), precision, implementation=native)
        np.testing.assert_array_equal(out, np.full((2, shape[1]), shape[0]))


@every_form_and_policy
@every_level
def test_bf16_activations_are_those_numbers(native, form, policy):
    x = normal(5, 96).astype(jnp.bfloat16)
    out, same = (dot(y, forms()[form], POLICIES[policy], implementation=native) for y in (x, x.astype(jnp.float32)))
    np.testing.assert_array_equal(out, same)


@pytest.mark.parametrize("form", forms())
@every_level
def test_vmap_is_a_loop(native, form):
    run = partial(dot, weight=forms()[form], precision=BFLOAT16, implementation=native)
    x = normal(3, 4, 96)
    np.testing.assert_array_equal(jax.vmap(run)(x), jnp.stack([run(y) for y in x]))


@every_level
def test_a_row_without_an_adapter_has_the_bits_of_the_base(native):
    base, x = forms()["packed"], normal(4, 96)
    form = Adapted(base, normal(6, 96, seed=2), normal(150, 6, seed=3), jnp.zeros((1, 6)), rank=3)
    out = dot(x, form.choosing(jnp.asarray([0, 1, 2, 0])), BFLOAT16, implementation=native)
    bare = dot(x, base, BFLOAT16, implementation=native)
    assert ((out == bare).all(1) == jnp.asarray([True, False, False, True])).all()


@pytest.mark.parametrize("sizes", [[13, 0, 40, 6], [0] * 4, [0, 70, 0, 0], [70, 70, 0, 0]])
@pytest.mark.parametrize("policy", POLICIES)
@every_level
def test_experts_give_the_bits_of_one_product_each(native, policy, sizes):
    precision = POLICIES[policy]
    x, weight = normal(70, 40), Packed.pack(normal(4, 40, 50, seed=1), 1, 1)
    out = dot_experts(x, weight, jnp.asarray(sizes), precision, implementation=native)
    at = 0
    for size, matrix in zip(sizes, dense(weight), strict=True):
        end = min(70, at + size)
        each = dot(x[at:end], Packed.pack(matrix), precision, implementation=native)
        np.testing.assert_array_equal(out[at:end], each)
        at = end
    assert not out[at:].any()


@every_level
def test_experts_pass_gradients_to_the_activations(native):
    x, weight, sizes = normal(7, 40), Packed.pack(normal(2, 40, 6, seed=1), 1, 1), jnp.asarray([3, 2])
    given = normal(7, 6, seed=2)
    (ours,) = jax.vjp(lambda x: dot_experts(x, weight, sizes, FLOAT32, implementation=native), x)[1](given)

    def plainly(dtype):
        g, first, second = np.asarray(given, dtype), *np.asarray(dense(weight), dtype)
        return np.concatenate([g[:3] @ first.T, g[3:5] @ second.T, np.zeros((2, 40), dtype)])

    exact = plainly(np.float64)
    plain = np.abs(plainly(np.float32) - exact).max()
    assert np.abs(ours - exact).max() <= 2 * plain + np.finfo(np.float32).eps * np.abs(exact).max()


@every_level
def test_what_there_is_no_kernel_for_is_refused_with_every_reason(native):
    packed = Packed.pack(normal(4, 6, 3), 2)
    halves = Precision(compute=np.dtype("float16"))
    with pytest.raises(Unsupported, match="compute is float16, and it takes float32 and bfloat16"):
        dot(normal(2, 4, 6), packed, halves, contract=2, implementation=native)
    with pytest.raises(Unsupported, match="x is float16, .*the weight sums over 2 dims, and 1 are asked for"):
        dot(jnp.ones((2, 4), jnp.float16), packed, FLOAT32, implementation=native)
    with pytest.raises(Unsupported, match="kept as Int8, and it takes Packed and PackedGroups"):
        dot(normal(2, 4), Int8.quantize(normal(4, 3)), FLOAT32, implementation=native)
    with pytest.raises(
        Unsupported, match="compute is float32, and codes are made bfloat16 beside activations as given"
    ):
        dot(normal(2, 96), forms()["4 bits, as given"], FLOAT32, implementation=native)
    with pytest.raises(Unsupported, match="it rounds to bfloat16, and precision.compute is float32"):
        dot(normal(2, 4), normal(4, 3), FLOAT32, implementation=native)
    with pytest.raises(Unsupported, match="it takes a stack of Packed"):
        dot_experts(normal(2, 4), normal(1, 4, 3), jnp.asarray([2]), FLOAT32, implementation=native)
