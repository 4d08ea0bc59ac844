"""A model by whatever a user calls it: a run's folder, a fetched name, a Hugging Face folder, a GGUF file.

Not here: each kind of source (`train/load.py`, `interop/open.py`).
"""

from pathlib import Path
from typing import Annotated

import typer

from cupola.core.dtype import BFLOAT16, FLOAT32, Precision
from cupola.interop.open import Pretrained, Weights, open_model
from cupola.observe import machine
from cupola.recipes.hardware.machine import products
from cupola.serve.request import Sampling
from cupola.train.folder import RunFolder
from cupola.train.load import load

Source = Annotated[
    str, typer.Argument(metavar="MODEL", help="A fetched name, a run's folder, a Hugging Face folder, a .gguf file.")
]
PRECISIONS = {"float32": FLOAT32, "bfloat16": BFLOAT16}
Products = Annotated[
    str,
    typer.Option(help="Products of float32, bfloat16, or auto: what is faster here.", metavar="auto|float32|bfloat16"),
]


def precision_of(asked: str) -> Precision:
    """Returns the precision of a name; "auto" measures this machine."""
    if asked == "auto":
        return products(machine.measure())
    if asked not in PRECISIONS:
        raise typer.BadParameter(f"{asked} is none of auto, {', '.join(PRECISIONS)}.")
    return PRECISIONS[asked]


def find(source: str, *, precision: Precision, weights: Weights = Weights.AUTO) -> Pretrained:
    """Returns the model that a user named.

    Raises:
        CupolaError: there is none, or it cannot be read.
    """
    folder = Path(source)
    if not (folder / "config.txt").is_file():
        return open_model(source, weights=weights, precision=precision)
    trained = load(RunFolder.open(folder))
    end = trained.tokenizer.end
    return Pretrained(
        name=folder.resolve().name,
        model=trained.model.replace("precision", precision),
        params=trained.params,
        tokenizer=trained.tokenizer,
        begin_tokens=(end,),
        stop_tokens=frozenset({end}),
    )


def sampling_of(found: Pretrained) -> Sampling:
    """Returns how its makers would sample."""
    default = Sampling()
    return Sampling(
        temperature=default.temperature if found.temperature is None else found.temperature,
        top_p=default.top_p if found.top_p is None else found.top_p,
        top_k=found.top_k,
    )
