"""`cupola export`: what a run made, as a file that others can use."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from cupola.command.options import Step, say
from cupola.command.voices import Vocoder, find_voice
from cupola.core.errors import ConfigError
from cupola.interop.huggingface import export as export_decoder
from cupola.interop.voice import Form, write_voice
from cupola.models.speech.synthesizer import Card
from cupola.train.experiment import Experiment
from cupola.train.folder import RunFolder
from cupola.train.load import load

Source = Annotated[str, typer.Argument(metavar="RUN", help="Folder of the run, or a voice file to write anew.")]
Figures = Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Something that was measured.")]


def export(
    run: Source,
    output: Annotated[Path, typer.Option("--output", "-o", help="The voice file, or the folder of a model of text.")],
    form: Annotated[Form | None, typer.Option(help="How matrices of a voice are kept; bfloat16 if not given.")] = None,
    licence: Annotated[str | None, typer.Option(help="Of a voice's parameters, such as CC0-1.0.")] = None,
    data: Annotated[str | None, typer.Option(help="What a voice was trained on, whose it is.")] = None,
    language: Annotated[str | None, typer.Option(help="That a voice speaks, as a code; en if not given.")] = None,
    about: Annotated[str | None, typer.Option(help="What else is to be said of a voice.")] = None,
    figure: Figures = None,
    vocoder: Vocoder = None,
    step: Step = None,
) -> None:
    """Writes what a run made for others to use.

    A voice becomes one file, a model of text a Hugging Face folder.

    \b
    cupola export runs/tacotron2 -o crier.safetensors --licence CC0-1.0 --data "two hours of my own voice"
    cupola export runs/quickstart -o quickstart-hf
    """
    figures = _figures(figure) if figure else None
    card = {"licence": licence, "data": data, "language": language, "about": about, "figures": figures}
    folder = Path(run)
    if (folder / "config.txt").is_file() and isinstance(RunFolder.open(folder).experiment(), Experiment):
        _refuse({"form": form, "vocoder": vocoder, **card})
        trained = load(RunFolder.open(folder), step)
        export_decoder(trained.model, trained.params, output, tokenizer=trained.tokenizer)
        say(f"{output}: {trained.model.count():,} parameters, of step {trained.step:,}")
        return
    found = find_voice(run, vocoder=vocoder, step=step)
    found = found.with_card(_card(found.card, {name: value for name, value in card.items() if value is not None}))
    kept = form or Form.BFLOAT16
    size = write_voice(output, found, form=kept)
    say(f"{output}: {size / 1e6:.1f} MB, matrices in {kept.value}")


def _card(before: Card | None, given: dict[str, Any]) -> Card:
    """The card as it was, but for what is given; a first one says where the voice comes from."""
    if before is not None:
        return dataclasses.replace(before, **given)
    for name in ("licence", "data"):
        if name not in given:
            raise ConfigError(
                "whoever gets the voice must know what it is",
                where=f"--{name}",
                remedy='Add such as --licence CC0-1.0 --data "two hours of my own voice".',
            )
    return Card(**given)


def _figures(told: list[str]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for figure in told:
        name, equals, value = figure.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise ConfigError(f"{figure!r} is no figure", where="--figure", remedy="Write such as 'DNSMOS=3.1'.")
        pairs.append((name.strip(), value.strip()))
    return tuple(pairs)


def _refuse(given: dict[str, object]) -> None:
    """Refuses what is said of voices alone."""
    for name, value in given.items():
        if value is not None:
            option = f"--{name.removesuffix('s')}"
            raise ConfigError("this run trains no voice", where=option, remedy=f"Leave {option} out.")
