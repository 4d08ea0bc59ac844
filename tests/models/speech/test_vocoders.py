"""Learned vocoders: what is streamed is what is made at once, however the frames come."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.dtype import FLOAT32
from cupola.core.errors import AudioError, ConfigError
from cupola.data.audio.features import LastFrame, LogMel
from cupola.data.audio.mel import MelFilters
from cupola.data.audio.spectrum import Padding, Stft
from cupola.models.speech.logistics import Logistics
from cupola.models.speech.vocoders import VocosVocoder, WaveNetVocoder
from cupola.models.speech.vocos import Vocos
from cupola.models.speech.wavenet import WaveNet

MEL = MelFilters(bins=5, low_hz=0.0, high_hz=4000.0)
FRONT = LogMel(rate_hz=8000, stft=Stft(size=64, hop=16), mel=MEL)
FRONTS = {
    "centred": FRONT,
    "between": FRONT.replace("stft.padding", Padding.BETWEEN),
    "dropped": FRONT.replace("last_frame", LastFrame.DROPPED),
}
FRAMES = 41
FEATURES = np.random.default_rng(0).normal(-2, 1, (FRAMES, 5)).astype(np.float32)


def vocos(front, chunk_frames=4):
    model = Vocos(
        precision=FLOAT32,
        bins=5,
        stft=Stft(size=48, hop=16, padding=front.stft.padding),
        width=8,
        hidden=12,
        layers=2,
        taps=3,
    )
    return VocosVocoder(front=front, model=model, chunk_frames=chunk_frames)


@pytest.fixture(scope="module")
def p():
    drawn = vocos(FRONT).model.init(jax.random.key(0))
    keys = iter(jax.random.split(jax.random.key(1), 999))
    return jax.tree.map(lambda x: x + 0.3 * jax.random.normal(next(keys), x.shape), drawn)


@pytest.fixture(scope="module")
def wavenet():
    model = WaveNet(
        precision=FLOAT32,
        bins=5,
        strides=(4, 4),
        layers=4,
        cycles=2,
        residual=6,
        skip=5,
        mixture=Logistics(components=2, bits=8),
    )
    return WaveNetVocoder(front=FRONT, model=model)


def near(ours, theirs):
    """Sums of some dozens of numbers in another order, some layers deep."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=256 * np.finfo(np.float32).eps * abs(theirs).max())


@pytest.mark.parametrize("front", FRONTS)
def test_made_at_once_it_is_the_models_sound(p, front):
    vocoder = vocos(FRONTS[front])
    made = vocoder.of(FEATURES, params=p)
    near(made.samples, vocoder.model(p, jnp.asarray(FEATURES)[None], FRONTS[front].samples(FRAMES))[0])
    assert made.rate_hz == 8000
    assert len(made.samples) == FRONTS[front].samples(FRAMES)
    assert FRONTS[front].frames(len(made.samples)) == FRAMES


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("portions", [(41,), (1,) * 41, (3, 0, 20, 7, 11), (40, 1)], ids=lambda given: str(given[:5]))
def test_however_the_frames_come_the_samples_are_the_same(p, front, portions):
    vocoder = vocos(FRONTS[front])
    ends = [0, *itertools.accumulate(portions)]
    parts = (FEATURES[a:b] for a, b in itertools.pairwise(ends))
    streamed = list(vocoder.stream(parts, params=p))
    near(np.concatenate(streamed), vocoder.of(FEATURES, params=p).samples)
    assert all(len(part) for part in streamed)


def test_the_first_sound_comes_when_its_frames_have(p):
    vocoder = vocos(FRONT)
    asked = itertools.count()
    frames = (FEATURES[next(asked)][None] for _ in range(FRAMES))
    first = next(vocoder.stream(frames, params=p))
    assert next(asked) == vocoder.chunk_frames + vocoder.model.reach
    assert len(first) == vocoder.chunk_frames * 16 - vocoder.model.stft.margin
    near(first, vocoder.of(FEATURES, params=p).samples[: len(first)])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_frames_are_sound_too(p, count):
    vocoder = vocos(FRONTS["between"])
    made = vocoder.of(FEATURES[:count], params=p).samples
    near(np.concatenate(list(vocoder.stream([FEATURES[:count]], params=p))), made)
    assert len(made) == 16 * count


def test_no_frames_are_no_sound(p, wavenet):
    assert not list(vocos(FRONT).stream(iter([]), params=p))
    assert not list(wavenet.stream(iter([]), params=None))


def test_wavenet_gives_as_many_samples_and_the_seed_decides(wavenet):
    p = wavenet.model.init(jax.random.key(0))
    made = wavenet.of(FEATURES[:10], params=p, seed=1).samples
    streamed = list(wavenet.stream([FEATURES[:4], FEATURES[4:10]], params=p, seed=1))
    np.testing.assert_array_equal(np.concatenate(streamed), made)
    assert len(streamed) == 2  # of eight frames each, and the rest
    assert len(made) == FRONT.samples(10)
    assert (wavenet.of(FEATURES[:10], params=p, seed=2).samples != made).any()


def test_their_parameters_are_their_models(wavenet):
    assert vocos(FRONT).specs() == vocos(FRONT).model.specs()
    assert wavenet.specs() == wavenet.model.specs()


def test_features_that_are_none_are_refused(p, wavenet):
    bad = np.full((3, 5), np.nan, np.float32)
    for vocoder in (vocos(FRONT), wavenet):
        with pytest.raises(AudioError, match="not finite"):
            vocoder.of(bad, params=p)
        with pytest.raises(AudioError, match=r"Give \[T, 5\]"):
            list(vocoder.stream([bad[:, :4]], params=p))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model.bins", 6, "model.bins: the model takes frames of 6 bins, and the front end makes 5\nUse model.bins=5"),
        ("model.stft", Stft(size=48, hop=12), "model.stft: hop=12 .*\nUse model.stft.hop=16 and .*=CENTRED"),
        ("model.stft.padding", Padding.BETWEEN, "do not fit frames of hop=16"),
        ("chunk_frames", 0, "chunk_frames: 0\nUse 1 or more"),
    ],
)
def test_what_does_not_fit_the_front_end_is_refused(path, value, message):
    with pytest.raises(ConfigError, match=message):
        vocos(FRONT).replace(path, value)


def test_a_wavenet_of_another_hop_is_refused(wavenet):
    with pytest.raises(ConfigError, match=r"model.strides: \(4, 5\) make 20 samples of a frame, whose hop is 16\nUse"):
        wavenet.replace("model.strides", (4, 5))
    with pytest.raises(ConfigError, match="model.bins: the model takes frames of 4 bins"):
        wavenet.replace("model.bins", 4)
