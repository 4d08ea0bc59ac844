"""A small Whisper with random weights, tokens like Whisper's, and recordings: for whoever tests hearing."""

from pathlib import Path

import jax
import numpy as np
import tokenizers
from tokenizers import AddedToken

from cupola.core.dtype import FLOAT32
from cupola.data.audio.clip import Clip
from cupola.data.tokenizer import Tokenizer
from cupola.models.speech.recognizer import Recognizer
from cupola.models.speech.whisper import whisper_of
from cupola.models.speech.whisper_tokens import WhisperTokens

POSITIONS = 20
"""Of the encoder: windows of 0.4 seconds."""

SPECIAL = [
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|de|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
]


def make_tokens(folder: Path) -> WhisperTokens:
    """Returns a trained tokenizer with the special tokens; the folder then holds its tokenizer.json."""
    # Signs after a space are tokens of their own, as in Whisper's vocabulary: else a space would be suppressed.
    signs = "a bell - 'tis \N{QUARTER NOTE} \N{EIGHTH NOTE} \N{BEAMED EIGHTH NOTES} - 'tis \N{MUSIC SHARP SIGN} "
    trained = Tokenizer.train(["the furnace melts iron and pours it " * 3, signs * 9], vocabulary=290)
    trained.save(path := folder / "tokenizer.json")
    inner = tokenizers.Tokenizer.from_file(str(path))
    inner.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    inner.save(str(path))
    return WhisperTokens(Tokenizer.load(path, end="<|endoftext|>"))


def make_recognizer(tokens: WhisperTokens) -> Recognizer:
    model = whisper_of(
        width=16,
        encoder_layers=1,
        decoder_layers=2,
        heads=2,
        vocabulary=tokens.codes.times + POSITIONS + 1,
        mels=8,
        positions=POSITIONS,
        max_length=32,
        precision=FLOAT32,
    )
    # Wide logits and sound that matters: random models are otherwise near-ties everywhere.
    params = jax.tree.map(lambda x: 4 * x if x.ndim > 1 else x, model.init(jax.random.key(2)))
    return Recognizer(name="small", model=model, params=params, tokens=tokens)


def make_clips() -> list[Clip]:
    """Three recordings of unlike sound and length."""
    drawn = np.random.default_rng(0)
    lengths, pitches = (0.33, 0.9, 0.2), (200.0, 700.0, 1500.0)

    def one(seconds: float, pitch: float) -> Clip:
        times = np.arange(int(16_000 * seconds)) / 16_000
        sound = np.sin(2 * np.pi * pitch * times * (1 + times)) + 0.1 * drawn.standard_normal(len(times))
        return Clip((0.3 * sound).astype(np.float32), 16_000)

    return [one(*each) for each in zip(lengths, pitches, strict=True)]
