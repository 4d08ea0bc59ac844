import jax
import jax.numpy as jnp
import numpy as np
import plain
import pytest
from plain import normal
from torch_peer import as_near, torch_answers

from cupola.core.dtype import FLOAT32
from cupola.core.errors import ConfigError
from cupola.layers.location_attention import LocationAttention, Moves, Sees, off_diagonal

ROWS, SYMBOLS, STEPS, QUERY, WIDTH = 3, 6, 4, 5, 4
LENGTHS = jnp.array([SYMBOLS, 3, 0])
VALUES, QUERIES = normal(ROWS, SYMBOLS, WIDTH), normal(STEPS, ROWS, QUERY, seed=1)


def made(**fields):
    layer = LocationAttention(
        precision=FLOAT32, query_width=QUERY, memory_width=WIDTH, hidden=7, filters=3, taps=5, **fields
    )
    p = layer.init(jax.random.key(1))
    return layer, (p | {"bias": normal(7, seed=2)} if layer.bias else p)


def run(layer, p, values, queries, lengths):
    memory = layer.memory(p, values, lengths)

    def step(looked, query):
        mixed, looked = layer.step(p, query, memory, looked)
        return looked, (mixed, looked.weights)

    return jax.lax.scan(step, layer.nowhere(memory), queries)[1]


def formula(layer, lengths=LENGTHS):
    """Row by row, step by step, over what there is alone."""

    def whole(p, values, queries):
        mixed = np.zeros((STEPS, ROWS, WIDTH), values.dtype)
        every = np.zeros((STEPS, ROWS, SYMBOLS), values.dtype)
        for row, count in enumerate(np.asarray(lengths)):
            if not count:
                continue
            last = cumulative = np.zeros(count, values.dtype)
            if layer.moves is Moves.FORWARD:
                last = np.eye(count, dtype=values.dtype)[0]
            own = values[row, :count]
            for t in range(STEPS):
                seen = [cumulative] if layer.sees is Sees.CUMULATIVE else [last, cumulative]
                padded = np.pad(np.stack(seen, -1), ((2, 2), (0, 0)))
                filtered = sum(padded[w : w + count] @ p["filters"][w] for w in range(5))
                sums = own @ p["key"] + filtered @ p["location"] + queries[t, row] @ p["query"]
                scores = np.tanh(sums + p.get("bias", values.dtype.type(0))) @ p["score"]
                last_one = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
                if layer.moves is Moves.FORWARD:
                    reached = (last + np.pad(last, (1, 0))[:-1]) * last_one
                    last_one = reached / reached.sum()
                last, cumulative = last_one, cumulative + last_one
                mixed[t, row], every[t, row, :count] = last @ own, last
        return np.concatenate([mixed, every], -1)

    return whole


@pytest.mark.parametrize("sees", Sees)
@pytest.mark.parametrize("moves", Moves)
@pytest.mark.parametrize("bias", [True, False])
def test_looks_where_the_equations_say(sees, moves, bias):
    layer, p = made(sees=sees, moves=moves, bias=bias)
    poisoned = jnp.where(jnp.arange(SYMBOLS)[None, :, None] < LENGTHS[:, None, None], VALUES, jnp.nan)
    ours = jnp.concatenate(run(layer, p, poisoned, QUERIES, LENGTHS), -1)
    assert plain.matches(ours, formula(layer), p, VALUES, QUERIES)


@pytest.mark.parametrize("moves", Moves)
def test_the_weights_of_a_row_sum_to_one_within_it(moves):
    layer, p = made(moves=moves)
    _, weights = run(layer, p, VALUES, 30 * QUERIES, LENGTHS)  # scores far apart
    np.testing.assert_allclose(weights.sum(-1)[:, :2], 1, rtol=SYMBOLS * plain.EPS)
    assert not weights[:, 2].any()
    assert not weights[:, 1, 3:].any()


def test_forward_attention_goes_at_most_one_on_at_a_step():
    layer, p = made(moves=Moves.FORWARD)
    _, weights = run(layer, p, VALUES, QUERIES, LENGTHS)
    for t in range(STEPS):
        assert not weights[t, 0, t + 2 :].any()
    _, free = run(layer.replace("moves", Moves.ANYWHERE), p, VALUES, QUERIES, LENGTHS)
    assert free[0, 0].all()


def test_where_it_has_looked_matters():
    layer, p = made()
    memory = layer.memory(p, VALUES, LENGTHS)
    start = layer.nowhere(memory)
    first, looked = layer.step(p, QUERIES[0], memory, start)
    again, _ = layer.step(p, QUERIES[0], memory, looked)
    assert abs(first - again).max() > 1e-3


