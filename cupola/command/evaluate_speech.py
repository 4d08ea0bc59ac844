"""`cupola eval speech`: a voice beside recordings and their copies, before judges."""

import enum
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cupola.command.options import CONSOLE, Step, begin, say
from cupola.command.voices import Vocoder, find_voice
from cupola.core.errors import ConfigError, DataError, Unsupported
from cupola.data.audio.files import write
from cupola.data.audio.prepared import Preparation
from cupola.data.audio.recordings import Recordings
from cupola.evals.speech.judges import Dnsmos, SphinxListener, WhisperListener, present
from cupola.evals.speech.measure import Row, distrusted, forced, measure
from cupola.evals.speech.sides import Item, Side, sides
from cupola.interop.errors import UnknownModel
from cupola.interop.whisper import open_whisper
from cupola.models.speech.synthesizer import Synthesizer
from cupola.train.folder import RunFolder
from cupola.train.speech.training import TextToSpeech, prepare_speech


class Judge(enum.Enum):
    """Who hears and rates."""

    WHISPER = "whisper"
    POCKETSPHINX = "pocketsphinx"
    DNSMOS = "dnsmos"


Voice = Annotated[str, typer.Argument(metavar="VOICE", help="Folder of a run, or a voice file.")]
Texts = Annotated[Path | None, typer.Option(help="Sentences to say, one a line.")]
Data = Annotated[Path | None, typer.Option(help="Recordings in the form of LJSpeech, to be compared with.")]
Without = Annotated[list[Judge] | None, typer.Option(help="A judge to leave out.")]
Keep = Annotated[Path | None, typer.Option(help="A folder to write all sound to.")]


def evaluate_speech(
    voice: Voice,
    text: Texts = None,
    data: Data = None,
    sentences: Annotated[int, typer.Option(min=2, help="At most so many, spread over all.")] = 40,
    without: Without = None,
    whisper: Annotated[str, typer.Option(help="The Whisper that hears: a fetched name, or a folder.")] = "whisper-base",
    seed: Annotated[int, typer.Option(min=0, help="Of the reading.")] = 0,
    vocoder: Vocoder = None,
    step: Step = None,
    keep: Keep = None,
) -> None:
    """Has a voice heard and rated by judges.

    \b
    cupola eval speech runs/tacotron2
    cupola eval speech crier.safetensors --text sentences.txt
    cupola eval speech crier.safetensors --data path/to/ljspeech --keep heard

    Without --text and --data, a run is asked for what it held out. The last column is a control: the same sound
    against other sentences, which must be bad.
    """
    if text is not None and data is not None:
        raise ConfigError("sentences come from one place", where="--data", remedy="Leave out --text or --data.")
    begin()
    synthesizer = find_voice(voice, vocoder=vocoder, step=step)
    items = _picked(_items(voice, synthesizer, text, data), sentences)
    judges, absent = _judges(whisper, without or [])
    found = sides(synthesizer, items, seed=seed, note=say)
    if keep is not None:
        _keep(keep, found)
    front = synthesizer.voice.vocoder.front
    listeners = [judge for judge in judges if not isinstance(judge, Dnsmos)]
    raters = [judge for judge in judges if isinstance(judge, Dnsmos)]
    rows = measure(found, front, listeners, raters, forced(synthesizer, items))
    _print(found, rows, absent, len(items))
    for name, error in absent.items():
        say(f"{name} is not here: {error.problem}. {error.remedy}")
    for judge in without or []:
        say(f"{judge.value} was left out")
    if doubtful := distrusted(rows):
        say(f"do not trust: {', '.join(doubtful)}; of sentences that were not said, it hears too much")
        raise typer.Exit(1)


def _items(source: str, synthesizer: Synthesizer, text: Path | None, data: Path | None) -> list[Item]:
    if text is not None:
        return [Item(line.strip()) for line in _lines(text) if line.strip()]
    if data is not None:
        preparation = Preparation(front=synthesizer.voice.vocoder.front)
        return [Item(each.text, preparation.prepare(each.path)) for each in Recordings(path=str(data)).utterances()]
    folder = Path(source)
    if not folder.is_dir():
        raise ConfigError(
            "a voice file holds no sentences",
            where=source,
            remedy="Add --text sentences.txt or --data path/to/ljspeech.",
        )
    run = RunFolder.open(folder)
    corpus = prepare_speech(run.experiment_of(TextToSpeech), run, say).held_out
    return [Item(each.text, sound) for each, sound in zip(corpus.utterances, corpus.sounds(), strict=True)]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot be read ({error})", where=str(path), remedy="Name a text file in UTF-8, a sentence a line."
        ) from None


def _picked(items: list[Item], most: int) -> list[Item]:
    count = min(most, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def _judges(whisper: str, without: list[Judge]) -> tuple[list[Any], dict[str, Unsupported]]:
    makers: dict[Judge, Callable[[], Any]] = {
        Judge.WHISPER: functools.partial(_whisper, whisper),
        Judge.POCKETSPHINX: SphinxListener,
        Judge.DNSMOS: Dnsmos,
    }
    return present({judge.value: make for judge, make in makers.items() if judge not in without})


def _whisper(name: str) -> WhisperListener:
    try:
        return WhisperListener(open_whisper(name).ready())
    except UnknownModel as error:
        raise Unsupported(error.problem, where=error.where, remedy=error.remedy) from None


def _print(found: list[Side], rows: list[Row], absent: dict[str, Unsupported], count: int) -> None:
    table = Table(title=f"{count} sentences")
    table.add_column("")
    for side in found:
        table.add_column(side.name, justify="right")
    for row in rows:
        values = ["-" if value is None else f"{value:.{row.digits}f}" for value in row.values]
        table.add_row(row.name, *values)
    for name in absent:
        table.add_row(name, *["not here"] * len(found))
    CONSOLE.print(table)


def _keep(folder: Path, found: list[Side]) -> None:
    for side in found[:-1]:
        where = folder / side.name.replace(", ", "-").replace(" ", "-").lower()
        for number, (clip, text) in enumerate(zip(side.clips, side.texts, strict=True)):
            write(clip, where / f"{number:03}.wav")
            (where / f"{number:03}.txt").write_text(text + "\n", encoding="utf-8")
    say(f"{folder}: {len(found) - 1} folders of sound")
