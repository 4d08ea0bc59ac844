import itertools

import jax
import numpy as np
import pytest

from cupola.core.dtype import FLOAT32
from cupola.core.errors import AudioError, ConfigError, TextError
from cupola.data.audio.clip import Clip
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


def test_pieces_are_what_is_said(voice, endless):
    text = "One two. Three."
    quick = voice.replace("speaking.chunk_frames", 8)
    pieces = list(quick.pieces(endless, text, seed=1))
    said = quick.say(endless, text, seed=1)
    np.testing.assert_array_equal(np.concatenate([piece.samples for piece in pieces]), said.clip.samples)
    ends = [piece for piece in pieces if piece.utterance is not None]
    assert [piece.text for piece in ends] == ["One two.", "Three."]
    assert [len(piece.utterance.features) for piece in ends] == [40, 40]
    np.testing.assert_allclose(voice.say(endless, text, seed=1).clip.samples, said.clip.samples, atol=1e-4)


class Direct(GriffinLim):
    """Streams: each frame is a step of samples of its mean."""

    def of(self, features, *, params=None, seed=0):
        return Clip(np.concatenate(list(self.stream([features], params=params))), self.front.rate_hz)

    def stream(self, features, *, params, seed=0):
        for some in features:
            yield np.repeat(np.tanh(some.mean(1)), 64).astype(np.float32)


def test_a_vocoder_that_streams_is_heard_before_the_sentence_is_ready(voice, endless):
    quick = voice.replace("vocoder", Direct(front=FRONT)).replace("speaking.chunk_frames", 8)
    frames = []

    def between():
        frames.append(1)

    pieces = quick.pieces(endless, "One two.", between=between)
    first = next(pieces)
    early = len(frames)
    rest = list(pieces)
    assert first.utterance is None
    assert early < len(frames)
    samples = np.concatenate([piece.samples for piece in [first, *rest]])
    assert len(samples) == 40 * 64
    fade = round(quick.fade_seconds * RATE)
    assert samples[0] == 0
    assert samples[-1] == 0
    mean = np.tanh(rest[-1].utterance.features.mean(1))
    np.testing.assert_allclose(samples[fade:-fade], np.repeat(mean, 64)[fade:-fade], atol=1e-5)


def test_speaking_ends_between_frames_where_nobody_listens(voice, endless):
    class Gone(Exception):
        pass

    left = iter([None, None])

    def between():
        if next(left, Gone) is Gone:
            raise Gone

    quick = voice.replace("speaking.chunk_frames", 8)
    with pytest.raises(Gone):
        list(quick.pieces(endless, "One two.", between=between))


def test_speed_shortens_and_lengthens(voice, endless):
    once = voice.say(endless, "One.").clip.seconds
    for speed in (0.5, 2.0, 4.0):
        said = voice.replace("speed", speed).say(endless, "One.").clip.seconds
        assert abs(said - once / speed) < 3 * 64 / RATE
    with pytest.raises(ConfigError, match="speed: 5\nUse 0.25 to 4"):
        voice.replace("speed", 5.0)
