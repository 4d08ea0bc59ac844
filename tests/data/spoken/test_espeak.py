"""espeak-ng: one transcription for each piece, whatever it does with its lines."""

import shutil

import pytest

from cupola.core.errors import TextError
from cupola.data.spoken.espeak import transcribe

pytestmark = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs Debian's package espeak-ng")


def test_one_for_each_piece():
    said = transcribe(["hello", "", "it is\nready"], voice="en-us")
    assert said == [transcribe(["hello"], voice="en-us")[0], "", transcribe(["it is ready"], voice="en-us")[0]]


def test_what_it_breaks_into_clauses_is_one_again():
    assert len(transcribe(["one. two", "three"], voice="en-us")) == 2


def test_an_unknown_voice_is_refused():
    with pytest.raises(TextError, match="espeak-ng answers"):
        transcribe(["hello"], voice="xx-none")
