"""Sides and measures with a tiny voice and a judge that knows what was said."""

import sys
from pathlib import Path

import numpy as np
import pytest

from cupola.core.errors import DataError
from cupola.data.audio.prepared import Prepared
from cupola.evals.speech.measure import distrusted, forced, measure
from cupola.evals.speech.sides import Item, sides

sys.path.insert(0, str(Path(__file__).parents[2] / "interop"))

import spoken

TEXTS = ("One two three.", "The furnace is ready. Pour.", "Nobody saw the bell.")


@pytest.fixture(scope="module")
def crier():
    return spoken.make_synthesizer()


@pytest.fixture(scope="module")
def items():
    drawn = np.random.default_rng(0)
    made = []
    for number, text in enumerate(TEXTS):
        times = np.arange(4000 + 1000 * number) / spoken.RATE
        tone = 0.5 * np.sin(2 * np.pi * 300 * (number + 1) * times) + 0.01 * drawn.standard_normal(len(times))
        samples = np.rint(tone * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16)
        features = spoken.FRONT.of(Prepared(samples, np.zeros((1, spoken.BINS), np.float32)).clip(spoken.RATE))
        made.append(Item(text, Prepared(samples, features)))
    return made


class Telepath:
    """Hears what the clips of the first side it is shown say, whatever they sound like."""

    name = "telepath"

    def hear(self, clips):
        return list(TEXTS)


class Meter:
    name = "meter"

    def rate(self, clips):
        return {"peak": float(np.mean([clip.peak for clip in clips]))}


@pytest.fixture(scope="module")
def found(crier, items):
    notes = []
    made = sides(crier, items, note=notes.append)
    assert notes == ["copying 3 recordings with Griffin-Lim", "saying 3 sentences with Griffin-Lim"]
    return made


def test_sides_say_the_same(crier, found):
    names = [side.name for side in found]
    assert names == ["recording", "copy, Griffin-Lim", "ours, Griffin-Lim", "ours, Griffin-Lim, texts shuffled"]
    assert [len(side.clips) for side in found] == [3] * 4
    ours, control = found[2:]
    wanted = crier.voice.say(crier.params, TEXTS[1]).clip.samples
    np.testing.assert_array_equal(ours.clips[1].samples, wanted)
    assert [len(parts) for parts in ours.utterances] == [1, 2, 1]
    assert control.clips is ours.clips
    assert control.texts == (*TEXTS[1:], TEXTS[0])


def test_measures(crier, items, found):
    told = forced(crier, items)
    rows = {row.name: row.values for row in measure(found, spoken.FRONT, [Telepath()], [Meter()], told)}
    words = rows["word errors by telepath, %"]
    assert words[:3] == (0, 0, 0)
    assert words[3] >= 90
    none, copy, ours, control = rows["mel-cepstral distortion, dB"]
    assert none is None
    assert 0 < copy < ours
    assert control > 0
    assert rows["meter, peak, 1 to 5"][0] == pytest.approx(0.5, abs=0.05)
    assert rows["stopped by itself, %"] == (None, None, 0, None)
    stop = rows["stop within 5 frames of the true one, recording at hand, %"]
    assert stop == (None, None, 100 * told["stop_accuracy"], None)
    monotonic = rows["attention monotonic, %"]
    assert monotonic[:2] == (None, None)
    assert 0 <= monotonic[2] <= 100
    assert rows["real-time factor"][2] > 0


def test_sentences_alone(crier):
    made = sides(crier, [Item(text) for text in TEXTS], note=lambda _: None)
    assert [side.name for side in made] == ["ours, Griffin-Lim", "ours, Griffin-Lim, texts shuffled"]
    rows = {row.name: row.values for row in measure(made, spoken.FRONT, [], [])}
    assert rows["mel-cepstral distortion, dB"] == (None, None)
    assert forced(crier, [Item(text) for text in TEXTS]) is None
    assert not any(name.startswith("stop within") for name in rows)


def test_a_judge_that_hears_what_was_not_said_is_not_trusted(crier, found):
    class Parrot:
        name = "parrot"

        def __init__(self):
            self.sides = iter(found)

        def hear(self, clips):
            return list(next(self.sides).texts)

    rows = measure(found, spoken.FRONT, [Telepath(), Parrot()], [])
    assert distrusted(rows) == ["word errors by parrot, %"]


def test_a_sentence_that_cannot_be_said_is_silence():
    silent = spoken.make_synthesizer(stop=50.0)
    notes = []
    made = sides(silent, [Item(text) for text in TEXTS], note=notes.append)
    assert notes[1] == "could not say 'One two three.': the model stopped at the first frame of 'One two three.'"
    assert all(clip.is_silent for clip in made[0].clips)
    rows = {row.name: row.values for row in measure(made, spoken.FRONT, [], [])}
    assert rows["stopped by itself, %"] == (0, None)
    assert rows["real-time factor"] == (None, None)


def test_a_control_needs_another_sentence(crier):
    with pytest.raises(DataError, match="fewer than two different sentences"):
        sides(crier, [Item("One."), Item("One.")], note=lambda _: None)
