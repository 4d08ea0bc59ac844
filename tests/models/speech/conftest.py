"""A reduced Tacotron 2, and utterances that it can learn: each symbol is a pattern of three frames; a small Whisper."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from cupola.core.dtype import FLOAT32
from cupola.data.audio.batches import SpeechBatch
from cupola.layers.dropout import Dropout
from cupola.models.speech.decoder import FrameDecoder
from cupola.models.speech.encoder import Encoder
from cupola.models.speech.tacotron import PostNet, Tacotron2

sys.path.insert(0, str(Path(__file__).parents[2] / "layers"))  # torch_peer.py
sys.path.insert(0, str(Path(__file__).parent))  # others that test hearing import small_whisper.py too

import small_whisper

VOCABULARY, BINS, EACH = 10, 8, 3


@pytest.fixture(scope="session")
def model():
    """Its pre-net drops nothing, so that what it makes is told exactly."""
    return Tacotron2(
        precision=FLOAT32,
        vocabulary=VOCABULARY,
        bins=BINS,
        encoder=Encoder(width=32, dropout=Dropout(rate=0.1)),
        decoder=FrameDecoder(pre_net=16, hidden=48, attention=16, filters=8, taps=7, pre_net_dropout=Dropout(rate=0.0)),
        post_net=PostNet(width=16, layers=3, dropout=Dropout(rate=0.1)),
    )


@pytest.fixture(scope="session")
def p(model):
    """As after some training: no vector is zero, no statistic is that of nothing."""

    @jax.jit
    def draw(key):
        keys = iter(jax.random.split(key, 999))
        return jax.tree.map(
            lambda x: x + 0.2 * abs(jax.random.normal(next(keys), x.shape)) if x.ndim == 1 else 2 * x, model.init(key)
        )

    return draw(jax.random.key(0))


@pytest.fixture(scope="session")
def utterances():
    drawn = np.random.default_rng(0)
    symbols = (drawn.permutation(np.arange(2, VOCABULARY))[:count] for count in (3, 4, 5, 6, 4, 5, 3, 6))
    return [np.append(own, 1).astype(np.int32) for own in symbols]


@pytest.fixture(scope="session")
def spoken(utterances):
    """The frames of each utterance."""
    patterns = np.random.default_rng(1).normal(0, 1, (VOCABULARY, EACH, BINS)).astype(np.float32)
    return [patterns[own].reshape(-1, BINS) for own in utterances]


@pytest.fixture(scope="session")
def batch(utterances, spoken):
    longest = max(map(len, utterances))
    return SpeechBatch(
        symbols=np.stack([np.pad(own, (0, longest - len(own))) for own in utterances]),
        symbol_lengths=np.asarray(list(map(len, utterances)), np.int32),
        features=np.stack([np.pad(own, ((0, longest * EACH - len(own)), (0, 0))) for own in spoken]),
        feature_lengths=np.asarray(list(map(len, spoken)), np.int32),
    )


@pytest.fixture(scope="session")
def whisper_tokens(tmp_path_factory):
    return small_whisper.make_tokens(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="session")
def recognizer(whisper_tokens):
    return small_whisper.make_recognizer(whisper_tokens)


@pytest.fixture(scope="session")
def clips():
    return small_whisper.make_clips()
