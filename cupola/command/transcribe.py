"""`cupola transcribe`: what is said in recordings."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cupola.command.options import begin
from cupola.command.source import Products, precision_of
from cupola.core.errors import CupolaError
from cupola.data.audio.clip import Clip
from cupola.data.audio.files import read
from cupola.interop.whisper import open_whisper
from cupola.models.speech.listening import Listening
from cupola.models.speech.transcribe import transcribe_all
from cupola.models.speech.transcript import Format
from cupola.models.speech.whisper_tokens import Task, Times
from cupola.observe import log

Files = Annotated[list[Path], typer.Argument(metavar="FILES", help="Recordings of any format, rate and length.")]
Weights = Annotated[str, typer.Option(help="A fetched name, or the folder of a Whisper.")]


def transcribe(
    files: Files,
    weights: Weights = "whisper-base",
    language: Annotated[str | None, typer.Option(help="Its code, such as en; found if not given.")] = None,
    task: Annotated[Task, typer.Option(help="Words as they are said, or in English.")] = Task.TRANSCRIBE,
    beam: Annotated[int, typer.Option(min=1, help="Texts that are followed at once.")] = 5,
    prompt: Annotated[str, typer.Option(help="Names and spelling to expect.")] = "",
    timestamps: Annotated[bool, typer.Option(help="Find when each part is said.")] = True,
    format: Annotated[Format, typer.Option(help="How the text is written.")] = Format.TEXT,
    batch: Annotated[int, typer.Option(min=1, help="Recordings that are listened to at once.")] = 4,
    precision: Products = "auto",
) -> None:
    """Prints what is said in recordings.

    \b
    cupola transcribe talk.mp3
    cupola transcribe talk.mp3 --format srt > talk.srt
    cupola transcribe rede.wav --task translate
    """
    log.set_up(console=Console(stderr=True))  # standard output holds the text alone
    begin()
    listening = Listening(
        task=task,
        language=language,
        beams=beam,
        prompt=prompt,
        times=Times.SEGMENTS if timestamps else Times.NONE,
    )
    clips = [_read(file) for file in files]
    recognizer = open_whisper(weights, precision=precision_of(precision)).ready()
    for transcript in transcribe_all(recognizer, clips, listening, batch=batch):
        typer.echo(format.write(transcript), nl=False)


def _read(file: Path) -> Clip:
    try:
        clip = read(file)
        clip.check_sound()
    except CupolaError as error:
        raise error if error.where else error.under(str(file)) from None
    return clip
