import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain import normal
from torch_peer import as_near, torch_answers

from cupola.core.dtype import FLOAT32
from cupola.layers.convolution import Conv1d
from cupola.layers.convolution2d import Conv2d
from cupola.layers.weight_norm import WeightNorm

FLAT = Conv1d(width=3, outputs=4, taps=5, stride=2)
PLANE = Conv2d(width=3, outputs=4, taps=(3, 5))
INPUTS = {"flat": normal(2, 9, 3), "plane": normal(2, 6, 9, 3)}


def made(inner):
    norm = WeightNorm(precision=FLOAT32, inner=inner)
    p = norm.init(jax.random.key(0))
    return norm, {"inner": p["inner"] | {"bias": normal(4, seed=2)}, "length": 1 + 0.3 * normal(4, seed=3)}


@pytest.mark.parametrize(("inner", "x"), [(FLAT, "flat"), (PLANE, "plane")], ids=["1d", "2d"])
def test_the_angle_alone_of_a_direction_counts(inner, x):
    norm, p = made(inner)
    longer = p | {"inner": p["inner"] | {"weight": 7 * p["inner"]["weight"]}}
    # A length is rounded twice, and a sum of 45 products.
    np.testing.assert_allclose(norm(p, INPUTS[x]), norm(longer, INPUTS[x]), atol=64 * np.finfo(np.float32).eps)
    doubled = np.asarray(norm(p | {"length": 2 * p["length"]}, INPUTS[x]))
    bias = np.asarray(p["inner"]["bias"])
    np.testing.assert_allclose(doubled - bias, 2 * (np.asarray(norm(p, INPUTS[x])) - bias), atol=1e-5)
    assert np.abs(doubled - norm(p, INPUTS[x])).max() > 0.1


def test_is_torchs(tmp_path):
    norms = {"flat": made(FLAT), "plane": made(PLANE)}
    given = {f"{name}_{part}": p["inner"][part] for name, (_, p) in norms.items() for part in ("weight", "bias")}
    given |= {f"{name}_length": p["length"] for name, (_, p) in norms.items()}
    theirs = torch_answers(
        tmp_path,
        """
from torch.nn.utils.parametrizations import weight_norm
flat, plane = weight_norm(nn.Conv1d(3, 4, 5, 2, 2)), weight_norm(nn.Conv2d(3, 4, (3, 5), 1, (1, 2)))
made = {}
for name, conv in (("flat", flat), ("plane", plane)):
    kept = conv.parametrizations.weight
    shape = kept.original1.shape
    kept.original0.data = given[name + "_length"].reshape(-1, *[1] * (len(shape) - 1))
    kept.original1.data = given[name + "_weight"].movedim((-1, -2), (0, 1)).contiguous()
    conv.bias.data = given[name + "_bias"]
    made[name] = conv(given[name].movedim(-1, 1)).movedim(1, -1)
return made
""",
        **INPUTS,
        **given,
    )
    for name, (norm, p) in norms.items():
        assert as_near(norm(p, INPUTS[name]), theirs[name])


def test_a_direction_of_nothing_has_a_gradient():
    norm, p = made(FLAT)
    nothing = p | {"inner": p["inner"] | {"weight": jnp.zeros_like(p["inner"]["weight"])}}
    gradient = jax.grad(lambda p: norm(p, INPUTS["flat"]).sum())(nothing)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_it_has_a_length_for_each_output():
    norm, _ = made(FLAT)
    assert norm.count() == 5 * 3 * 4 + 4 + 4
