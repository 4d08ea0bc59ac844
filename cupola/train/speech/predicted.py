"""Frames that a speaking model predicts of recordings, aligned with their sound.

The decoder is given the recording's own frames up to each frame, so what it says falls on the recording's
time; a vocoder that learns from these frames learns to mend what the model does wrong. Not here: speaking
freely (`models/speech/generate.py`). Invariant: as many frames as the recording has, made once and kept.
Source: Shen et al. 2017, arXiv 1712.05884, section 3.1 (ground-truth aligned) and table 2.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Float, Float32, Key

from cupola.core.context import Context
from cupola.core.errors import ConfigError, DataError
from cupola.core.module import Tree
from cupola.data.audio.batches import Example, SpeechBatch, pad
from cupola.data.audio.corpus import SpeechCorpus
from cupola.data.files import whole
from cupola.models.speech.tacotron import Tacotron2
from cupola.models.speech.voice import Voice
from cupola.train.folder import RunFolder
from cupola.train.speech.voice import load_voice

_BATCH, _FRAMES, _SYMBOLS = 8, 128, 32
"""Utterances at once; padded lengths are multiples of these, so that few programs are compiled."""

Predictions = list[Float32[np.ndarray, "T M"]]


def predictions(run: str, corpus: SpeechCorpus, folder: Path, note: Callable[[str], None]) -> Predictions:
    """Returns the frames that a run's voice predicts of each utterance, mapped from a folder where they are kept.

    Args:
        run: folder of the run; it may be gone when all frames are kept.
        folder: for nothing else.
        note: told what is made.

    Raises:
        TrainingError: there is no run, or it trains another model.
        ConfigError: its voice has another front end than the recordings.
        TextError: a transcript holds a character that is no symbol of the voice.
    """
    files = [folder / f"{_name(each.name)}.npy" for each in corpus.utterances]
    if missing := [i for i, file in enumerate(files) if not file.is_file()]:
        voice, params = load_voice(RunFolder.open(Path(run).expanduser()))
        _check_front(voice, corpus, run)
        part = corpus.where([i in set(missing) for i in range(len(files))])
        folder.mkdir(parents=True, exist_ok=True)
        for i, frames in zip(missing, predict(voice, params, part), strict=True):
            with whole(files[i]) as unfinished, unfinished.open("wb") as file:
                np.save(file, frames)
        note(f"predicted the frames of {len(missing):,} recordings with {run}")
    found = [np.load(file, mmap_mode="r") for file in files]
    for each, frames, sound in zip(corpus.utterances, found, corpus.sounds(), strict=True):
        if frames.shape != sound.features.shape:
            raise DataError(
                f"{len(frames)} frames are kept for {each.name}, which has {len(sound.features)}",
                where=str(folder),
                remedy="Start a new run.",
            )
    return found


def predict(voice: Voice, params: Tree, corpus: SpeechCorpus) -> Predictions:
    """Returns the frames that a voice predicts of each utterance, the true ones before each frame at hand.

    Raises:
        TextError: a transcript holds a character that is no symbol of the voice.
    """
    examples = [
        Example(voice.symbols.encode(voice.language(each.text)), sound)
        for each, sound in zip(corpus.utterances, corpus.sounds(), strict=True)
    ]
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].sound.features))
    forced = jax.jit(partial(_forced, voice.model))
    made: dict[int, Float32[np.ndarray, "T M"]] = {}
    for start in range(0, len(order), _BATCH):
        chosen = order[start : start + _BATCH]
        batch = _padded([examples[i] for i in chosen])
        after = np.asarray(forced(params["model"], batch, jax.random.fold_in(jax.random.key(0), start)), np.float32)
        made |= {i: after[row, : len(examples[i].sound.features)] for row, i in enumerate(chosen)}
    return [made[i] for i in range(len(examples))]


def digest(frames: Predictions) -> str:
    """Returns SHA-256 of them all."""
    told = hashlib.sha256()
    for each in frames:
        told.update(f"{each.shape}\n".encode())
        told.update(each.tobytes())
    return told.hexdigest()


def _forced(model: Tacotron2, params: Tree, batch: SpeechBatch, key: Key[Array, ""]) -> Float[Array, "B T M"]:
    given = batch.symbols, batch.symbol_lengths, batch.features, batch.feature_lengths
    return model(params, *given, context=Context(key=key)).after


def _padded(examples: Sequence[Example]) -> SpeechBatch:
    frames = max(len(each.sound.features) for each in examples)
    symbols = max(len(each.symbols) for each in examples)
    filled = [*examples, *[examples[0]] * (_BATCH - len(examples))]
    return pad(filled, -(-symbols // _SYMBOLS) * _SYMBOLS, -(-frames // _FRAMES) * _FRAMES)


def _check_front(voice: Voice, corpus: SpeechCorpus, run: str) -> None:
    ours, theirs = corpus.preparation.front, voice.vocoder.front
    if ours != theirs:
        raise ConfigError(
            f"the run {run} makes other frames than data.preparation.front",
            where="data.predictions",
            remedy="Use the front end of its config.txt: data.preparation.front.",
        )


def _name(name: str) -> str:
    """A file's name, whatever the recording's holds."""
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:32]
