import json

from cupola.models.speech.transcript import Format, Segment, Transcript
from cupola.models.speech.whisper_tokens import Task


def segment(start, end, text):
    return Segment(
        start=start,
        end=end,
        window=0.0,
        text=text,
        tokens=(1, 2),
        average_log_prob=-0.1,
        no_speech=0.01,
        temperature=0.0,
        compression_ratio=1.1,
    )


SAID = Transcript(
    language="en",
    language_prob=1.0,
    segments=(segment(0.0, 2.5, " The bell."), segment(3661.5, 3662.0, " A --> gate.")),
    duration_seconds=3663.0,
    task=Task.TRANSCRIBE,
)


def test_text_is_a_line_a_segment():
    assert Format.TEXT.write(SAID) == "The bell.\nA --> gate.\n"
    assert SAID.text == "The bell. A --> gate."


def test_cues_have_times_and_no_arrows_of_their_own():
    assert Format.SRT.write(SAID) == (
        "1\n00:00:00,000 --> 00:00:02,500\nThe bell.\n\n2\n01:01:01,500 --> 01:01:02,000\nA -> gate.\n"
    )
    assert Format.VTT.write(SAID) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.500\nThe bell.\n\n01:01:01.500 --> 01:01:02.000\nA -> gate.\n"
    )


def test_json_has_all():
    held = json.loads(Format.JSON.write(SAID))
    assert held["text"] == SAID.text
    assert held["task"] == "transcribe"
    assert held["segments"][1] | {"tokens": ()} == vars(SAID.segments[1]) | {"tokens": ()}


def test_nothing_said_is_nothing_written():
    nothing = Transcript(language="en", language_prob=1.0, segments=(), duration_seconds=1.0, task=Task.TRANSCRIBE)
    assert [Format.TEXT.write(nothing), Format.SRT.write(nothing), Format.VTT.write(nothing)] == ["", "", "WEBVTT\n"]
