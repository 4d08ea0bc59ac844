import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from torch_peer import as_near, torch_answers

from cupola.core.context import Context, Mode
from cupola.core.dtype import FLOAT32
from cupola.core.errors import ConfigError
from cupola.core.mesh import MeshShape
from cupola.core.module import flat_specs
from cupola.core.param import Role
from cupola.core.partition import Rules, shardings
from cupola.core.state import with_state
from cupola.data.audio.batches import SpeechBatch
from cupola.layers.location_attention import Sees
from cupola.models.speech.decoder import FrameDecoder
from cupola.models.speech.encoder import Encoder
from cupola.models.speech.tacotron import PostNet, Tacotron2, as_ported

KEY = jax.random.key(3)
PORTED = 28_193_153
"""Numbers of the common ports of 148 symbols, and what each of their LSTMs holds twice: a second bias."""
SECOND_BIASES = 2 * 4 * 256 + 2 * 4 * 1024


def test_the_ports_form_has_the_ports_numbers():
    model = dataclasses.replace(as_ported(), precision=FLOAT32)
    assert model.count() == PORTED - SECOND_BIASES


def test_the_papers_numbers_follow_from_its_widths():
    model = Tacotron2(precision=FLOAT32, vocabulary=40)
    convolution, norm = 5 * 512 * 512 + 512, 2 * 512
    encoder = 40 * 512 + 3 * (convolution + norm) + 2 * 4 * 256 * (512 + 256 + 1)
    pre_net = 80 * 256 + 256 + 256 * 256 + 256
    lstms = 4 * 1024 * (256 + 512 + 1024 + 1) + 4 * 1024 * (1024 + 512 + 1024 + 1)
    attention = 1024 * 128 + 512 * 128 + 31 * 32 + 32 * 128 + 128 + 128
    shown = (1024 + 512 + 1) * (80 + 1)
    post_net = 5 * 80 * 512 + 512 + norm + 3 * (convolution + norm) + 5 * 512 * 80 + 80 + 2 * 80
    assert model.count() == encoder + pre_net + lstms + attention + shown + post_net
    held = {path for path, param in flat_specs(model.specs()) if param.role is Role.STATE}
    assert len(held) == 2 * (3 + 5)
    assert all(path.endswith(("norm.mean", "norm.variance")) for path in held)


def test_one_number_sets_a_width_everywhere():
    full = Tacotron2(precision=FLOAT32, vocabulary=40)
    quarter = full.replace("encoder.width", 128).replace("post_net.width", 128).replace("decoder.hidden", 256)
    quarter = quarter.replace("decoder.pre_net", 64).replace("decoder.attention", 32)
    assert full.count() / 17 < quarter.count() < full.count() / 13
    assert quarter.abstract()["decoder"]["first"]["input"].shape == (64 + 128, 4 * 256)


@functools.partial(jax.jit, static_argnums=0)
def called(model, p, batch, context):
    given = batch.symbols, batch.symbol_lengths, batch.features, batch.feature_lengths
    return model(p, *given, context=context)


@pytest.mark.parametrize("make", [as_ported, lambda: Tacotron2(vocabulary=40)])
def test_it_lies_on_a_mesh(make):
    model = dataclasses.replace(make(), precision=FLOAT32)
    places = shardings(model.specs(), MeshShape(data=2, fsdp=4).build(), Rules())
    assert places["decoder"]["first"]["recurrent"].spec == PartitionSpec("fsdp", None)


def test_flops_are_those_of_its_products():
    model = Tacotron2(precision=FLOAT32, vocabulary=40)
    # Of one symbol and frame each number is multiplied once, but biases, norms and the look-up.
    matrices = sum(param.size for path, param in flat_specs(model.specs()) if param.is_matrix) - 40 * 512
    assert model.flops(1, 1) == 2 * (matrices + 128 + 512)  # and the score and the mixture of what is looked at
    assert model.flops(2, 80, 20) < model.flops(2, 80) == 2 * model.flops(1, 80)


def run(model, p, batch, context, rows=slice(None)):
    return called(model, p, jax.tree.map(lambda x: jnp.asarray(x[rows]), batch), context)


def test_what_a_row_is_padded_with_reaches_none_of_its_frames(model, p, batch):
    row, count, frames = 0, int(batch.symbol_lengths[0]), int(batch.feature_lengths[0])
    there = np.arange(batch.features.shape[1]) < batch.feature_lengths[:, None]
    poisoned = dataclasses.replace(
        batch,
        symbols=np.where(np.arange(batch.symbols.shape[1]) < batch.symbol_lengths[:, None], batch.symbols, 7),
        features=np.where(there[..., None], batch.features, np.float32(9)),
    )
    context = Context(key=KEY)
    together = run(model, p, poisoned, context)
    alone = run(
        model,
        p,
        SpeechBatch(
            symbols=batch.symbols[:1, :count],
            symbol_lengths=batch.symbol_lengths[:1],
            features=batch.features[:1, :frames],
            feature_lengths=batch.feature_lengths[:1],
        ),
        context,
    )
    for name in ("before", "after", "stops"):
        ours, theirs = (getattr(x, name)[row, :frames] for x in (together, alone))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * abs(theirs).max())
    assert not together.weights[row, :, count:].any()


