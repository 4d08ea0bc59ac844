import jax.numpy as jnp
import numpy as np
import plain
from plain import normal

from cupola.core.dtype import FLOAT32, Precision
from cupola.layers.norm import LayerNorm, RMSNorm


def test_an_offset_is_part_of_the_scale_and_not_of_what_is_kept(key):
    norm, x = RMSNorm(precision=FLOAT32, width=8, offset=1.0), normal(3, 8)
    p = norm.init(key)
    assert not p["scale"].any()
    np.testing.assert_allclose(
        norm(p, x), plain.rms_norm(np.asarray(x), 1 + np.asarray(p["scale"]), RMSNorm()), rtol=1e-6
    )


def test_an_offset_is_added_in_float32(key):
    norm = RMSNorm(precision=Precision(param=np.dtype("bfloat16")), width=2, epsilon=0.0, offset=1.0)
    p = {"scale": jnp.full(2, 2**-9, jnp.bfloat16)}  # half of what 1 in bf16 can be told apart from
    assert (norm(p, jnp.ones((1, 2))) == 1 + 2**-9).all()


def test_layer_norm_is_the_plain_formula(key):
    norm, x = LayerNorm(precision=FLOAT32, width=8, epsilon=1e-2), normal(3, 8)
    p = {"scale": normal(8, seed=1), "offset": normal(8, seed=2)}

    def formula(p, x):
        away = x - x.mean(-1, keepdims=True)
        root = np.sqrt((away * away).mean(-1, keepdims=True) + x.dtype.type(norm.epsilon))
        return p["scale"] * away / root + p["offset"]

    assert plain.matches(norm(p, x), formula, p, x)
    assert not plain.matches(norm(p | {"offset": -p["offset"]}, x), formula, p, x)
    begun = norm.init(key)
    assert (begun["scale"] == 1).all()
    assert not begun["offset"].any()
