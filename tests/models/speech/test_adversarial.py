"""The game: each side's gradient is its own, the formulas are the papers', and the generator wins some."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.dtype import FLOAT32
from cupola.core.errors import ConfigError
from cupola.data.audio.features import LogMel
from cupola.data.audio.mel import MelFilters
from cupola.data.audio.spectrum import Stft
from cupola.models.speech.adversarial import AdversarialLoss, Game, VocosGAN
from cupola.models.speech.discriminators import Discriminators
from cupola.models.speech.spectral_loss import SpectralLoss
from cupola.models.speech.vocos import Vocos

FRONT = LogMel(rate_hz=8000, stft=Stft(size=64, hop=16), mel=MelFilters(bins=6, low_hz=0.0, high_hz=4000.0))
MODEL = VocosGAN(
    precision=FLOAT32,
    generator=Vocos(bins=6, stft=Stft(size=64, hop=16), width=8, hidden=12, layers=1, taps=3),
    discriminators=Discriminators(periods=(2, 3), widths=(4, 4), stfts=(Stft(size=32, hop=8),), width=3),
)
LOSS = AdversarialLoss(spectral=SpectralLoss(mel=2.0))
SAMPLES = 0.3 * jax.random.normal(jax.random.key(3), (2, 16 * 11))
FEATURES = FRONT(SAMPLES)


@pytest.fixture(scope="module")
def p():
    keys = iter(jax.random.split(jax.random.key(1), 999))
    drawn = MODEL.init(jax.random.key(0))
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(next(keys), x.shape), drawn)


def gradient(loss, p, part):
    """Of one of the parts of which the loss is made."""
    return jax.jit(jax.grad(lambda p: loss(MODEL, p, FEATURES, SAMPLES, FRONT)[1][part].sum()))(p)


def moved(tree):
    return max(float(abs(leaf).max()) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("game", Game)
def test_each_side_is_moved_by_its_own_loss_alone(p, game):
    loss = LOSS.replace("game", game)
    of_generator, of_judges = gradient(loss, p, "generator"), gradient(loss, p, "discriminators")
    assert moved(of_generator["discriminators"]) == moved(of_judges["generator"]) == 0
    assert moved(of_generator["generator"]) > 0
    assert moved(of_judges["discriminators"]) > 0
    both = jax.jit(jax.grad(lambda p: loss(MODEL, p, FEATURES, SAMPLES, FRONT)[0].sum()))(p)
    for name, alone in (("generator", of_generator), ("discriminators", of_judges)):
        for ours, theirs in zip(jax.tree.leaves(both[name]), jax.tree.leaves(alone[name]), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6 * moved(alone))


@functools.partial(jax.jit, static_argnums=0)
def parts_of(loss, p, true):
    return loss(MODEL, p, FEATURES, true, FRONT)[1]


made_of = jax.jit(lambda p: MODEL.generator(p["generator"], FEATURES, SAMPLES.shape[1]))
verdicts = jax.jit(lambda p, x: MODEL.discriminators(p["discriminators"], x))


def test_the_formulas(p):
    parts, made = parts_of(LOSS, p, SAMPLES), made_of(p)
    fool, judged, matched = np.zeros(2), np.zeros(2), np.zeros(2)
    groups = zip(verdicts(p, SAMPLES), verdicts(p, made), strict=True)
    for (real, fake), weight in zip(groups, (1, 0.1), strict=True):
        for true, own in zip(real, fake, strict=True):
            share = weight / len(real)
            real_scores, own_scores = np.asarray(true.scores), np.asarray(own.scores)
            fool += share * np.maximum(1 - own_scores, 0).mean(1)
            judged += share * (np.maximum(1 - real_scores, 0).mean(1) + np.maximum(1 + own_scores, 0).mean(1))
            for x, y in zip(true.maps, own.maps, strict=True):
                matched += share * np.abs(np.asarray(x) - np.asarray(y)).reshape(2, -1).mean(1)
    np.testing.assert_allclose(parts["fool"], fool, rtol=1e-5)
    np.testing.assert_allclose(parts["discriminators"], judged, rtol=1e-5)
    np.testing.assert_allclose(parts["matching"], matched, rtol=1e-5)
    np.testing.assert_allclose(parts["generator"], fool + matched + 2 * np.asarray(parts["mel"]), rtol=1e-5)


def test_games():
    real, made = jnp.asarray([[2.0, 0.5]]), jnp.asarray([[-2.0, 0.5]])
    assert Game.HINGE.judge(real, made)[0] == 0.25 + 0.75
    assert Game.HINGE.fool(made)[0] == (3 + 0.5) / 2
    assert Game.LEAST_SQUARES.judge(real, made)[0] == (1 + 0.25) / 2 + (4 + 0.25) / 2
    assert Game.LEAST_SQUARES.fool(made)[0] == (9 + 0.25) / 2


def test_what_does_not_count_is_not_there(p):
    parts = parts_of(LOSS.replace("matching", 0.0), p, SAMPLES)
    assert set(parts) == {"generator", "discriminators", "mel", "fool"}


def test_a_perfect_generator_is_at_no_distance(p):
    """The control: matching and mel are 0 where what was made is the true sound."""
    parts, far = parts_of(LOSS, p, made_of(p)), parts_of(LOSS, p, SAMPLES)
    for name in ("matching", "mel"):
        # Two programs may sum in another order.
        assert abs(parts[name]).max() < 1e-4 * abs(far[name]).min()


def test_weights_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="matching: matching=-1.0, resolutions=0.1\nUse such as 1 and 0.1"):
        AdversarialLoss(matching=-1.0)
