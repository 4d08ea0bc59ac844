import jax
import jax.numpy as jnp
import numpy as np
import plain
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from plain import normal
from torch_peer import as_near, torch_answers

from cupola.core.context import Context, Mode
from cupola.core.dtype import FLOAT32, Precision
from cupola.core.errors import ConfigError
from cupola.core.mesh import MeshShape
from cupola.core.partition import Rules, shardings
from cupola.core.state import with_state
from cupola.layers.batch_norm import BatchNorm
from cupola.layers.convolution import within

WIDTH = 4
NORM = BatchNorm(precision=FLOAT32, channels=WIDTH, rate=0.3)
TRAIN, EVALUATE = Context(mode=Mode.TRAIN), Context()
P = {
    "scale": normal(WIDTH, seed=1),
    "shift": normal(WIDTH, seed=2),
    "mean": normal(WIDTH, seed=3),
    "variance": jnp.square(normal(WIDTH, seed=4)) + 0.5,
}
X = 3 + 2 * normal(5, 7, WIDTH)
LENGTHS = jnp.array([7, 3, 0, 5, 1])


def formula(p, x, kept=None):
    """What comes out, and the next mean and variance, of the frames that there are."""
    frames = x.reshape(-1, WIDTH) if kept is None else x[kept]
    count = x.dtype.type(len(frames))
    mean, variance = frames.mean(0), np.square(frames - frames.mean(0)).mean(0)
    out = (x - mean) / np.sqrt(variance + x.dtype.type(NORM.epsilon)) * p["scale"] + p["shift"]
    rate, unbiased = x.dtype.type(NORM.rate), variance * count / (count - 1)
    return out, (1 - rate) * p["mean"] + rate * mean, (1 - rate) * p["variance"] + rate * unbiased


def test_in_training_by_the_batch_and_the_running_ones_move():
    out, said = NORM(P, X, context=TRAIN)
    for i, ours in enumerate((out, said.state["mean"], said.state["variance"])):
        assert plain.matches(ours, lambda p, x, i=i: formula(p, x)[i], P, X)


def test_in_evaluation_by_the_running_ones():
    out, said = NORM(P, X, context=EVALUATE)

    def running(p, x):
        root = np.sqrt(p["variance"] + x.dtype.type(NORM.epsilon))
        return (x - p["mean"]) / root * p["scale"] + p["shift"]

    assert plain.matches(out, running, P, X)
    assert said.state == {}


def test_frames_that_are_not_there_do_not_count():
    mask = within(LENGTHS, 7)
    poisoned = jnp.where(mask[..., None], X, jnp.nan)
    out, said = NORM(P, poisoned, mask, context=TRAIN)
    kept = np.asarray(mask)
    for i, ours in enumerate((np.asarray(out)[kept], said.state["mean"], said.state["variance"])):
        assert plain.matches(
            ours, lambda p, x, i=i: formula(p, x, kept)[i][kept] if i == 0 else formula(p, x, kept)[i], P, X
        )
    _, leaked = NORM(P, X, context=TRAIN)
    assert abs(leaked.state["mean"] - said.state["mean"]).max() > 0.01


def test_no_gradient_comes_from_frames_that_are_not_there_nor_to_the_statistics():
    mask = within(LENGTHS, 7)

    def loss(p, x):
        out, said = NORM(p, x, mask, context=TRAIN)
        return jnp.where(mask[..., None], jnp.square(out * normal(5, 7, WIDTH, seed=9)), 0).sum() + sum(
            v.sum() for v in said.state.values()
        )

    to_p, to_x = jax.grad(loss, (0, 1))(P, X)
    assert not to_x[~mask].any()
    assert to_x[mask].any()
    assert not to_p["mean"].any()
    assert not to_p["variance"].any()


def test_a_batch_of_nothing_leaves_the_statistics():
    out, said = NORM(P, X, jnp.zeros((5, 7), bool), context=TRAIN)
    assert jnp.isfinite(out).all()
    assert (said.state["mean"] == P["mean"]).all()
    assert (said.state["variance"] == P["variance"]).all()


