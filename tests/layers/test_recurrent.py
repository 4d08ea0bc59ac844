import jax
import jax.numpy as jnp
import numpy as np
import plain
import pytest
from plain import normal
from torch_peer import as_near, torch_answers

from cupola.core.context import Context, Mode
from cupola.core.dtype import FLOAT32
from cupola.core.errors import ConfigError
from cupola.layers.recurrent import LSTM, BiLSTM, LSTMState, Zoneout, reversed_within

WIDTH, HIDDEN, FRAMES = 5, 6, 7
X, LENGTHS = normal(3, FRAMES, WIDTH), jnp.array([FRAMES, 4, 0])


def made(zoneout=None):
    layer = LSTM(precision=FLOAT32, width=WIDTH, hidden=HIDDEN, zoneout=zoneout)
    return layer, jax.tree.map(lambda x: 2 * x, layer.init(jax.random.key(1)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def formula(p, x, stays=0.0):
    """The textbook, step by step, with the expectation of zoneout."""
    hidden = cell = np.zeros((len(x), HIDDEN), x.dtype)
    shown, stays = [], x.dtype.type(stays)
    for frame in x.swapaxes(0, 1):
        i, f, g, o = np.split(frame @ p["input"] + hidden @ p["recurrent"] + p["bias"], 4, -1)
        new = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = stays * hidden + (1 - stays) * sigmoid(o) * np.tanh(new)
        cell = stays * cell + (1 - stays) * new
        shown.append(hidden)
    return np.stack(shown, 1)


@pytest.mark.parametrize("rate", [None, 0.0, 0.25])
def test_over_time_and_step_by_step_it_is_the_textbook(rate):
    layer, p = made(None if rate is None else Zoneout(rate=rate))

    def wanted(p, x):
        return formula(p, x, rate or 0.0)

    assert plain.matches(layer(p, X), wanted, p, X)

    def step(state, frame):
        state = layer.step(p, frame, state)
        return state, state.hidden

    _, shown = jax.lax.scan(step, layer.empty_state(3), X.swapaxes(0, 1))
    assert plain.matches(shown.swapaxes(0, 1), wanted, p, X)


def test_in_training_zoneout_keeps_a_share_of_each_state():
    layer, p = made(Zoneout(rate=0.25))
    old = LSTMState(hidden=normal(500, HIDDEN, seed=3), cell=normal(500, HIDDEN, seed=4))
    x, context = normal(500, WIDTH, seed=5), Context(mode=Mode.TRAIN, key=jax.random.key(2))
    new = layer.replace("zoneout", None).step(p, x, old)
    mixed = layer.step(p, x, old, context=context)
    for kept, was, would in ((mixed.hidden, old.hidden, new.hidden), (mixed.cell, old.cell, new.cell)):
        assert ((kept == was) | (kept == would)).all()
        share, most = float((kept == was).mean()), 5 * np.sqrt(0.25 * 0.75 / kept.size)
        assert abs(share - 0.25) < most
    assert ((mixed.hidden == old.hidden) != (mixed.cell == old.cell)).any()
    with pytest.raises(ConfigError, match="the call has no key"):
        layer.step(p, x, old, context=Context(mode=Mode.TRAIN))


def test_zoneout_draws_anew_at_each_step():
    layer, p = made(Zoneout(rate=0.5))
    still = jnp.broadcast_to(X[:1, :1], (1, FRAMES, WIDTH))
    context = Context(mode=Mode.TRAIN, key=jax.random.key(2))
    shown = layer(p, still, context=context)[0]
    kept = shown[1:] == shown[:-1]
    assert kept.any()
    assert (kept[0] != kept[1]).any()
    assert (shown == layer(p, still, context=context)[0]).all()


@pytest.mark.parametrize("zoneout", [None, Zoneout(rate=0.25)])
def test_what_is_beyond_a_row_reaches_nothing(zoneout):
    one, _ = made(zoneout)
    both = BiLSTM(precision=FLOAT32, forward=one, backward=one)
    p = both.init(jax.random.key(1))
    poisoned = jnp.where(jnp.arange(FRAMES)[None, :, None] < LENGTHS[:, None, None], X, jnp.nan)
    shown = both(p, poisoned, LENGTHS)
    assert shown.shape == (3, FRAMES, 2 * HIDDEN)
    assert not shown[1, 4:].any()
    assert not shown[2].any()
    assert plain.reordered(shown[1, :4], both(p, X[1:2, :4])[0], 4)
    assert plain.reordered(shown[0], both(p, X[:1])[0], 4)
    assert abs(shown[1, :4] - both(p, X)[1, :4]).max() > 0.01
    gradient = jax.grad(lambda x: both(p, x, LENGTHS).sum())(poisoned)
    assert jnp.isfinite(gradient).all()


def test_from_the_end_is_from_the_start_of_what_is_turned():
    one, _ = made()
    both = BiLSTM(precision=FLOAT32, forward=one, backward=one)
    p = both.init(jax.random.key(1))
    assert plain.matches(both(p, X)[..., HIDDEN:], lambda p, x: formula(p["backward"], x[:, ::-1])[:, ::-1], p, X)
    assert (reversed_within(X, LENGTHS)[1, :, 0] == X[1, jnp.array([3, 2, 1, 0, 4, 5, 6]), 0]).all()


def test_a_rate_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="rate=1.0 is no probability below 1\nUse 0 <= rate < 1"):
        Zoneout(rate=1.0)


def test_counts_its_parameters_and_flops():
    layer, _ = made()
    assert layer.count() == 4 * HIDDEN * (WIDTH + HIDDEN + 1)
    assert layer.flops(2, 3) == 2 * 6 * 4 * HIDDEN * (WIDTH + HIDDEN)
    assert LSTM(width=7, hidden=16, precision=FLOAT32).init(jax.random.key(0))["recurrent"].max() <= 0.25


TORCH = """
def fill(suffix, p):
    own = {"weight_ih": given[p + "input"].T, "weight_hh": given[p + "recurrent"].T, "bias_ih": given[p + "bias"],
           "bias_hh": 0 * given[p + "bias"]}
    return {f"{name}_l0{suffix}": value for name, value in own.items()}

lstm = nn.LSTM(5, 6, batch_first=True, bidirectional=True)
lstm.load_state_dict(fill("", "forward") | fill("_reverse", "backward"))
x, lengths = given["x"].clone().requires_grad_(), given["lengths"]
packed = nn.utils.rnn.pack_padded_sequence(x[:2], lengths[:2], batch_first=True)
shown, _ = nn.utils.rnn.pad_packed_sequence(lstm(packed)[0], batch_first=True)
(shown * given["pull"]).sum().backward()
return {"shown": shown, "gradient": x.grad, "recurrent": lstm.weight_hh_l0_reverse.grad.T}
"""


def test_is_torchs(tmp_path):
    one, _ = made()
    both = BiLSTM(precision=FLOAT32, forward=one, backward=one)
    p, pull = both.init(jax.random.key(1)), normal(2, FRAMES, 2 * HIDDEN, seed=8)
    flat = {way + name: x for way, own in p.items() for name, x in own.items()}
    theirs = torch_answers(tmp_path, TORCH, x=X, lengths=np.asarray(LENGTHS, np.int64), pull=pull, **flat)

    def loss(p, x):
        shown = both(p, x, LENGTHS)
        return (shown[:2] * pull).sum(), shown

    (_, shown), (to_p, to_x) = jax.value_and_grad(loss, (0, 1), has_aux=True)(p, X)
    assert as_near(shown[:2], theirs["shown"])
    assert as_near(to_x, theirs["gradient"])
    assert as_near(to_p["backward"]["recurrent"], theirs["recurrent"])
