import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from cupola.core.dtype import FLOAT32
from cupola.core.errors import ConfigError, ShapeError
from cupola.core.mesh import MeshShape
from cupola.core.partition import Rules, shardings
from cupola.layers.convolution import within
from cupola.models.speech.logistics import Logistics
from cupola.models.speech.wavenet import Sounding, WaveNet, sound

BINS, FRAMES = 4, 5
SMALL = WaveNet(
    precision=FLOAT32,
    bins=BINS,
    strides=(2, 3),
    layers=4,
    cycles=2,
    residual=6,
    skip=5,
    mixture=Logistics(components=2, bits=8),
)
KEY = jax.random.key(2)


@pytest.fixture(scope="module")
def p():
    return jax.jit(SMALL.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def features():
    return jax.random.normal(jax.random.key(1), (2, FRAMES, BINS))


@pytest.fixture(scope="module")
def samples():
    drawn = 0.3 * jax.random.normal(jax.random.key(3), (2, FRAMES * SMALL.hop))
    return SMALL.mixture.quantized(drawn)


@functools.partial(jax.jit, static_argnums=0)
def whole(model, p, samples, features, mask=None):
    return model(p, samples, features, mask)


@functools.partial(jax.jit, static_argnums=0)
def judged(model, p, samples, features, lengths):
    return model.loss(p, samples, features, lengths)


@pytest.mark.parametrize(("layers", "cycles", "field"), [(30, 3, 6139), (24, 4, 505), (12, 2, 253), (30, 30, 61)])
def test_receptive_fields_are_those_of_the_papers_table_4(layers, cycles, field):
    model = WaveNet(precision=FLOAT32, bins=80, layers=layers, cycles=cycles)
    assert model.reach + 1 == field


def test_the_papers_size_follows_from_its_widths():
    model = WaveNet(precision=FLOAT32, bins=80)
    ups = sum(80 * 2 * stride * 80 + 80 for stride in (15, 20))
    layer = 3 * 128 * 256 + 256 + 80 * 256 + 2 * (128 * 128 + 128)
    assert model.hop == 300  # 12.5 ms of 24 kHz
    assert model.count() == ups + 2 * 128 + 30 * layer + 128 * 128 + 128 + 128 * 30 + 30


def test_it_lies_on_a_mesh():
    places = shardings(WaveNet(precision=FLOAT32, bins=80).specs(), MeshShape(data=2, fsdp=4).build(), Rules())
    assert places["layer_0"]["residual"]["weight"].spec == PartitionSpec("fsdp", None)


def test_sample_by_sample_it_is_the_whole_pass(p, samples, features):
    @jax.jit
    def one_by_one(p, samples, features):
        def step(sounding, given):
            condition, sample = given
            described, pasts = SMALL.step(p, condition, sounding)
            return Sounding(pasts=pasts, sample=sample, time=sounding.time + 1), described

        condition = SMALL.condition(p, features)
        return jax.lax.scan(step, SMALL.silence(2), (condition.swapaxes(0, 1), samples.T))[1].swapaxes(0, 1)

    ours, theirs = one_by_one(p, samples, features), whole(SMALL, p, samples, features)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * abs(theirs).max())


def test_a_sample_depends_on_those_before_it_as_far_as_it_reaches(p, samples, features):
    there = whole(SMALL, p, samples, features)
    changed = whole(SMALL, p, samples.at[:, 3].set(0.9), features)
    differs = abs(changed - there).max((0, 2)) > 0
    assert not differs[:4].any()
    assert differs[4]
    assert differs[4 + SMALL.reach]
    assert not differs[5 + SMALL.reach :].any()
    assert SMALL.reach == 12


def test_frames_that_are_not_there_reach_no_sample(p, samples, features):
    lengths = jnp.asarray([FRAMES, 3])
    poisoned = jnp.where(within(lengths, FRAMES)[..., None], features, jnp.nan)
    noisy = jnp.where(within(lengths * SMALL.hop, samples.shape[1]), samples, 0.7)
    judge = jax.jit(jax.value_and_grad(SMALL.loss, has_aux=True))
    (loss, count), gradient = judge(p, noisy, poisoned, lengths)
    (clean, _), _ = judge(p, samples, features, lengths)
    assert count == 8 * SMALL.hop
    assert float(loss) == float(clean)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert all(leaf.any() for leaf in gradient["up_0"].values())
    (more, _), _ = judge(p, noisy, features, jnp.asarray([FRAMES, FRAMES]))
    assert float(more) > float(loss)


def test_the_loss_is_the_mixtures(p, samples, features):
    loss, count = judged(SMALL, p, samples, features, jnp.asarray([FRAMES, FRAMES]))
    described = whole(SMALL, p, samples, features)
    assert float(loss) == pytest.approx(-float(SMALL.mixture.log_probs(described, samples).sum()), rel=1e-5)
    # A model that knows nothing gives each of 256 values a 256th.
    assert 1 < float(loss / count) / np.log(256) < 20


def test_what_is_sounded_does_not_depend_on_the_chunks(p, features):
    once, often = (
        np.concatenate(list(sound(SMALL, p, features, key=KEY, chunk_frames=frames)), axis=1) for frames in (5, 2)
    )
    assert once.shape == (2, FRAMES * SMALL.hop)
    assert (SMALL.mixture.quantized(jnp.asarray(once)) == once).all()
    # A draw is a step function of what was computed: nearly all are the same to the bit.
    assert (once[:, : SMALL.hop] == often[:, : SMALL.hop]).all()
    assert once.shape == often.shape
    other = np.concatenate(list(sound(SMALL, p, features, key=jax.random.key(9))), axis=1)
    assert (once != other).any()


def test_what_it_sounds_is_likely_to_it(p, features):
    drawn = np.concatenate(list(sound(SMALL, p, features, key=KEY)), axis=1)
    lengths = jnp.asarray([FRAMES, FRAMES])
    own, _ = judged(SMALL, p, jnp.asarray(drawn), features, lengths)
    noise = SMALL.mixture.quantized(jax.random.uniform(KEY, drawn.shape, minval=-1, maxval=1))
    other, _ = judged(SMALL, p, noise, features, lengths)
    assert own < other


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: WaveNet(bins=4, precision=FLOAT32, layers=10), ConfigError, "layers: 10 layers .*\nUse layers=9"),
        (lambda: WaveNet(bins=4, precision=FLOAT32, strides=()), ConfigError, r"strides: \(\)\nTheir product"),
        (
            lambda: SMALL(None, jnp.zeros((1, 7)), jnp.zeros((1, 2, BINS))),
            ShapeError,
            "wavenet: 7 samples for 2 frames\nPass 6 for each frame: 12",
        ),
        (lambda: next(sound(SMALL, None, jnp.zeros((1, 0, BINS)), key=KEY)), ShapeError, "there are no frames"),
        (
            lambda: next(sound(SMALL, None, jnp.zeros((1, 2, BINS)), key=KEY, chunk_frames=0)),
            ConfigError,
            "chunk_frames: 0\nUse 1 or more",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