def test_the_statistics_find_those_of_the_data():
    p = NORM.init(jax.random.key(0))
    for seed in range(40):
        _, said = NORM(p, 3 + 2 * normal(20, 7, WIDTH, seed=seed), context=TRAIN)
        p = with_state(p, said, NORM.specs())
    # The mean of about 2 / rate batches of 140 frames.
    assert abs(p["mean"] - 3).max() < 5 * 2 / np.sqrt(140 * 2 / NORM.rate)
    assert abs(p["variance"] / 4 - 1).max() < 5 * np.sqrt(2 / (140 * 2 / NORM.rate))


def test_statistics_are_float32_whatever_the_rest_is():
    low = NORM.replace("precision", Precision(param=np.dtype("bfloat16"), output=np.dtype("bfloat16")))
    p = low.init(jax.random.key(0))
    assert {name: x.dtype.name for name, x in p.items()} == {
        "scale": "bfloat16",
        "shift": "bfloat16",
        "mean": "float32",
        "variance": "float32",
    }
    out, said = low(p, X.astype(jnp.bfloat16), context=TRAIN)
    assert (out.dtype, said.state["mean"].dtype) == (jnp.bfloat16, jnp.float32)


@pytest.mark.parametrize("axes", [{"data": 2}, {"data": 2, "fsdp": 2}], ids=str)
def test_over_a_sharded_batch_the_mean_is_of_the_whole_batch(axes):
    mesh = MeshShape(**axes).build()
    x, lengths = 3 + normal(4, 6, WIDTH), jnp.array([6, 0, 2, 5])  # shares of unequal size

    def step(p, x, lengths):
        out, said = NORM(p, x, within(lengths, x.shape[1]), context=TRAIN)
        return out, with_state(p, said, NORM.specs())

    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    places = shardings(NORM.specs(), mesh, Rules())
    placed = jax.device_put(P, places), jax.device_put(x, rows), jax.device_put(lengths, rows)
    split = jax.jit(step, out_shardings=(rows, places))(*placed)
    alone = jax.jit(step)(P, x, lengths)
    assert plain.reordered(split, alone, 8)
    assert split[1]["mean"].sharding == places["mean"]
    # Each device by itself would have found another mean.
    first = NORM(P, x[:1], context=TRAIN)[1].state["mean"]
    assert abs(first - alone[1]["mean"]).max() > 0.01


@pytest.mark.parametrize("fields", [{"rate": 0.0}, {"rate": 1.5}, {"epsilon": 0.0}])
def test_a_rate_that_cannot_be_is_refused(fields):
    with pytest.raises(ConfigError, match="rate: rate=.*\nUse such as 0.1 and 1e-5"):
        BatchNorm(precision=FLOAT32, channels=3, **fields)


TORCH = """
norm = nn.BatchNorm1d(4, momentum=0.3)
norm.load_state_dict({"weight": given["scale"], "bias": given["shift"], "running_mean": given["mean"],
                      "running_var": given["variance"], "num_batches_tracked": torch.tensor(0)})
x = given["x"].mT.clone().requires_grad_()
trained = norm(x)
(trained * given["pull"].mT).sum().backward()
return {"trained": trained.mT, "gradient": x.grad.mT, "scale": norm.weight.grad, "mean": norm.running_mean,
        "variance": norm.running_var, "evaluated": norm.eval()(x).mT}
"""


def test_is_torchs(tmp_path):
    pull = normal(5, 7, WIDTH, seed=7)
    theirs = torch_answers(tmp_path, TORCH, x=X, pull=pull, **P)
    out, said = NORM(P, X, context=TRAIN)
    to_p, to_x = jax.grad(lambda p, x: (NORM(p, x, context=TRAIN)[0] * pull).sum(), (0, 1))(P, X)
    evaluated, _ = NORM(with_state(P, said, NORM.specs()), X, context=EVALUATE)
    ours = {"trained": out, "gradient": to_x, "scale": to_p["scale"], "evaluated": evaluated, **said.state}
    assert {name: as_near(ours[name], theirs[name]) for name in theirs} == dict.fromkeys(theirs, True)
