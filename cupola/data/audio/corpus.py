"""Speech corpora: utterances whose recordings were prepared in a folder, and a list that finds them again.

The list, a line of JSON for each utterance, is all that is needed afterwards: the files that the corpus
was made from may be gone. Not here: which symbols a text is read as (`spoken/`), batches (`batches.py`).
Invariant: a corpus that was written and read again has the same utterances in the same order.
"""

import dataclasses
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from cupola.core.errors import AudioError, DataError
from cupola.data.audio.files import rate_of
from cupola.data.audio.prepared import Preparation, Prepared, mapped
from cupola.data.audio.recordings import Utterance

TOLD_SECONDS = 30.0
"""How long preparing is silent at most."""


@dataclasses.dataclass(frozen=True, slots=True)
class Spoken:
    """An utterance that is prepared.

    Args:
        name: of its recording.
        text: what was said.
        kept: where in the corpus's folder its sound stands.
    """

    name: str
    text: str
    kept: str


@dataclasses.dataclass(frozen=True)
class SpeechCorpus:
    """Prepared utterances.

    Args:
        utterances: in the order of their names.
        folder: what stands in their `kept` is relative to it.
        preparation: that they went through.
    """

    utterances: tuple[Spoken, ...]
    folder: Path
    preparation: Preparation

    @classmethod
    def prepare(
        cls, utterances: Sequence[Utterance], preparation: Preparation, folder: Path, note: Callable[[str], None]
    ) -> "SpeechCorpus":
        """Prepares what the folder does not hold already.

        Args:
            note: told of recordings at another rate, and now and then how far it is.

        Raises:
            AudioError: some cannot be read, are silent or too short; the message names them.
            OSError: the folder cannot be written.
        """
        made, told, unusable = [], time.monotonic(), {}
        for number, each in enumerate(utterances):
            try:
                preparation.kept(each.path, folder)
                kept = preparation.target(each.path, folder).relative_to(folder)
                made.append(Spoken(each.name, each.text, kept.as_posix()))
            except AudioError as error:
                unusable[each.path] = error.problem
            if time.monotonic() > told + TOLD_SECONDS:
                told = time.monotonic()
                note(f"prepared {number + 1:,} of {len(utterances):,} recordings")
        _check_usable(unusable, len(utterances))
        _tell_rates(Counter(rate_of(each.path) for each in utterances), preparation.front.rate_hz, note)
        return cls(tuple(made), folder, preparation)

    def sounds(self) -> list[Prepared]:
        """Returns the recordings, their arrays mapped from the folder.

        Raises:
            DataError: some are gone.
        """
        found = [mapped(self.folder / each.kept) for each in self.utterances]
        gone = [each.name for each, sound in zip(self.utterances, found, strict=True) if sound is None]
        if gone:
            raise DataError(
                f"{len(gone)} of {len(found)} prepared recordings are gone or damaged, such as {gone[0]}",
                where=os.fspath(self.folder),
                remedy="Restore the folder, or start a new run.",
            )
        return [sound for sound in found if sound is not None]

    def where(self, wanted: Sequence[bool]) -> "SpeechCorpus":
        """Returns the corpus of the utterances that are wanted."""
        kept = (each for each, is_wanted in zip(self.utterances, wanted, strict=True) if is_wanted)
        return dataclasses.replace(self, utterances=tuple(kept))

    def text(self) -> str:
        """Returns the list of its utterances, as `parse` reads it."""
        return "".join(json.dumps(dataclasses.asdict(each), ensure_ascii=False) + "\n" for each in self.utterances)

    @classmethod
    def parse(cls, text: str, preparation: Preparation, folder: Path, *, where: Path) -> "SpeechCorpus":
        """Returns the corpus that a list describes.

        Raises:
            DataError: a line is none of such a list.
        """
        made = []
        for number, line in enumerate(text.splitlines(), start=1):
            try:
                made.append(Spoken(**json.loads(line)))
            except (ValueError, TypeError):
                raise DataError(
                    "is no line of a list of utterances", where=f"{where}:{number}", remedy="Start a new run."
                ) from None
        return cls(tuple(made), folder, preparation)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of names, texts and features: equal corpora teach the same."""
        digest = hashlib.sha256()
        for each, sound in zip(self.utterances, self.sounds(), strict=True):
            digest.update(f"{each.name}\n{each.text}\n{sound.features.shape}\n".encode(errors="surrogateescape"))
            digest.update(sound.features.tobytes())
        return digest.hexdigest()


def _check_usable(unusable: dict[Path, str], count: int) -> None:
    if unusable:
        named = "; ".join(f"{path.name}: {problem}" for path, problem in list(unusable.items())[:5])
        raise AudioError(
            f"{len(unusable)} of {count} recordings cannot be used: {named}{'; ...' if len(unusable) > 5 else ''}",
            where=os.fspath(next(iter(unusable)).parent),
            remedy="Mend them, or take their lines out of metadata.csv.",
        )


def _tell_rates(rates: Counter[int], wanted_hz: int, note: Callable[[str], None]) -> None:
    for rate, count in sorted(rates.items()):
        if rate != wanted_hz:
            # What was never recorded, resampling does not bring.
            lacks = f", and hold nothing above {rate / 2000:g} kHz" if rate < wanted_hz else ""
            note(f"{count:,} recordings at {rate:,} Hz were resampled to {wanted_hz:,} Hz{lacks}")
