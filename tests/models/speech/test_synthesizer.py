import sys
from pathlib import Path

import numpy as np
import pytest

from cupola.core.errors import ConfigError
from cupola.data.audio.griffin_lim import GriffinLim
from cupola.models.speech import generate
from cupola.models.speech.synthesizer import Card

sys.path.insert(0, str(Path(__file__).parents[2] / "interop"))

import spoken


@pytest.fixture(scope="module")
def crier():
    return spoken.make_synthesizer()


def test_speed_and_precision_are_changed_alone(crier):
    quick = crier.at(speed=2.0)
    assert quick.voice == crier.voice.replace("speed", 2.0)
    assert quick.params is crier.params
    assert crier.at().voice == crier.voice
    with pytest.raises(ConfigError, match="speed: 9"):
        crier.at(speed=9.0)


def test_another_vocoder_of_the_same_front_end(crier):
    made = crier.with_vocoder(GriffinLim(front=spoken.FRONT, steps=3, inverse_steps=2), {})
    assert made.voice.vocoder.steps == 3
    with pytest.raises(ConfigError, match=r"front end is another one:\n.*high_hz(.|\n)*Train it with the front end"):
        crier.with_vocoder(GriffinLim(front=spoken.FRONT.replace("mel.high_hz", 3000.0)), {})


def test_when_it_is_warm_nothing_is_compiled_any_more(crier, monkeypatch):
    lengths = list(crier.warm())
    assert lengths == list(range(32, 257, 32))
    made = generate._begin(crier.voice.model)
    before = made._cache_size()
    crier.voice.say(crier.params, "One two three. " + "four " * 40)
    assert made._cache_size() == before >= len(lengths)


def test_a_card_says_what_must_be_known():
    with pytest.raises(ConfigError, match="licence: is empty\nSay it"):
        Card(licence=" ", data="mine")
    assert np.asarray(Card(licence="MIT", data="mine").figures).size == 0