def test_gradients_are_finite_where_there_is_nothing():
    layer, p = made(moves=Moves.FORWARD, sees=Sees.LAST_AND_CUMULATIVE)
    mask = jnp.arange(SYMBOLS)[None, :, None] < LENGTHS[:, None, None]

    def loss(p, values):
        return run(layer, p, jnp.where(mask, values, jnp.nan), QUERIES, LENGTHS)[0].sum()

    for leaf in jax.tree.leaves(jax.grad(loss, (0, 1))(p, VALUES)):
        assert jnp.isfinite(leaf).all()


def test_weight_off_the_diagonal_is_counted():
    frames, symbols = jnp.array([8, 4]), jnp.array([4, 3])
    straight = jax.nn.one_hot(jnp.arange(8) // 2, 4)
    weights = jnp.stack([straight, jnp.full((8, 4), 1 / 4)])

    def counted(weights):
        far = [
            [1 - np.exp(-((s / symbols[row] - t / frames[row]) ** 2) / (2 * 0.3**2)) for s in range(symbols[row])]
            for row in range(2)
            for t in range(frames[row])
        ]
        one = sum((weights[0, t, :4] * far[t]).sum() for t in range(8)) / 8
        two = sum((weights[1, t, :3] * far[8 + t]).sum() for t in range(4)) / 4
        return np.array([one, two])

    ours = off_diagonal(weights, frames, symbols, width=0.3)
    np.testing.assert_allclose(ours, counted(np.asarray(weights)), rtol=1e-5)
    assert ours[0] < ours[1] / 5
    assert off_diagonal(weights[:, ::-1], frames, symbols)[0] > 5 * off_diagonal(weights, frames, symbols)[0]


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="taps: 0\nUse 1 or more"):
        LocationAttention(precision=FLOAT32, query_width=1, memory_width=1, taps=0)


def test_counts_its_flops():
    layer, _ = made(sees=Sees.LAST_AND_CUMULATIVE)
    keys, query = SYMBOLS * WIDTH * 7, QUERY * 7
    a_position = 5 * 2 * 3 + 3 * 7 + 7 + WIDTH  # filters, location, score, mixture
    assert layer.flops(ROWS, STEPS, SYMBOLS) == 2 * ROWS * (keys + STEPS * (query + SYMBOLS * a_position))
    assert layer.flops(1, 4) == layer.flops(1, 4, 4)


TORCH = """
conv = nn.Conv1d(2, 3, 5, padding=2, bias=False)
conv.load_state_dict({"weight": given["filters"].permute(2, 1, 0)})
linears = {}
for name in ("query", "key", "location", "score"):
    weight = given[name] if name != "score" else given[name][:, None]
    linears[name] = nn.Linear(*weight.shape, bias=False)
    linears[name].load_state_dict({"weight": weight.T})
values, beyond = given["values"].clone().requires_grad_(), given["beyond"]
last = cumulative = torch.zeros(2, 6)
mixed, every = [], []
for query in given["queries"]:
    location = linears["location"](conv(torch.stack([last, cumulative], 1)).mT)
    sums = linears["query"](query)[:, None] + linears["key"](values) + location
    scores = linears["score"](torch.tanh(sums))[..., 0].masked_fill(beyond, float("-inf"))
    last = torch.softmax(scores, 1)
    cumulative = cumulative + last
    mixed.append((last[:, None] @ values)[:, 0])
    every.append(last)
(torch.stack(mixed) * given["pull"]).sum().backward()
return {"mixed": torch.stack(mixed), "weights": torch.stack(every), "gradient": values.grad,
        "filters": conv.weight.grad.permute(2, 1, 0)}
"""


def test_is_that_of_modules_of_torch(tmp_path):
    layer, p = made(sees=Sees.LAST_AND_CUMULATIVE, bias=False)
    pull, values, queries, lengths = normal(STEPS, 2, WIDTH, seed=4), VALUES[:2], QUERIES[:, :2], LENGTHS[:2]
    beyond = np.arange(SYMBOLS)[None] >= np.asarray(lengths)[:, None]
    theirs = torch_answers(tmp_path, TORCH, values=values, queries=queries, beyond=beyond, pull=pull, **p)

    def loss(p, values):
        mixed, weights = run(layer, p, values, queries, lengths)
        return (mixed * pull).sum(), (mixed, weights)

    (_, (mixed, weights)), (to_p, to_values) = jax.value_and_grad(loss, (0, 1), has_aux=True)(p, values)
    ours = {"mixed": mixed, "weights": weights, "gradient": to_values, "filters": to_p["filters"]}
    assert {name: as_near(ours[name], theirs[name]) for name in theirs} == dict.fromkeys(theirs, True)
