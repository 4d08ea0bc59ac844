import itertools

import jax
import numpy as np
import pytest

from cupola.core.dtype import FLOAT32
from cupola.core.errors import AudioError, ConfigError, TextError
from cupola.data.audio.features import LogMel
from cupola.data.audio.griffin_lim import GriffinLim
from cupola.data.audio.mel import MelFilters
from cupola.data.audio.spectrum import Stft
from cupola.data.spoken.symbols import Characters
from cupola.models.speech.decoder import FrameDecoder
from cupola.models.speech.encoder import Encoder
from cupola.models.speech.generate import Speaking
from cupola.models.speech.tacotron import PostNet, Tacotron2
from cupola.models.speech.voice import Voice

RATE = 8000
FRONT = LogMel(rate_hz=RATE, stft=Stft(size=256, hop=64), mel=MelFilters(bins=8, low_hz=100.0, high_hz=3900.0))


def reduced(vocabulary):
    return Tacotron2(
        precision=FLOAT32,
        vocabulary=vocabulary,
        bins=8,
        encoder=Encoder(width=8, layers=1),
        decoder=FrameDecoder(pre_net=8, hidden=8, attention=8, filters=2, taps=3),
        post_net=PostNet(width=8, layers=1),
    )


@pytest.fixture(scope="module")
def voice():
    return Voice(
        model=reduced(Characters().vocabulary),
        vocoder=GriffinLim(front=FRONT, steps=2, inverse_steps=2),
        speaking=Speaking(most_frames=40, chunk_frames=40),
        most_characters=40,
        most_text_characters=120,
        pause_seconds=0.1,
    )


@pytest.fixture(scope="module")
def p(voice):
    return {"model": jax.jit(voice.model.init)(jax.random.key(0)), "vocoder": {}}


def stopping(p, logit):
    decoder = p["model"]["decoder"]
    stop = decoder["stop"] | {"bias": decoder["stop"]["bias"] + logit}
    return p | {"model": p["model"] | {"decoder": decoder | {"stop": stop}}}


@pytest.fixture(scope="module")
def endless(p):
    return stopping(p, -50.0)


def test_what_is_said_is_what_is_streamed_joined(voice, endless):
    text = "Dr. Lee paid $3. Then he left, and nobody saw him again!"
    parts = list(voice.stream(endless, text, seed=3))
    assert [part.text for part in parts] == [
        "doctor Lee paid three dollars.",
        "Then he left, and nobody saw him again!",
    ]
    said = voice.say(endless, text, seed=3)
    assert (said.clip.samples == np.concatenate([part.clip.samples for part in parts])).all()
    assert said.clip.rate_hz == RATE
    assert said.cut == tuple(part.text for part in parts)
    pause = round(0.1 * RATE)
    assert len(parts[0].clip.samples) - len(parts[1].clip.samples) == pause
    assert not parts[0].clip.samples[-pause:].any()


def test_sentences_meet_without_clicks(voice, endless):
    for part in voice.stream(endless, "One. Two."):
        fade = round(voice.fade_seconds * RATE)
        spoken = part.clip.samples[: FRONT.samples(40)]
        loudest = abs(spoken).max()
        for edge in (spoken[0], spoken[-1]):
            assert edge == 0
        # Within a sample of the edge, the square of a sine has risen by less than this.
        most = loudest * np.sin(np.pi / 2 / fade) ** 2
        assert max(abs(spoken[1]), abs(spoken[-2])) <= most
    hard = voice.replace("fade_seconds", 0.0)
    assert any(part.clip.samples[0] for part in hard.stream(endless, "One."))


def test_the_seed_decides(voice, endless):
    one, again, other = (voice.say(endless, "One.", seed=seed).clip.samples for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()


def test_a_sentence_is_heard_before_the_next_is_made(voice, endless):
    first = next(iter(voice.stream(endless, "One. " + "Two. " * 5)))
    assert first.text == "One."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "text: the text is empty\nGive at least one word"),
        (" \n ", "the text is empty"),
        ("?!", "has no letter"),
        ("a ж b", r"'ж' \(CYRILLIC SMALL LETTER ZHE\): no symbol of this voice\nWrite it in words"),
        ("so. " * 40, "text: 160 characters, where 120 are the most\nSay it in parts"),
        ("a" * 41, "a word of 41 characters: a{20}...\nWrite it in words of at most 40 characters"),
    ],
)
def test_text_that_cannot_be_said_is_refused_before_anything_is_said(voice, endless, text, message):
    for say in (voice.say, voice.stream):
        with pytest.raises(TextError, match=message):
            say(endless, text)


def test_a_model_that_stops_at_once_says_so(voice, p):
    with pytest.raises(AudioError, match="stopped at the first frame of 'One.'\nIt has not learned to read this"):
        voice.say(stopping(p, 50.0), "One.")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": reduced(7)}, "symbols: the model reads 7 symbols, and there are 40\nUse the symbols"),
        ({"vocoder": GriffinLim(front=FRONT.replace("mel.bins", 9))}, "vocoder: the model makes frames of 8 bins"),
        ({"pause_seconds": -1.0}, "pause_seconds: pause_seconds=-1.0"),
        ({"most_characters": 0}, "most_characters=0"),
    ],
)
def test_parts_that_do_not_fit_are_refused(voice, fields, message):
    given = {name: getattr(voice, name) for name in ("model", "vocoder")} | fields
    with pytest.raises(ConfigError, match=message):
        Voice(**given)


def test_pieces_of_one_sentence_too_long_are_said_as_several(voice, endless):
    text = ", ".join(itertools.repeat("one two three four", 4)) + "."
    assert [len(part.text) <= 40 for part in voice.stream(endless, text)] == [True] * 2