def test_the_statistics_of_a_batch_do_not_see_padding_and_have_a_place(model, p, batch):
    train = Context(mode=Mode.TRAIN, key=KEY)
    other = dataclasses.replace(batch, symbols=np.where(batch.symbols == 0, 5, batch.symbols))
    said, also = (run(model, p, x, train).aside for x in (batch, other))
    assert len(said.state) == 2 * (3 + 3)
    assert all((value == also.state[path]).all() for path, value in said.state.items())
    moved = with_state(p, said, model.specs())
    assert (moved["post_net"]["net"]["0"]["norm"]["mean"] != p["post_net"]["net"]["0"]["norm"]["mean"]).any()
    assert run(model, p, batch, Context(key=KEY)).aside.state == {}


@pytest.mark.parametrize("each", [1, 2, 5])
def test_told_the_true_frames_it_takes_the_steps_that_it_takes_alone(model, batch, each):
    model = model.replace("decoder.frames_per_step", each)
    p, rows = jax.jit(model.init)(KEY), slice(0, 3)
    whole = run(model, p, batch, Context(key=KEY), rows)
    targets = jnp.asarray(batch.features[rows])
    length = targets.shape[1]

    @jax.jit
    def alone(p, symbols, lengths):
        encoded, _ = model.encoder(p["encoder"], symbols, lengths)
        memory = model.decoder.memory(p["decoder"], encoded, lengths)

        def step(state, before):
            made, state = model.decoder.step(p["decoder"], before, state, memory, context=Context(key=KEY))
            return state, made

        last = [jnp.zeros_like(targets[:, 0]), *(targets[:, t - 1] for t in range(each, length, each))]
        frames, stops, weights = jax.lax.scan(step, model.decoder.empty_state(memory), jnp.stack(last))[1]
        return (
            frames.swapaxes(0, 1).reshape(3, -1, model.bins),
            stops.swapaxes(0, 1).reshape(3, -1),
            jnp.repeat(weights.swapaxes(0, 1), each, axis=1),
        )

    made = alone(p, jnp.asarray(batch.symbols[rows]), jnp.asarray(batch.symbol_lengths[rows]))
    assert length % 5, "the last step makes more frames than there are"
    for ours, theirs in zip(made, (whole.before, whole.stops, whole.weights), strict=True):
        assert theirs.shape[1] == length
        np.testing.assert_allclose(ours[:, :length], theirs, rtol=1e-4, atol=1e-5 * abs(theirs).max())


def test_a_step_of_several_frames_is_told_the_last_of_them_alone(model, batch):
    model = model.replace("decoder.frames_per_step", 3)
    p = jax.jit(model.init)(KEY)

    def moved(at):
        features = batch.features.copy()
        features[:, at] += 1
        one, other = (
            run(model, p, dataclasses.replace(batch, features=x), Context(key=KEY)).before
            for x in (batch.features, features)
        )
        return np.flatnonzero(abs(one - other).max((0, 2)) > 1e-6)

    assert moved(2)[0] == 3
    assert not len(moved(1)), "what is not the last of a step reaches nothing"


def test_a_step_of_several_frames_saves_the_other_steps():
    one = Tacotron2(precision=FLOAT32, vocabulary=40)
    three = one.replace("decoder.frames_per_step", 3)
    assert three.count() - one.count() == 2 * (1024 + 512 + 1) * (80 + 1)
    cost = [model.flops(1, 300, 60) - model.post_net.flops(1, 300) for model in (one, three)]
    assert 0.3 < cost[1] / cost[0] < 0.6


def test_the_pre_net_draws_in_evaluation_too(model, p, batch):
    unsure = model.replace("decoder.pre_net_dropout.rate", 0.5)
    with pytest.raises(ConfigError, match="the call has no key"):
        run(unsure, p, batch, Context())
    one, two, again = (run(unsure, p, batch, Context(key=jax.random.key(seed))).before for seed in (1, 2, 1))
    assert (one == again).all()
    assert abs(one - two).max() > 0.01


@pytest.mark.slow
def test_gradients_reach_every_parameter_that_is_learned(model, p, batch):
    def loss(p):
        spoken = run(model, p, batch, Context(mode=Mode.TRAIN, key=KEY))
        return jnp.square(spoken.after - 1).mean() + jnp.square(spoken.stops).mean()

    gradient = jax.jit(jax.grad(loss))(p)
    specs = dict(flat_specs(model.specs()))
    for (path, param), leaf in zip(specs.items(), jax.tree.leaves(gradient), strict=True):
        # A bias before a normalization moves nothing but the mean that is taken away.
        silent = param.role is Role.STATE or path.endswith("convolution.bias")
        assert jnp.isfinite(leaf).all(), path
        assert silent or leaf.any(), path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tacotron2(precision=FLOAT32, vocabulary=0), "vocabulary: 0\nUse 1 or more"),
        (lambda: Encoder(vocabulary=3, width=7, precision=FLOAT32), "width: 7 numbers do not divide .*\nUse 8"),
        (lambda: FrameDecoder(precision=FLOAT32, bins=8, memory_width=4, hidden=0), "hidden: 0"),
        (
            lambda: PostNet(precision=FLOAT32, bins=8, taps=4).specs(),
            "layers: layers=5, taps=4\nUse 1 layer or more, and an odd number of taps",
        ),
    ],
)
def test_sizes_that_cannot_be_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


