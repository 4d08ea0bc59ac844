"""What a speaking model learns from, as a value, and the examples that it becomes in a run's folder.

Not here: reading and preparing recordings (`data/audio`), batches on devices (the trainer's).
Invariant: examples depend on the corpus and the symbols alone; what is held out is never learned from.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from cupola.config.value import Value
from cupola.core.errors import ConfigError, DataError, TextError
from cupola.data.audio.batches import Example
from cupola.data.audio.corpus import SpeechCorpus
from cupola.data.audio.features import LogMel
from cupola.data.audio.prepared import Preparation
from cupola.data.audio.recordings import Recordings, Utterance
from cupola.data.sources import Split, place
from cupola.data.spoken.english import English
from cupola.data.spoken.symbols import Characters, Symbols


class SpeechData(Value):
    """A folder of transcribed recordings, and what is made of it.

    Args:
        path: the folder, with wavs/ and metadata.csv; None: it has not been said yet.
        held_out: share of the utterances that the model is measured on and never learns from.
        preparation: what is done to each recording; its front end makes the frames.
        symbols: what the model reads.
        language: puts transcripts in words.
        most_seconds: longer recordings are left out; None keeps all.
        cache: folder in which prepared recordings stand, for other runs too; None: the run's own.
        batch: utterances in a step, over all devices.
        buckets: how many shapes of batches there are at most; more waste less on padding and compile more.
        multiple: padded lengths are multiples of this.
    """

    path: str | None = None
    held_out: float = 0.02
    preparation: Preparation
    symbols: Symbols = Characters()
    language: English = English()
    most_seconds: float | None = None
    cache: str | None = None
    batch: int
    buckets: int = 6
    multiple: int = 16

    shorthand: ClassVar[str] = "path"

    def check(self) -> None:
        for name in ("batch", "buckets", "multiple"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{getattr(self, name)} is too few", where=name, remedy="Use 1 or more.")
        if not 0 < self.held_out < 1:
            raise ConfigError(f"{self.held_out} is no share", where="held_out", remedy="Use a number such as 0.02.")
        if self.most_seconds is not None and self.most_seconds <= 0:
            raise ConfigError(f"{self.most_seconds}", where="most_seconds", remedy="Use such as 12, or None.")

    @property
    def front(self) -> LogMel:
        """What makes the frames."""
        return self.preparation.front

    def in_words(self) -> list[Utterance]:
        """Returns what was said in each recording, in words.

        Raises:
            DataError: no folder is named, or it is not in the form of LJSpeech.
            TextError: transcripts hold characters that are no symbol, or nothing to say; the message names them.
            Unsupported: a package or program that transcribes is not installed.
        """
        if self.path is None:
            raise DataError(
                "no recordings are named",
                where="data",
                remedy="Type data=FOLDER, a folder with wavs/ and metadata.csv (a line NAME|TEXT for each recording).",
            )
        said = [
            dataclasses.replace(each, text=self.language(each.text)) for each in Recordings(path=self.path).utterances()
        ]
        self._check_symbols(said)
        return said

    def examples(self, corpus: SpeechCorpus) -> list[Example]:
        """Returns symbols and sound of each utterance.

        Raises:
            DataError: a prepared recording is gone.
        """
        sounds = corpus.sounds()
        return [
            Example(self.symbols.encode(each.text), sound)
            for each, sound in zip(corpus.utterances, sounds, strict=True)
        ]

    def short_enough(self, corpus: SpeechCorpus, note: Callable[[str], None]) -> SpeechCorpus:
        """Returns the corpus without what is longer than `most_seconds`, and says how much that is.

        Raises:
            DataError: nothing is left.
        """
        if self.most_seconds is None:
            return corpus
        most = self.most_seconds * self.front.rate_hz
        wanted = [len(sound.samples) <= most for sound in corpus.sounds()]
        if not any(wanted):
            raise DataError(
                f"every one of {len(wanted)} recordings is longer than {self.most_seconds:g} s",
                where="data.most_seconds",
                remedy="Cut the recordings at sentences, or use data.most_seconds=None.",
            )
        if not all(wanted):
            note(
                f"left out {wanted.count(False):,} recordings of more than {self.most_seconds:g} s (data.most_seconds)"
            )
        return corpus.where(wanted)

    def split(self, corpus: SpeechCorpus) -> dict[Split, SpeechCorpus]:
        """Returns what is learned from and what is held out, by name and for ever.

        Raises:
            DataError: one of them is empty.
        """
        held = [place(each.name) < self.held_out for each in corpus.utterances]
        sides = {Split.TRAIN: corpus.where([not is_held for is_held in held]), Split.HELD_OUT: corpus.where(held)}
        for side, part in sides.items():
            if not part.utterances:
                raise DataError(
                    f"data.held_out={self.held_out:g} leaves none of {len(held)} recordings "
                    f"{'to learn from' if side is Split.TRAIN else 'to be measured on'}",
                    where="data.held_out",
                    remedy="Use another share, such as 0.1, or record more.",
                )
        return sides

    def folder(self, own: Path) -> Path:
        """Returns where prepared recordings stand, in the run's `own` folder where no other was named."""
        return own if self.cache is None else Path(self.cache).expanduser()

    def _check_symbols(self, said: Sequence[Utterance]) -> None:
        refused: dict[str, TextError] = {}
        for each in said:
            try:
                self.symbols.encode(each.text)
            except TextError as error:
                refused[each.name] = error
        if refused:
            name, first = next(iter(refused.items()))
            raise TextError(
                f"{len(refused)} of {len(said)} transcripts cannot be read, such as that of {name}: {first.problem}",
                where=os.fspath(Path(self.path or "") / "metadata.csv"),
                remedy=first.remedy,
            )
