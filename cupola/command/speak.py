"""`cupola speak`: a text as sound, in a file or on standard output while it is made."""

import enum
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import numpy as np
import typer
from rich.console import Console

from cupola.command.options import begin
from cupola.command.voices import Named, Speed, Vocoder, find_voice
from cupola.core.errors import AudioError, ConfigError, TextError
from cupola.data.audio.clip import Clip
from cupola.data.audio.files import Encoding, encode
from cupola.data.audio.streams import Streaming, encoder
from cupola.data.files import whole
from cupola.models.speech.synthesizer import Synthesizer
from cupola.models.speech.voice import Piece
from cupola.observe import log

STANDARD = "-"


class Format(enum.Enum):
    """In which form sound is written."""

    WAV = "wav"
    FLAC = "flac"
    OGG = "ogg"
    MP3 = "mp3"
    OPUS = "opus"
    AAC = "aac"
    PCM = "pcm"
    """16 bits, little-endian, 24 kHz, no head."""

    @classmethod
    def of(cls, path: Path) -> "Format":
        """Returns the form that a file's ending stands for.

        Raises:
            AudioError: it stands for none.
        """
        ending = path.suffix.lower().removeprefix(".")
        known = {each.value: each for each in cls}
        if ending not in known:
            raise AudioError(
                f"{ending!r} is no ending of a sound file that can be written",
                where=str(path),
                remedy=f"End it in .{', .'.join(known)}, or add --format.",
            )
        return known[ending]


def speak(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to say; - reads it from standard input.")],
    output: Annotated[str, typer.Option("--output", "-o", help="A file; - is standard output.")],
    voice: Named = None,
    vocoder: Vocoder = None,
    seed: Annotated[int, typer.Option(min=0, help="Another one, another reading.")] = 0,
    speed: Speed = 1.0,
    format: Annotated[Format | None, typer.Option(help="What the file's ending says; wav on standard output.")] = None,
) -> None:
    """Says a text.

    \b
    cupola speak "The furnace is ready." -o ready.wav
    cupola speak - -o book.mp3 --voice runs/tacotron2 < book.txt
    cupola speak "Now." -o - --voice crier.safetensors | aplay

    Sentences that the voice did not end by itself are named on standard error.
    """
    log.set_up(console=Console(stderr=True))  # standard output may be the sound
    said = _read(text)
    form = format or (Format.WAV if output == STANDARD else Format.of(Path(output)))
    begin()
    # A voice whose own speed is another keeps it, unless one is asked for.
    synthesizer = find_voice(voice, vocoder=vocoder, speed=None if speed == 1.0 else speed)
    began = time.perf_counter()
    pieces = _told(synthesizer.voice.pieces(synthesizer.params, said, seed=seed), synthesizer.rate_hz)
    if output == STANDARD:
        _stream(pieces, form, synthesizer)
        return
    clip = Clip(np.concatenate([piece.samples for piece in pieces]), synthesizer.rate_hz)
    seconds = time.perf_counter() - began
    _write(Path(output), _encoded(clip, form))
    typer.echo(f"{output}: {clip.seconds:.1f} s of speech, made in {seconds:.1f} s", err=True)


def _read(text: str) -> str:
    if text != STANDARD:
        return text
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise TextError(
            f"byte {error.start} is not UTF-8", where="standard input", remedy="Give text in UTF-8."
        ) from None


def _told(pieces: Iterator[Piece], rate_hz: int) -> Iterator[Piece]:
    """Yields the pieces, and names each sentence that was cut."""
    samples = 0
    for piece in pieces:
        samples += len(piece.samples)
        if piece.utterance is not None and not piece.utterance.stopped:
            typer.echo(f"cut at {samples / rate_hz:.1f} s, for it did not end: {piece.text}", err=True)
        yield piece


def _stream(pieces: Iterator[Piece], form: Format, synthesizer: Synthesizer) -> None:
    """Sends sound as it is made; whoever reads may stop at any time."""
    if form is Format.OGG:
        raise ConfigError("Vorbis is not sent while it is made", where="--format", remedy="Use opus, or name a file.")
    made = encoder(Streaming(form.value), synthesizer.rate_hz)
    sink: BinaryIO = sys.stdout.buffer
    try:
        for piece in pieces:
            sink.write(made.feed(piece.samples))
            sink.flush()
        sink.write(made.finish())
        sink.flush()
    except BrokenPipeError:
        # Python would write once more, and complain, when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _encoded(clip: Clip, form: Format) -> bytes:
    if form in (Format.WAV, Format.FLAC, Format.OGG, Format.MP3):
        return encode(clip, Encoding(form.value))
    made = encoder(Streaming(form.value), clip.rate_hz)
    return made.feed(clip.samples) + made.finish()


def _write(path: Path, data: bytes) -> None:
    try:
        with whole(path) as unfinished:
            unfinished.write_bytes(data)
    except OSError as error:
        raise AudioError(
            f"could not be written ({error.strerror or error})", where=str(path), remedy="Name another file with -o."
        ) from None
