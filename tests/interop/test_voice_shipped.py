"""The voice that the package is shipped with: its file, its card, that it speaks, and that it is understood."""

from pathlib import Path

import numpy as np
import pytest

from cupola.core.errors import TextError
from cupola.evals.speech.judges import WhisperListener
from cupola.evals.speech.words import word_errors
from cupola.interop import fetch
from cupola.interop.errors import WeightsError
from cupola.interop.voice import MOST_SHIPPED_BYTES, read_voice, shipped
from cupola.interop.whisper import open_whisper

READY = "The furnace is ready."
HELD_OUT = Path(__file__).parents[2] / "bench" / "held_out.txt"
MOST_ERRORS = 25.0
"""Percent of words; what was measured stands on the card."""


@pytest.fixture(scope="module")
def joe():
    path = shipped()
    assert path is not None
    return read_voice(path)


@pytest.fixture(scope="module")
def ready(joe):
    return joe.voice.say(joe.params, READY)


def test_its_file_is_small_and_its_card_says_what_it_is(joe):
    path = shipped()
    assert path is not None
    assert path.stat().st_size < MOST_SHIPPED_BYTES / 4
    assert joe.name == "joe"
    assert joe.card.licence == "CC0-1.0"
    assert "Piper" in joe.card.data
    assert joe.card.language == "en"
    assert any("word errors" in name for name, _ in joe.card.figures)


def test_its_file_is_refused_when_a_byte_of_it_changes(tmp_path):
    path = shipped()
    assert path is not None
    told = bytearray(path.read_bytes())
    told[-5] ^= 1
    (tmp_path / path.name).write_bytes(told)
    with pytest.raises(WeightsError, match="checksum"):
        read_voice(tmp_path / path.name)


def test_a_sentence_lasts_as_long_as_people_take_and_stops_by_itself(joe, ready):
    assert not ready.cut
    assert 0.8 < ready.clip.seconds < 2.5
    assert np.isfinite(ready.clip.samples).all()
    assert 0.05 < ready.clip.peak <= 1.5
    longer = joe.voice.say(joe.params, "She put the kettle on, and opened the window that looks on the garden.")
    assert not longer.cut
    assert longer.clip.seconds > 1.8 * ready.clip.seconds


def test_it_looks_at_one_symbol_after_another_to_the_last(joe):
    (sentence,) = joe.voice.stream(joe.params, READY)
    at = sentence.utterance.weights.argmax(-1)
    assert (np.diff(at) >= 0).mean() > 0.97
    assert at[0] <= 1
    assert at[-1] >= sentence.utterance.weights.shape[1] - 3


def test_text_and_seed_decide_every_sample(joe, ready):
    again, other = (joe.voice.say(joe.params, READY, seed=seed).clip.samples for seed in (0, 1))
    np.testing.assert_array_equal(again, ready.clip.samples)
    assert other.shape != again.shape or abs(other - again).max() > 1e-3


def test_it_says_words_that_no_dictionary_has_and_refuses_other_scripts(joe):
    assert joe.voice.say(joe.params, "Blorping snickles.").clip.seconds > 0.5
    with pytest.raises(TextError, match="no symbol of this voice"):
        joe.voice.say(joe.params, "火")


@pytest.mark.slow
def test_it_is_understood(joe):
    """Whisper base writes down what it says of sentences that it never saw; of others' sound, next to nothing."""
    if fetch.find("whisper-base") is None:
        pytest.skip("whisper-base was not fetched: cupola fetch whisper-base")
    texts = HELD_OUT.read_text(encoding="utf-8").splitlines()[:12]
    clips = [joe.voice.say(joe.params, text).clip for text in texts]
    listener = WhisperListener(open_whisper("whisper-base").ready())
    heard = listener.hear(clips)
    assert word_errors(heard, texts).percent < MOST_ERRORS
    assert word_errors(heard, texts[1:] + texts[:1]).percent > 80
