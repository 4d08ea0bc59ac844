"""What a vocoder learns from, as a value, and the recordings that it becomes in a run's folder.

Not here: reading and preparing recordings (`data/audio`), segments of them (`data/audio/segments.py`), what a
model predicts (`predicted.py`). Invariant: what is held out is never learned from, by name and for ever.
"""

import os
from pathlib import Path
from typing import ClassVar

from cupola.config.value import Value
from cupola.core.errors import ConfigError, DataError
from cupola.data.audio.corpus import SpeechCorpus
from cupola.data.audio.features import LogMel
from cupola.data.audio.prepared import Preparation
from cupola.data.audio.recordings import Recordings, Utterance
from cupola.data.sources import Split, place

_ENDINGS = (".wav", ".flac", ".ogg", ".mp3", ".g722")


class SoundData(Value):
    """A folder of recordings, and what is made of it.

    Args:
        path: the folder: in the form of LJSpeech, or, where nobody needs to know what is said, with sound
            files alone, in it or in its wavs/; None: it has not been said yet.
        held_out: share of the recordings that the vocoder is measured on and never learns from.
        preparation: what is done to each recording; its front end makes the frames.
        predictions: folder of a run whose model speaks; its frames, made with the true ones before each at
            hand, stand for the recordings' own. None: these.
        cache: folder in which prepared recordings stand, for other runs too; None: the run's own.
        batch: segments in a step, over all devices.
        segment_frames: frames in a segment.
    """

    path: str | None = None
    held_out: float = 0.02
    preparation: Preparation
    predictions: str | None = None
    cache: str | None = None
    batch: int
    segment_frames: int = 64

    shorthand: ClassVar[str] = "path"

    def check(self) -> None:
        if self.batch < 1:
            raise ConfigError(f"{self.batch} is too few", where="batch", remedy="Use 1 or more.")
        if not 0 < self.held_out < 1:
            raise ConfigError(f"{self.held_out} is no share", where="held_out", remedy="Use a number such as 0.02.")
        least = self.front.stft.margin // self.front.stft.hop + 2
        if self.segment_frames < least:
            raise ConfigError(
                f"{self.segment_frames} frames are too short for their own spectra",
                where="segment_frames",
                remedy=f"Use {least} or more, such as 64.",
            )

    @property
    def front(self) -> LogMel:
        """What makes the frames."""
        return self.preparation.front

    def recordings(self) -> tuple[Utterance, ...]:
        """Returns the recordings, with what is said in them where that is written down.

        Raises:
            DataError: no folder is named, there is none, or it holds no recordings; predictions need transcripts.
        """
        if self.path is None:
            raise DataError(
                "no recordings are named",
                where="data",
                remedy="Type data=FOLDER, a folder of sound files, or one with wavs/ and metadata.csv.",
            )
        root = Path(self.path).expanduser()
        if self.predictions is not None or (root / "metadata.csv").is_file():
            return Recordings(path=self.path).utterances()
        if not root.is_dir():
            raise DataError("there is no such folder", where=self.path, remedy="Name a folder of sound files.")
        inner = root / "wavs"
        found = {x.stem: x for x in sorted((inner if inner.is_dir() else root).iterdir()) if x.suffix in _ENDINGS}
        if not found:
            raise DataError(
                "holds no sound files", where=self.path, remedy=f"Put files there that end in {', '.join(_ENDINGS)}."
            )
        return tuple(Utterance(name, path, "") for name, path in found.items())

    def split(self, corpus: SpeechCorpus) -> dict[Split, SpeechCorpus]:
        """Returns what is learned from and what is held out.

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
        return own if self.cache is None else Path(os.path.expanduser(self.cache))
