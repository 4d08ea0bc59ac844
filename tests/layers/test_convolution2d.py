import jax
import jax.numpy as jnp
import numpy as np
import plain
import pytest
from jax.sharding import PartitionSpec
from plain import normal
from torch_peer import as_near, torch_answers

from cupola.core.dtype import BFLOAT16, FLOAT32
from cupola.core.errors import ConfigError
from cupola.core.mesh import MeshShape
from cupola.core.partition import Rules, shardings
from cupola.layers.convolution2d import Conv2d

FORMS = [
    {"taps": (3, 5), "stride": (1, 2)},
    {"taps": (5, 3), "stride": (2, 1)},
    {"taps": (1, 7)},
    {"taps": (3, 3), "stride": (2, 2), "bias": False},
]


def made(**fields):
    conv = Conv2d(precision=FLOAT32, width=4, outputs=3, **fields)
    p = conv.init(jax.random.key(1))
    return conv, (p | {"bias": normal(3, seed=2)} if conv.bias else p)


def formula(conv):
    """The sum over taps, place by place."""

    def run(p, x):
        (high, wide), (down, right) = conv.taps, conv.stride
        padded = np.pad(x, ((0, 0), (high // 2,) * 2, (wide // 2,) * 2, (0, 0)))
        rows, columns = (-(-size // stride) for size, stride in zip(x.shape[1:3], conv.stride, strict=True))
        out = np.zeros((len(x), rows, columns, conv.outputs), x.dtype)
        for t, k in np.ndindex(rows, columns):
            seen = padded[:, t * down : t * down + high, k * right : k * right + wide]
            out[:, t, k] = np.einsum("bvwd,vwdf->bf", seen, p["weight"]) + p.get("bias", x.dtype.type(0))
        return out

    return run


@pytest.mark.parametrize("fields", FORMS, ids=str)
def test_is_the_sum_over_taps(fields):
    conv, p = made(**fields)
    assert plain.matches(conv(p, normal(2, 6, 9, 4)), formula(conv), p, normal(2, 6, 9, 4))


def test_is_torchs(tmp_path):
    conv, p = made(taps=(5, 3), stride=(2, 1))
    x = normal(2, 7, 8, 4)
    theirs = torch_answers(
        tmp_path,
        """
        weight, x = given["weight"].permute(3, 2, 0, 1), given["x"].permute(0, 3, 1, 2)
        return {"out": nn.functional.conv2d(x, weight, given["bias"], (2, 1), (2, 1)).permute(0, 2, 3, 1)}
        """.replace("\n        ", "\n"),
        x=x,
        **p,
    )
    assert as_near(conv(p, x), theirs["out"])


def test_products_of_bf16_are_summed_in_float32():
    conv, p = made(taps=(3, 3))
    x, still = normal(2, 5, 6, 4), p | {"bias": 0 * p["bias"]}
    low = conv.replace("precision", BFLOAT16)
    rounded = jax.tree.map(lambda v: v.astype(jnp.bfloat16).astype(jnp.float32), (still, x))
    assert plain.matches(low(still, x), formula(conv), *rounded)


def test_a_size_of_one_is_split_by_no_mesh():
    mesh = MeshShape(fsdp=2, tensor=4).build()
    places = shardings(Conv2d(precision=FLOAT32, width=1, outputs=8, taps=(3, 3)).specs(), mesh, Rules())
    assert places["weight"].spec == PartitionSpec(None, None, None, "tensor")
    places = shardings(Conv2d(precision=FLOAT32, width=8, outputs=1, taps=(3, 3)).specs(), mesh, Rules())
    assert places["weight"].spec == PartitionSpec(None, None, "fsdp", None)
    assert places["bias"].spec == PartitionSpec(None)


@pytest.mark.parametrize("fields", [{"taps": (2, 3)}, {"taps": (3, 0)}, {"taps": (3, 3), "stride": (0, 1)}])
def test_sizes_that_cannot_be_are_refused(fields):
    with pytest.raises(ConfigError, match=r"taps=.*\nUse 1 or more, and odd taps"):
        made(**fields)
