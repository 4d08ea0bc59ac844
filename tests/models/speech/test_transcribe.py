import dataclasses
import itertools

import numpy as np
import pytest

from cupola.core.errors import AudioError, ConfigError
from cupola.data.audio.clip import Clip
from cupola.models.speech.listening import Earlier, Listening
from cupola.models.speech.transcribe import cut_at_times, follow, transcribe, transcribe_all
from cupola.models.speech.whisper_tokens import Task, Times, WhisperTokens

ANYTHING = {"repeats_above": None, "unlikely_below": None, "silent_above": None}
"""Random weights say nothing likely, and every text is taken."""
ONCE = Listening(language="en", temperatures=(0.0,), beams=2, latest_first_seconds=0.1, **ANYTHING)


def told(transcript):
    return [(each.start, each.end, each.text, each.tokens) for each in transcript.segments]


def test_together_as_alone(recognizer, clips):
    together = transcribe_all(recognizer, clips, ONCE, batch=2)
    assert [told(each) for each in together] == [told(transcribe(recognizer, clip, ONCE)) for clip in clips]
    assert any(told(each) for each in together)
    # The control: the recordings are not alike.
    assert told(together[0]) != told(together[1])


def test_segments_come_in_order_within_the_recording(recognizer, clips):
    long = clips[1]
    transcript = transcribe(recognizer, long, ONCE)
    assert transcript.duration_seconds == long.seconds
    assert transcript.segments
    for each in transcript.segments:
        # A window reaches past the end of the recording.
        assert 0 <= each.window <= each.start < each.end <= long.seconds + 0.4
    windows = [each.window for each in transcript.segments]
    assert windows == sorted(windows)
    assert transcript.text == "".join(each.text for each in transcript.segments).strip()


def test_it_can_be_followed(recognizer, clips):
    steps = list(follow(recognizer, clips[1], ONCE))
    assert len(steps) > 1
    assert steps[-1] == transcribe(recognizer, clips[1], ONCE)
    for before, after in itertools.pairwise(steps):
        assert after.segments[: len(before.segments)] == before.segments


def test_the_rate_and_the_level_of_a_recording_are_its_own(recognizer, clips):
    clip = clips[0]
    other = clip.at_rate(44_100)
    assert transcribe(recognizer, other, ONCE).language == "en"
    assert transcribe(recognizer, other, ONCE).duration_seconds == pytest.approx(clip.seconds, abs=1e-3)


def test_a_language_is_found_where_none_is_given(recognizer, clips):
    found = transcribe(recognizer, clips[0], dataclasses.replace(ONCE, language=None))
    assert found.language in ("en", "de")
    assert 0.5 <= found.language_prob < 1
    assert transcribe(recognizer, clips[0], ONCE).language_prob == 1


def test_what_was_said_is_shown_or_hidden(recognizer, clips):
    shown = transcribe(recognizer, clips[1], ONCE)
    hidden = transcribe(recognizer, clips[1], dataclasses.replace(ONCE, earlier=Earlier.HIDDEN))
    assert told(shown)[:1] == told(hidden)[:1]
    assert told(shown) != told(hidden)
    hinted = transcribe(recognizer, clips[1], dataclasses.replace(ONCE, prompt="the bell"))
    assert told(shown) != told(hinted)


def test_a_poor_text_is_drawn_again(recognizer, clips):
    # Nothing is likely enough, so that all temperatures are tried and the likeliest is taken.
    unlikely = dataclasses.replace(ONCE, temperatures=(0.0, 0.4, 1.0), unlikely_below=0.0)
    tried = transcribe(recognizer, clips[0], unlikely)
    once = transcribe(recognizer, clips[0], ONCE)
    assert {each.temperature for each in tried.segments} == {1.0}
    assert {each.temperature for each in once.segments} == {0.0}
    assert tried == transcribe(recognizer, clips[0], unlikely)
    if tried.segments and once.segments:
        assert tried.segments[0].average_log_prob >= once.segments[0].average_log_prob


def test_a_silent_window_is_left_out(recognizer, clips):
    silent = dataclasses.replace(ONCE, silent_above=0.0)
    assert transcribe(recognizer, clips[1], silent).segments == ()
    # The control: a likely text is kept, however silent its window.
    kept = dataclasses.replace(ONCE, silent_above=0.0, unlikely_below=-100.0)
    assert told(transcribe(recognizer, clips[1], kept)) == told(transcribe(recognizer, clips[1], ONCE))


def test_without_times_a_window_is_one_segment(recognizer, clips):
    plain = transcribe(recognizer, clips[0], dataclasses.replace(ONCE, times=Times.NONE))
    assert [(each.start, each.end) for each in plain.segments] == [(0.0, 0.33)]
    assert all(token < recognizer.tokens.codes.times for token in plain.segments[0].tokens)


@pytest.mark.parametrize(
    ("tokens", "parts", "moved"),
    [
        # Times are 100 and above, a step each; a window of 40 frames has 20 steps.
        ((100, 1, 2, 110), [(0, 10, (100, 1, 2, 110))], 40),
        ((100, 1, 105, 105, 2, 110), [(0, 5, (100, 1, 105)), (5, 10, (105, 2, 110))], 40),
        ((100, 1, 105, 107, 2), [(0, 5, (100, 1, 105))], 10),
        ((100, 1, 105, 107, 2, 110, 110), [(0, 5, (100, 1, 105)), (7, 10, (107, 2, 110))], 20),
        ((100, 1, 2), [(0, 20, (100, 1, 2))], 40),
        ((1, 2), [(0, 20, (1, 2))], 40),
        ((), [(0, 20, ())], 40),
    ],
)
def test_a_window_is_cut_at_pairs_of_times(tokens, parts, moved):
    assert cut_at_times(tokens, 100, 40) == (parts, moved)


def test_what_cannot_be_is_refused(recognizer, clips):
    silence = Clip(np.zeros(16_000, np.float32), 16_000)
    with pytest.raises(AudioError, match=r"1\.0 s of silence"):
        transcribe(recognizer, silence, ONCE)
    with pytest.raises(ConfigError, match="'xx' is no language of this model"):
        transcribe(recognizer, clips[0], Listening(language="xx"))
    with pytest.raises(ConfigError, match="there is no token 9999"):
        transcribe(recognizer, clips[0], Listening(suppress=(9999,)))
    english = dataclasses.replace(recognizer, tokens=_English(recognizer.tokens.tokenizer))
    with pytest.raises(ConfigError, match="knows English alone"):
        transcribe(english, clips[0], Listening(task=Task.TRANSLATE))
    with pytest.raises(ConfigError, match="knows English alone"):
        transcribe(english, clips[0], Listening(language="de"))
    assert transcribe(english, clips[0], dataclasses.replace(ONCE, language=None)).language == "en"


class _English(WhisperTokens):
    """The tokens of a model of English alone."""

    is_multilingual = False


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"beams": 0}, "beams: 0"),
        ({"draws": 65}, "draws: 65"),
        ({"temperatures": ()}, "temperatures"),
        ({"temperatures": (-0.1,)}, "temperatures"),
        ({"patience": 0.0}, "patience"),
        ({"latest_first_seconds": 31.0}, "latest_first_seconds"),
    ],
)
def test_listening_that_cannot_be(changes, match):
    with pytest.raises(ConfigError, match=match):
        Listening(**changes)
