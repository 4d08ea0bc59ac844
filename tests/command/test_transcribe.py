import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from cupola.data.audio.clip import Clip
from cupola.data.audio.files import write

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))
sys.path.insert(0, str(Path(__file__).parents[1] / "models" / "speech"))

import converted
import small_whisper


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The folder of a small Whisper."""
    folder = tmp_path_factory.mktemp("ear")
    made = small_whisper.make_recognizer(small_whisper.make_tokens(folder))
    save_file(converted.at_huggingface(made.model, made.params), folder / "model.safetensors")
    heads = {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
    widths = {f"{side}_ffn_dim": 64 for side in ("encoder", "decoder")}
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "num_mel_bins": 8, "max_target_positions": 32}
    config = {"model_type": "whisper", "vocab_size": made.model.vocabulary, "max_source_positions": 20}
    (folder / "config.json").write_text(json.dumps(config | heads | widths | sizes))
    return folder


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    for number, clip in enumerate(small_whisper.make_clips()):
        write(clip, folder / f"{number}.wav")
    write(small_whisper.make_clips()[0].at_rate(44_100), folder / "music.flac")
    write(Clip(np.zeros(8000, np.float32), 16_000), folder / "silence.wav")
    (folder / "text.wav").write_text("no sound")
    return folder


def test_recordings_are_printed_in_order(cupola, weights, recordings):
    words = ("transcribe", recordings / "0.wav", recordings / "1.wav", "--weights", weights, "--precision", "float32")
    ended = cupola(*words, "--language", "en", "--beam", 2, "--format", "json")
    assert ended.code == 0, ended.err
    decoder, first_end = json.JSONDecoder(), 0
    seconds = []
    while first_end < len(ended.out.rstrip()):
        held, first_end = decoder.raw_decode(ended.out, first_end)
        first_end += 1
        seconds.append(held["duration_seconds"])
        assert (held["language"], held["task"]) == ("en", "transcribe")
    assert seconds == [0.33, 0.9]
    one = cupola("transcribe", recordings / "music.flac", *words[3:], "--format", "vtt", "--no-timestamps")
    assert one.code == 0, one.err
    assert one.out.startswith("WEBVTT\n")


@pytest.mark.parametrize(
    ("file", "more", "match"),
    [
        ("silence.wav", (), "silence.wav: 0.5 s of silence"),
        ("text.wav", (), "text.wav: no sound that can be read"),
        ("none.wav", (), "none.wav: cannot be read"),
        ("0.wav", ("--language", "xx"), "'xx' is no language of this model"),
        ("0.wav", ("--weights", "nowhere"), "there is no folder 'nowhere'"),
    ],
)
def test_mistakes_are_told(cupola, weights, recordings, file, more, match):
    ended = cupola("transcribe", recordings / file, "--weights", weights, "--precision", "float32", *more)
    assert (ended.code, ended.out) == (2, "")
    assert match in " ".join(ended.err.split())