TORCH = """
def at(path):
    return given[path]

def linear(path, x):
    out = x @ at(path + ".weight")
    return out + at(path + ".bias") if path + ".bias" in given else out

def blocks(path, x, count, curve, last):
    for i in range(count):
        here = f"{path}.{i}"
        weight = at(here + ".convolution.weight").permute(2, 1, 0)
        x = nn.functional.conv1d(x, weight, at(here + ".convolution.bias"), padding=2)
        norm = [at(f"{here}.norm.{name}") for name in ("mean", "variance", "scale", "shift")]
        x = nn.functional.batch_norm(x, *norm)
        x = (last if i == count - 1 else curve)(x)
    return x

def cell(path, width, hidden):
    made = nn.LSTMCell(width, hidden)
    made.load_state_dict({"weight_ih": at(path + ".input").T, "weight_hh": at(path + ".recurrent").T,
                          "bias_ih": at(path + ".bias"), "bias_hh": 0 * at(path + ".bias")})
    return made

x = at("encoder.embedding.table")[given["symbols"]]
x = blocks("encoder.convolutions", x.mT, 3, torch.relu, torch.relu).mT
both = nn.LSTM(32, 16, batch_first=True, bidirectional=True)
ways = {"": "forward", "_reverse": "backward"}
names = {"weight_ih": "input", "weight_hh": "recurrent", "bias_ih": "bias", "bias_hh": "bias"}
both.load_state_dict({f"{name}_l0{way}": at(f"encoder.recurrent.{own}.{kind}").mT if kind != "bias" else
                      at(f"encoder.recurrent.{own}.bias") * (name == "bias_ih")
                      for way, own in ways.items() for name, kind in names.items()})
memory = both(x)[0]
first, second = cell("decoder.first", 16 + 32, 48), cell("decoder.second", 48 + 32, 48)
look = lambda name, x: x @ at("decoder.attention." + name)
rows, count = given["symbols"].shape
states, context = [None, None], torch.zeros(rows, 32)
last = cumulative = torch.zeros(rows, count)
frames, stops, weights = [], [], []
before = nn.functional.pad(given["features"], (0, 0, 1, 0))[:, :-1]
for t in range(before.shape[1]):
    told = torch.relu(linear("decoder.pre_net.0", before[:, t]))
    told = torch.relu(linear("decoder.pre_net.1", told))
    states[0] = first(torch.cat([told, context], -1), states[0])
    filters = at("decoder.attention.filters").permute(2, 1, 0)
    location = nn.functional.conv1d(torch.stack([last, cumulative], 1), filters, padding=3).mT
    sums = look("query", states[0][0])[:, None] + look("key", memory) + look("location", location)
    last = torch.softmax(look("score", torch.tanh(sums)), -1)
    cumulative, context = cumulative + last, (last[:, None] @ memory)[:, 0]
    states[1] = second(torch.cat([states[0][0], context], -1), states[1])
    answer = torch.cat([states[1][0], context], -1)
    frames.append(linear("decoder.frame", answer))
    stops.append(linear("decoder.stop", answer)[:, 0])
    weights.append(last)
frames = torch.stack(frames, 1)
after = frames + blocks("post_net.net", frames.mT, 3, torch.tanh, lambda x: x).mT
return {"before": frames, "after": after, "stops": torch.stack(stops, 1), "weights": torch.stack(weights, 1)}
"""


def test_is_that_of_modules_of_torch(model, batch, tmp_path):
    ported = model.replace("decoder.pre_net_bias", False).replace("decoder.attention_bias", False)
    ported = ported.replace("decoder.sees", Sees.LAST_AND_CUMULATIVE)
    ported = ported.replace("decoder.zoneout", None).replace("encoder.zoneout", None)
    keys = iter(jax.random.split(KEY, 999))
    p = jax.tree.map(
        lambda x: x + 0.2 * abs(jax.random.normal(next(keys), x.shape)) if x.ndim == 1 else x, jax.jit(ported.init)(KEY)
    )
    rows = [3, 7]  # of equal lengths: the ports do not mask convolutions
    flat = {path: leaf for (path, _), leaf in zip(flat_specs(ported.specs()), jax.tree.leaves(p), strict=True)}
    theirs = torch_answers(
        tmp_path, TORCH, symbols=batch.symbols[rows].astype(np.int64), features=batch.features[rows], **flat
    )
    ours = run(ported, p, batch, Context(key=KEY), rows)
    near = {name: as_near(getattr(ours, name), theirs[name]) for name in theirs}
    assert near == dict.fromkeys(theirs, True)
