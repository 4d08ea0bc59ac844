import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optax import contrib

from cupola.core.errors import ConfigError
from cupola.core.param import Param
from cupola.optim.muon import COEFFICIENTS, Muon, Size, newton_schulz
from cupola.optim.optimizer import Momentum

FLOAT32, BFLOAT16 = jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)

compiled = jax.jit(newton_schulz, static_argnums=(1, 2))


def values_after(values, iterations):
    """What the polynomial makes of singular values, in float64."""
    a, b, c = COEFFICIENTS
    for _ in range(iterations):
        values = a * values + b * values**3 + c * values**5
    return values


def normalised(matrices):
    values = np.linalg.svd(np.asarray(matrices, np.float64), compute_uv=False)
    return values / np.sqrt(np.sum(values**2, -1, keepdims=True))


@pytest.mark.parametrize("shape", [(2, 16, 16), (2, 16, 40), (3, 40, 16), (1, 1, 5)])
def test_newton_schulz_moves_singular_values_as_its_polynomial_does(key, shape):
    matrices = jax.random.normal(key, shape)
    after = np.linalg.svd(compiled(matrices, 5, FLOAT32), compute_uv=False)
    expected = np.sort(values_after(normalised(matrices), 5))[..., ::-1]
    # Each iteration multiplies the error of a small value by up to 3.4: 3.4^5 = 454 roundings.
    np.testing.assert_allclose(after, expected, atol=454 * 6e-8)


@pytest.mark.parametrize("compute", [FLOAT32, BFLOAT16], ids=str)
@pytest.mark.parametrize("shape", [(2, 16, 64), (2, 64, 16)])
def test_result_is_near_orthogonal_and_keeps_the_directions(key, compute, shape):
    matrices = jax.random.normal(key, shape)
    result = np.asarray(compiled(matrices, 5, compute))
    values = np.linalg.svd(result, compute_uv=False)
    assert values.min() > 0.65
    assert values.max() < 1.2
    left, _, right = np.linalg.svd(np.asarray(matrices), full_matrices=False)
    # The nearest orthogonal matrix is U V^T, from which each direction is as far as its value from 1.
    distance = np.linalg.norm(result - left @ right, axis=(1, 2))
    assert (distance < 0.35 * np.sqrt(min(shape[1:]))).all()


def test_matrices_that_were_not_iterated_are_not_orthogonal(key):
    values = normalised(jax.random.normal(key, (2, 16, 64)))
    assert values.max() < 0.65


def test_zero_gives_zero_and_tiny_gives_finite():
    assert not compiled(jnp.zeros((1, 4, 8)), 5, BFLOAT16).any()
    assert jnp.isfinite(compiled(jnp.full((1, 4, 8), 1e-30), 5, BFLOAT16)).all()


def test_products_of_bfloat16_are_summed_in_float32(key):
    lowered = jax.jit(lambda x: newton_schulz(x, 5, BFLOAT16)).lower(jax.random.normal(key, (1, 8, 8))).as_text()
    dots = [line.split(" : ")[-1] for line in lowered.splitlines() if "dot_general" in line]
    assert len(dots) == 15
    assert set(dots) == {"(tensor<1x8x8xbf16>, tensor<1x8x8xbf16>) -> tensor<1x8x8xf32>"}


def direction(optimizer, specs, grads):
    transform = optimizer.directions(specs)
    return jax.jit(transform.update)(grads, transform.init(grads))[0]


@pytest.mark.parametrize("compute", [FLOAT32, BFLOAT16], ids=str)
def test_a_stack_moves_as_its_members_alone(key, compute):
    one = Param((8, 12), "D F")
    optimizer = Muon(rate=0.1, compute=compute)
    stacked = jax.random.normal(key, (3, 8, 12)) * jnp.array([1.0, 10.0, 1e-3])[:, None, None]
    together = direction(optimizer, {"up": one.stack("L", 3)}, {"up": stacked})["up"]
    for layer in range(3):
        alone = direction(optimizer, {"up": one}, {"up": stacked[layer]})["up"]
        np.testing.assert_allclose(together[layer], alone, atol=454 * 6e-8 if compute == FLOAT32 else 454 * 2**-9)


@pytest.mark.parametrize(
    ("param", "flat"),
    [(Param((8, 2, 4), "D H C"), (8, 8)), (Param((2, 4, 6), "H C D", inputs=2), (8, 6))],
)
def test_dims_that_make_up_a_fan_are_one(key, param, flat):
    grads = jax.random.normal(key, param.shape)
    optimizer = Muon(rate=0.1, compute=FLOAT32)
    whole = direction(optimizer, {"w": Param(flat, "D F")}, {"w": grads.reshape(flat)})["w"]
    np.testing.assert_array_equal(direction(optimizer, {"w": param}, {"w": grads})["w"].reshape(flat), whole)


@pytest.mark.parametrize("form", list(Momentum))
@pytest.mark.parametrize(("size", "rms"), [(Size.ADAM, 0.2), (Size.SPECTRAL, None)])
def test_moves_as_optax_muon_does(key, form, size, rms):
    specs = {"up": Param((8, 12), "D F"), "down": Param((12, 8), "F D")}
    params = {name: jax.random.normal(key, p.shape) for name, p in specs.items()}
    grads = jax.tree.map(lambda p: jnp.sin(3 * p), params)
    ours = Muon(rate=0.1, form=form, size=size, decay=0.3, compute=FLOAT32)
    theirs = contrib.muon(0.1, weight_decay=0.3, nesterov=form is Momentum.NESTEROV, consistent_rms=rms)
    moved, _ = jax.jit(lambda p: ours.update(grads, ours.init(p, specs), p, specs, jnp.float32(0)))(params)
    updates, _ = jax.jit(lambda p: theirs.update(grads, theirs.init(p), p))(params)
    for name in specs:
        # A first gradient decides the direction alone, so the two ways to weigh momentum agree. The
        # direction, known to 454 roundings on either side, is multiplied by at most 0.1 * sqrt(12 / 8).
        np.testing.assert_allclose(moved[name], params[name] + updates[name], atol=0.1 * 1.23 * 2 * 454 * 6e-8)


def test_size_adam_has_root_mean_square_one_fifth(key):
    param = Param((64, 16), "D F")
    optimizer = Muon(rate=1.0, decay=0.0)
    params = {"w": jnp.zeros(param.shape)}
    specs, grads = {"w": param}, {"w": jax.random.normal(key, param.shape)}
    moved, _ = jax.jit(lambda p: optimizer.update(grads, optimizer.init(p, specs), p, specs, jnp.float32(0)))(params)
    assert jnp.sqrt(jnp.mean(moved["w"] ** 2)) == pytest.approx(0.2, rel=0.32)  # values lie in 0.68 .. 1.13


def test_refuses_vectors_by_path(specs, params):
    with pytest.raises(ConfigError, match=r"Group\(match='stack.norm'") as raised:
        Muon(rate=0.1).init(params, specs)
    assert raised.value.where == "stack.norm"


@pytest.mark.parametrize(
    ("change", "where"),
    [({"compute": np.dtype("float16")}, "compute"), ({"iterations": 0}, "iterations"), ({"momentum": 1.0}, "momentum")],
)
def test_refuses_what_it_cannot_do(change, where):
    with pytest.raises(ConfigError) as raised:
        Muon(rate=0.1, **change)
    assert raised.value.where == where
