"""A voice by whatever a user calls it: a run's folder, a voice file, or the one that the package is shipped with.

Not here: each kind of source (`train/speech/voice.py`, `interop/voice.py`).
"""

from pathlib import Path
from typing import Annotated

import typer

from cupola.core.dtype import Precision
from cupola.core.errors import ConfigError
from cupola.interop.voice import ENDING, read_voice, shipped
from cupola.models.speech.synthesizer import Synthesizer
from cupola.train.folder import RunFolder
from cupola.train.speech.vocoder import load_vocoder
from cupola.train.speech.voice import load_voice

Named = Annotated[
    str | None, typer.Option(metavar="VOICE", help="A run's folder, or a voice file; else the shipped one.")
]
Vocoder = Annotated[str | None, typer.Option(metavar="RUN", help="Folder of a run whose vocoder makes the sound.")]
Speed = Annotated[float, typer.Option(min=0.25, max=4.0, help="Times as fast; pitch stays.")]

_TRAIN = "Train one: cupola train tacotron2 data=path/to/ljspeech"


def find_voice(
    source: str | None,
    *,
    vocoder: str | None = None,
    step: int | None = None,
    speed: float | None = None,
    precision: Precision | None = None,
) -> Synthesizer:
    """Returns the voice that a user named.

    Args:
        source: None: the one that the package is shipped with.
        vocoder: folder of a run whose vocoder takes the place of the voice's; None: its own.
        step: of the run's checkpoint; None: the latest.
        speed: None: its own.
        precision: of products; None: its own.

    Raises:
        CupolaError: there is none, or it cannot be read, or the vocoder is of another front end.
    """
    found = _found(source, step)
    if vocoder is not None:
        found = found.with_vocoder(*load_vocoder(RunFolder.open(vocoder)))
    return found.at(speed=speed, precision=precision)


def _found(source: str | None, step: int | None) -> Synthesizer:
    if source is None:
        path = shipped()
        if path is None:
            raise ConfigError(
                "no voice is shipped with this package yet",
                where="--voice",
                remedy=f"Name a run's folder or a voice file: --voice runs/tacotron2. {_TRAIN}",
            )
        return read_voice(path)
    path = Path(source)
    if path.is_dir():
        return _of_run(path, step)
    if step is not None:
        raise ConfigError("a voice file has no steps", where="--step", remedy="Leave it out, or name a run's folder.")
    if path.suffix == ENDING or path.is_file():
        return read_voice(path)
    raise ConfigError(
        f"there is no voice {source!r}", where="--voice", remedy=f"Name a run's folder or a file. {_TRAIN}"
    )


def _of_run(path: Path, step: int | None) -> Synthesizer:
    voice, params = load_voice(RunFolder.open(path), step)
    return Synthesizer(name=path.resolve().name, voice=voice, params=params)
