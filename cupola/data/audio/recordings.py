"""Transcribed recordings: a folder in the form of LJSpeech, wavs/ and metadata.csv.

    metadata.csv    one line each: name|text, or name|text|text in words
    wavs/NAME.wav   or .flac, .ogg, .mp3, .g722

Not here: what a model makes of sound and text (`prepared.py`, `batches.py`). Invariant: the same
files give the same utterances in the same order, and a name is on the same side of a split for ever.
"""

import dataclasses
import logging
import os
from pathlib import Path

from cupola.config.value import Value
from cupola.core.errors import ConfigError, DataError
from cupola.data.sources import Split, place

logger = logging.getLogger(__name__)

_TRANSCRIPTS, _SOUNDS = "metadata.csv", "wavs"
_ENDINGS = (".wav", ".flac", ".ogg", ".mp3", ".g722")


@dataclasses.dataclass(frozen=True, slots=True)
class Utterance:
    """What was said in a file."""

    name: str
    path: Path
    text: str


class Recordings(Value):
    """A folder of transcribed recordings, one side of a split of it.

    Args:
        path: the folder.
        held_out: the share of utterances to hold out; 0 holds out none.
        split: which side to give.
    """

    path: str
    held_out: float = 0.0
    split: Split = Split.ALL

    def check(self) -> None:
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"{self.held_out} is no share", where="held_out", remedy="Use a number such as 0.02.")

    def utterances(self) -> tuple[Utterance, ...]:
        """Returns what was said in each file, sorted by name.

        A recording without a transcript is left out with a warning that counts them.

        Raises:
            DataError: no such folder, no transcripts, a line that is none, or a transcript without a recording.
        """
        root = Path(self.path).expanduser()
        texts = self._transcripts(root)
        sounds = {path.stem: path for path in sorted((root / _SOUNDS).glob("*")) if path.suffix.lower() in _ENDINGS}
        missing = sorted(texts.keys() - sounds.keys())
        if missing:
            raise DataError(
                f"{len(missing)} of {len(texts)} transcripts have no recording, such as {missing[0]}",
                where=os.fspath(root / _SOUNDS),
                remedy=f"Put {missing[0]}.wav there, or take its line out of {_TRANSCRIPTS}.",
            )
        unsaid = sorted(sounds.keys() - texts.keys())
        if unsaid:
            logger.warning("%s: left out %d recordings without a transcript, such as %s", root, len(unsaid), unsaid[0])
        found = tuple(Utterance(name, sounds[name], texts[name]) for name in sorted(texts) if self._is_wanted(name))
        if not found:
            raise DataError(
                f"held_out={self.held_out:g} leaves none of {len(texts)} recordings {self.split.value}",
                where=self.path,
                remedy="Use another share, or record more.",
            )
        return found

    def _is_wanted(self, name: str) -> bool:
        if self.split is Split.ALL:
            return True
        return (place(name) < self.held_out) == (self.split is Split.HELD_OUT)

    def _transcripts(self, root: Path) -> dict[str, str]:
        if not root.is_dir():
            raise DataError(
                "there is no such folder", where=self.path, remedy=f"It holds {_SOUNDS}/ and {_TRANSCRIPTS}."
            )
        file = root / _TRANSCRIPTS
        if not file.is_file():
            here = ", ".join(sorted(path.name for path in root.iterdir())[:5]) or "nothing"
            raise DataError(
                f"recordings without transcripts: there is no {_TRANSCRIPTS}",
                where=self.path,
                remedy=f"The folder holds: {here}. Write {_TRANSCRIPTS}, with a line NAME|TEXT for each file.",
            )
        texts: dict[str, str] = {}
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(
                f"not UTF-8 text (byte {error.start})",
                where=os.fspath(file),
                remedy=f"Save it as UTF-8: iconv -f ENCODING -t UTF-8 {_TRANSCRIPTS}.",
            ) from None
        for number, line in enumerate(lines, start=1):
            if line.strip():
                name, text = _transcript(line, f"{file}:{number}")
                if name in texts:
                    raise DataError(
                        f"{name} has two transcripts", where=f"{file}:{number}", remedy="Take one of the lines out."
                    )
                texts[name] = text
        if not texts:
            raise DataError("holds no transcript", where=os.fspath(file), remedy="Write NAME|TEXT for each recording.")
        return texts


def _transcript(line: str, where: str) -> tuple[str, str]:
    name, *texts = (part.strip() for part in line.split("|"))
    # The last column is the text in words, where there is one.
    text = next((text for text in reversed(texts) if text), "")
    if not name or not text:
        raise DataError(
            f"not a transcript: {line[:40]!r}", where=where, remedy="Write NAME|TEXT, or NAME|TEXT|TEXT IN WORDS."
        )
    return Path(name).stem if name.lower().endswith(_ENDINGS) else name, text
