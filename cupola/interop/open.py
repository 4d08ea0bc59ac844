"""One door for models of others: a fetched name, a folder as Hugging Face has them, or a GGUF file.

Not here: each kind of source (`fetch.py`, `huggingface.py`, `gguf.py`), runs of our own (`train/`).
Invariant: what is opened is whole: every weight in its place, and a tokenizer that the model knows.
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cupola.config.suggest import did_you_mean
from cupola.core.dtype import Precision
from cupola.core.module import Tree
from cupola.data.tokenizer import Tokenizer
from cupola.interop.errors import UnknownModel, WeightsError
from cupola.interop.family import build
from cupola.interop.fetch import MODELS, find
from cupola.interop.gguf import Weights as Weights
from cupola.interop.gguf import read_gguf
from cupola.interop.huggingface import read_folder
from cupola.interop.template import ChatTemplate
from cupola.interop.tokenizer import Language, language_of_folder, language_of_gguf
from cupola.kernels.matmul import is_for
from cupola.models.decoder import Decoder

_LICENCE = re.compile(r"^license:[ \t]*([\w.+-]+)[ \t]*$", re.MULTILINE)
"""In the head of a model's card."""
_SHOWN = 8
"""So many names of what is there are listed."""


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A model of others, ready to be used.

    Args:
        name: under which it was asked for, without the folder.
        model: what computes.
        params: its parameters, cut into layers.
        tokenizer: of the model.
        template: messages to a prompt; None: the model does not chat.
        begin_tokens: stand before a prompt that no template writes.
        stop_tokens: end an answer.
        temperature, top_p, top_k: what its makers recommend; None where they say nothing.
        licence: of the weights, as the source names it; None where it does not.
    """

    name: str
    model: Decoder
    params: Tree
    tokenizer: Tokenizer
    template: ChatTemplate | None = None
    begin_tokens: tuple[int, ...] = ()
    stop_tokens: frozenset[int] = frozenset()
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    licence: str | None = None


def open_model(source: str | os.PathLike[str], *, weights: Weights = Weights.DENSE, precision: Precision) -> Pretrained:
    """Returns a model of others with all that belongs to it.

    Args:
        source: a name that was fetched, a folder with config.json and safetensors, or a .gguf file.
        weights: how quantized weights are kept in memory.
        precision: of the model.

    Raises:
        UnknownModel: there is no such name, folder or file, or the named model was not fetched.
        WeightsError: weights are missing, truncated, corrupt or of a kind that is not read.
        ConfigError: a model that is not supported; the message names the option.
        TokenizerError: no tokenizer, or one that the model does not know.
        TemplateError: a broken chat template.
    """
    text = os.fspath(source)
    path, named = Path(text), MODELS.get(text)
    if path.is_dir() and (path / "config.json").is_file():
        return _from_folder(path, weights, precision)
    if path.is_file():
        return _from_gguf(path, path.stem, weights, precision)
    if named is not None and not named.file.endswith(".gguf"):
        raise UnknownModel(f"{text} hears and does not write", where="model", remedy="Type: cupola transcribe FILE")
    if named is not None and (file := find(text)) is not None:
        opened = _from_gguf(file, text, weights, precision)
        return dataclasses.replace(opened, licence=named.licence)
    raise _unknown(text, path)


def _from_folder(path: Path, weights: Weights, precision: Precision) -> Pretrained:
    if weights is Weights.STORED:
        raise WeightsError(
            "holds no quantized weights that could be kept as they are stored",
            where=str(path),
            remedy="Leave weights out, or open a quantized .gguf file.",
        )
    folder = read_folder(path)
    ends = [folder.generation.get("eos_token_id"), folder.config.get("eos_token_id")]
    language = language_of_folder(path, ends=ends)
    card = path / "README.md"
    licence = _LICENCE.search(card.read_text(encoding="utf-8", errors="replace")[:4096]) if card.is_file() else None
    opened = _joined(path.resolve().name, *build(folder.config, folder.tensors, precision=precision), language)
    recommended = _recommended(folder.generation)
    return dataclasses.replace(opened, licence=licence[1] if licence else None, **recommended)


def _from_gguf(path: Path, name: str, weights: Weights, precision: Precision) -> Pretrained:
    native = weights is not Weights.AUTO or is_for(precision)
    file = read_gguf(path, weights=weights if native else Weights.DENSE)
    language = language_of_gguf(file.metadata, str(path))
    licence = file.metadata.get("general.license")
    opened = _joined(name, *build(file.config, file.tensors, precision=precision), language)
    return dataclasses.replace(opened, licence=licence if isinstance(licence, str) else None)


def _joined(name: str, model: Decoder, params: Tree, language: Language) -> Pretrained:
    language.tokenizer.check_vocabulary(model.vocabulary)
    return Pretrained(
        name=name,
        model=model,
        params=params,
        tokenizer=language.tokenizer,
        template=language.template,
        begin_tokens=language.begin_tokens,
        stop_tokens=language.stop_tokens,
    )


def _recommended(generation: Mapping[str, Any]) -> dict[str, Any]:
    """How the makers sample, where that is something that a sampler can do."""
    found: dict[str, Any] = {}
    temperature, top_p, top_k = (generation.get(name) for name in ("temperature", "top_p", "top_k"))
    if isinstance(temperature, int | float) and 0 <= temperature <= 100:
        found["temperature"] = float(temperature)
    if isinstance(top_p, int | float) and 0 < top_p <= 1:
        found["top_p"] = float(top_p)
    if isinstance(top_k, int) and top_k > 0:
        found["top_k"] = top_k
    return found


def _unknown(text: str, path: Path) -> UnknownModel:
    if text in MODELS:
        return UnknownModel(f"{text} was not fetched yet", where="model", remedy=f"Type: cupola fetch {text}")
    fetched = [name for name in MODELS if find(name) is not None]
    known = (
        f"Fetched: {', '.join(fetched) or 'none'}. To be fetched: {', '.join(n for n in MODELS if n not in fetched)}."
    )
    if path.is_dir():
        inside = sorted(file.name for file in path.iterdir())
        ggufs = [file for file in inside if file.endswith(".gguf")]
        remedy = f"Name the file: {path / ggufs[0]}" if ggufs else f"It holds {_listed(inside)}."
        return UnknownModel("holds no config.json", where=text, remedy=remedy)
    beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() and os.sep in text else []
    remedy = f"{did_you_mean(path.name, beside)} " if beside else ""
    return UnknownModel(
        f"there is no model, folder or file {text!r}",
        where="model",
        remedy=f"{remedy}{known} Else name a folder with config.json and safetensors, or a .gguf file.",
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) or "nothing") + more
