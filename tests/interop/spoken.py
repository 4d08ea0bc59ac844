"""A small voice with random parameters, which never stops by itself: for whoever tests speaking."""

import jax

from cupola.core.dtype import FLOAT32
from cupola.data.audio.features import LogMel
from cupola.data.audio.griffin_lim import GriffinLim
from cupola.data.audio.mel import MelFilters
from cupola.data.audio.spectrum import Stft
from cupola.data.spoken.symbols import Characters
from cupola.models.speech.decoder import FrameDecoder
from cupola.models.speech.encoder import Encoder
from cupola.models.speech.generate import Speaking
from cupola.models.speech.synthesizer import Card, Synthesizer
from cupola.models.speech.tacotron import PostNet, Tacotron2
from cupola.models.speech.vocoders import VocosVocoder
from cupola.models.speech.vocos import Vocos
from cupola.models.speech.voice import Voice

RATE, HOP, BINS = 8000, 64, 16
FRONT = LogMel(rate_hz=RATE, stft=Stft(size=256, hop=HOP), mel=MelFilters(bins=BINS, low_hz=100.0, high_hz=3900.0))
CARD = Card(licence="CC0-1.0", data="random numbers", figures=(("word error rate, %", "100"),))


def make_voice(**changes) -> Voice:
    given = {
        "vocoder": GriffinLim(front=FRONT, steps=2, inverse_steps=2),
        "speaking": Speaking(most_frames=40, chunk_frames=8),
        "pause_seconds": 0.1,
    }
    model = Tacotron2(
        precision=FLOAT32,
        vocabulary=Characters().vocabulary,
        bins=BINS,
        encoder=Encoder(width=8, layers=1),
        decoder=FrameDecoder(pre_net=8, hidden=8, attention=8, filters=2, taps=3),
        post_net=PostNet(width=8, layers=1),
    )
    return Voice(model=model, **(given | changes))


def make_vocos() -> Vocos:
    stft = Stft(size=FRONT.stft.size, hop=HOP, padding=FRONT.stft.padding)
    return Vocos(precision=FLOAT32, bins=BINS, stft=stft, width=8, hidden=16, layers=1, taps=3)


def make_neural(name="hummer") -> Synthesizer:
    """Returns one whose sound is made by a small Vocos, bit by bit."""
    model = make_vocos()
    vocoder = VocosVocoder(front=FRONT, model=model, chunk_frames=4)
    return make_synthesizer(name).with_vocoder(vocoder, jax.jit(model.init)(jax.random.key(1)))


def make_synthesizer(name="crier", stop=-50.0, **changes) -> Synthesizer:
    """Returns one that is cut after 40 frames, or with `stop` above 0 one that ends at once."""
    voice = make_voice(**changes)
    params = jax.jit(voice.model.init)(jax.random.key(0))
    decoder = params["decoder"]
    ending = decoder["stop"] | {"bias": decoder["stop"]["bias"] + stop}
    params = params | {"decoder": decoder | {"stop": ending}}
    return Synthesizer(name=name, voice=voice, params={"model": params, "vocoder": {}}, card=CARD)
