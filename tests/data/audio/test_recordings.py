"""Transcribed folders: every utterance once with its file, and what is wrong with a folder is named."""

import logging

import pytest

from cupola.core.errors import ConfigError, DataError
from cupola.data.audio.recordings import Recordings
from cupola.data.sources import Split


def folder(path, lines, sounds, *, transcripts="metadata.csv"):
    (path / "wavs").mkdir()
    for sound in sounds:
        (path / "wavs" / sound).write_bytes(b"")
    if lines is not None:
        (path / transcripts).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Recordings(path=str(path))


def test_utterances_are_sorted_and_take_the_last_text(tmp_path):
    lines = ["b|In 1999.|In nineteen ninety-nine.", "a.wav|Hello|", "", "c|“λ”"]
    found = folder(tmp_path, lines, ["a.wav", "b.flac", "c.G722", "notes.txt"]).utterances()
    assert [(each.name, each.path.name, each.text) for each in found] == [
        ("a", "a.wav", "Hello"),
        ("b", "b.flac", "In nineteen ninety-nine."),
        ("c", "c.G722", "“λ”"),
    ]


def test_a_recording_without_a_transcript_is_left_out_aloud(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        found = folder(tmp_path, ["a|Hello"], ["a.wav", "b.wav", "c.wav"]).utterances()
    assert [each.name for each in found] == ["a"]
    assert "left out 2 recordings without a transcript, such as b" in caplog.text


@pytest.mark.parametrize(
    ("lines", "sounds", "said"),
    [
        (None, ["a.wav"], "without transcripts"),
        ([], ["a.wav"], "holds no transcript"),
        (["a|Hello", "b|World"], ["a.wav"], "1 of 2 transcripts have no recording, such as b"),
        (["a|Hello", "a|World"], ["a.wav"], "a has two transcripts"),
        (["a Hello"], ["a.wav"], "not a transcript: 'a Hello'"),
        (["a|"], ["a.wav"], "not a transcript"),
    ],
)
def test_a_folder_that_cannot_be_learned_from_is_refused(tmp_path, lines, sounds, said):
    with pytest.raises(DataError, match=said) as caught:
        folder(tmp_path, lines, sounds).utterances()
    assert str(tmp_path) in caught.value.where
    assert caught.value.remedy


def test_what_is_there_instead_of_transcripts_is_named(tmp_path):
    with pytest.raises(DataError) as caught:
        folder(tmp_path, ["a|Hello"], ["a.wav"], transcripts="transcript.txt").utterances()
    assert "transcript.txt, wavs" in caught.value.remedy


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        Recordings(path=str(tmp_path / "none")).utterances()


def test_another_encoding_is_refused(tmp_path):
    made = folder(tmp_path, None, ["a.wav"])
    (tmp_path / "metadata.csv").write_bytes(b"a|caf\xe9\n")
    with pytest.raises(DataError, match="byte 5"):
        made.utterances()


def test_a_split_parts_the_names_and_keeps_them_apart_when_more_come(tmp_path):
    names = [f"n{i:03}" for i in range(200)]
    whole = folder(tmp_path, [f"{name}|text" for name in names], [f"{name}.wav" for name in names])

    def side(split):
        return {each.name for each in whole.replace("held_out", 0.1).replace("split", split).utterances()}

    train, held_out = side(Split.TRAIN), side(Split.HELD_OUT)
    assert train | held_out == set(names)
    assert not train & held_out
    assert 8 < len(held_out) < 35
    (tmp_path / "metadata.csv").write_text("".join(f"{name}|text\n" for name in names[:100]))
    assert side(Split.HELD_OUT) == held_out & set(names[:100])


def test_a_side_that_is_empty_is_refused(tmp_path):
    with pytest.raises(DataError, match="leaves none"):
        folder(tmp_path, ["a|Hello"], ["a.wav"]).replace("split", Split.HELD_OUT).utterances()
    with pytest.raises(ConfigError):
        Recordings(path="x", held_out=1.0)
