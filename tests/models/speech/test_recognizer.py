import dataclasses

import numpy as np

from cupola.core.dtype import BFLOAT16
from cupola.kernels.matmul import Packed, Turned, is_for
from cupola.models.speech.listening import Listening
from cupola.models.speech.transcribe import transcribe

ONCE = Listening(
    language="en", temperatures=(0.0,), beams=2, repeats_above=None, unlikely_below=None, silent_above=None
)


def test_ready_to_hear_it_hears_the_same(recognizer, clips):
    ready = recognizer.ready()
    layer = ready.params["decoder"]["stack"]["block"][0]
    assert isinstance(layer["cross_attention"]["query"], Turned)
    before, after = (transcribe(each, clips[0], ONCE) for each in (recognizer, ready))
    assert [each.tokens for each in after.segments] == [each.tokens for each in before.segments]


def test_in_bfloat16_matrices_are_packed_where_there_are_kernels(recognizer, clips):
    model = recognizer.model.replace("precision", BFLOAT16)
    ready = dataclasses.replace(recognizer, model=model).ready()
    packed = is_for(BFLOAT16)
    assert isinstance(ready.params["decoder"]["embedding"]["table"], Packed) == packed
    assert isinstance(ready.params["encoder"]["second"], Packed) == packed
    assert isinstance(transcribe(ready, clips[0], ONCE).text, str)


def test_the_front_end_has_the_models_bins(recognizer, clips):
    assert recognizer.front.bins == recognizer.model.mels == 8
    assert recognizer.front.of(clips[0]).shape[1] == 8
    assert np.isclose(recognizer.front.frame_seconds, 0.01)
