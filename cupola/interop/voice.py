"""Voice files: one safetensors file that holds a whole voice, its parameters in a compact form and its card.

    metadata    format, voice (its text), card (JSON), sha256 of all of it
    tensors     by their paths, such as model.decoder.stop.kernel: float32, or bfloat16, or int8 with a scale for
                each last index beside it, under PATH:scale

Not here: runs (`train/`), speaking (`models/speech/voice.py`).
Invariant: a file is what was written, to the bit, or it is refused; nothing in it is run, and no array is made
before its size is known to be that of the voice.
"""

import dataclasses
import enum
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cupola.config import text
from cupola.config.reference import HOME, PATTERN
from cupola.core.errors import ConfigError, CupolaError
from cupola.core.module import flat_specs, map_specs, path_text
from cupola.core.param import Param, Role
from cupola.data.files import whole
from cupola.interop.errors import WeightsError
from cupola.models.speech.synthesizer import Card, Synthesizer
from cupola.models.speech.voice import Voice

ENDING = ".safetensors"
SHIPPED = Path(__file__).parent.parent / "voices"
"""Where the package keeps the voice that it is shipped with."""
MOST_SHIPPED_BYTES = 25_000_000

_FORMAT = "cupola-voice-1"
_SCALE = ":scale"
_LEAST_INT8 = 1024
"""A matrix of fewer numbers is kept in bfloat16: there is nothing to be saved."""
_TEXT_CHARACTERS = 200_000


class Form(enum.Enum):
    """How matrices are kept; vectors and running statistics are float32 always."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"
    """With a float32 scale for each output; a quarter of float32."""


def write_voice(path: str | os.PathLike[str], synthesizer: Synthesizer, *, form: Form = Form.BFLOAT16) -> int:
    """Writes a voice file, which appears whole or not at all, and returns its size in bytes.

    Raises:
        ConfigError: there is no card, the ending is another, or the voice has a part that is not of this package.
        WeightsError: parameters are not finite, or of other sizes, or the file could not be written.
    """
    target = Path(path)
    if target.suffix != ENDING:
        raise ConfigError(f"{target.suffix!r} is another ending", where=str(target), remedy=f"End it in {ENDING}.")
    if synthesizer.card is None:
        raise ConfigError("there is no card", where="card", remedy="Say its licence and its data.")
    told = {"format": _FORMAT, "voice": text.show(synthesizer.voice)}
    told["card"] = json.dumps(dataclasses.asdict(synthesizer.card), sort_keys=True)
    _check_home(told["voice"], str(target))
    arrays: dict[str, np.ndarray] = {}
    given = {path_text(keys): leaf for keys, leaf in jax.tree_util.tree_flatten_with_path(synthesizer.params)[0]}
    for name, param in flat_specs(synthesizer.voice.specs()):
        arrays |= _kept(name, param, given.pop(name, None), form, str(target))
    if given:
        raise _left_over(sorted(given), str(target))
    try:
        with whole(target) as unfinished:
            save_file(arrays, unfinished, metadata=told | {"sha256": _digest(told, arrays)})
        return target.stat().st_size
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"could not be written ({error})", where=str(target), remedy="Free some space or name another folder."
        ) from None


def read_voice(path: str | os.PathLike[str]) -> Synthesizer:
    """Returns the voice in a file, its parameters in float32, under the file's name.

    Raises:
        WeightsError: no such file, no voice file, damaged, or parameters of other sizes than its voice has.
        ConfigError: its text is of another version of this package.
    """
    where, target = os.fspath(path), Path(path)
    told, arrays = _opened(target)
    try:
        voice = text.parse(told["voice"])
        card = _card(told["card"])
    except (CupolaError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(
            f"its text cannot be read ({error})", where=where, remedy="Use the version of Cupola that wrote it."
        ) from None
    if not isinstance(voice, Voice):
        raise WeightsError(f"holds a {type(voice).__name__}, which is no voice", where=where, remedy=_EXPORT)
    specs = voice.specs()
    params = map_specs(lambda name, param: _taken(name, param, arrays, where), specs)
    due = {name for name, _ in flat_specs(specs)}
    if left := sorted(name for name in arrays if name.removesuffix(_SCALE) not in due):
        raise _left_over(left, where)
    return Synthesizer(name=target.name.removesuffix(ENDING), voice=voice, params=params, card=card)


def shipped() -> Path | None:
    """Returns the voice file that the package is shipped with; None: there is none."""
    return next(iter(sorted(SHIPPED.glob(f"*{ENDING}"))), None)


_EXPORT = "Name a file that was written by: cupola export RUN -o voice.safetensors"


def _opened(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The texts and the arrays of a file, both as they were written."""
    try:
        with safe_open(path, "numpy") as file:
            told = dict(file.metadata() or {})
            if told.get("format") != _FORMAT:
                known = told.get("format", "a file of weights alone")
                raise WeightsError(f"is no voice file but {known[:80]}", where=str(path), remedy=_EXPORT)
            arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except FileNotFoundError:
        raise WeightsError("there is no such file", where=str(path), remedy=_EXPORT) from None
    except (OSError, SafetensorError, TypeError, KeyError) as error:
        raise WeightsError(
            f"is truncated or malformed ({error})", where=str(path), remedy="Copy or download it again."
        ) from None
    wanted = told.pop("sha256", "")
    if _digest(told, arrays) != wanted:
        raise WeightsError(
            "is damaged: its contents do not agree with its checksum",
            where=str(path),
            remedy="Copy or download it again.",
        )
    if len(told.get("voice", "")) > _TEXT_CHARACTERS:
        raise WeightsError("has a text of a size that no voice has", where=str(path), remedy=_EXPORT)
    _check_home(told.get("voice", ""), str(path))
    return told, arrays


def _digest(told: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of all texts and all arrays, each with its name and what it is."""
    made = hashlib.sha256()
    for name in sorted(told):
        for part in (name, told[name]):
            made.update(len(part.encode()).to_bytes(8, "little") + part.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        head = f"{name}\n{array.dtype.name}\n{array.shape}\n".encode()
        made.update(len(head).to_bytes(8, "little") + head)
        made.update(array.view(np.uint8).data if array.size else b"")
    return made.hexdigest()


def _check_home(shown: str, where: str) -> None:
    """Checks that a text names nothing but what is of this package: nobody else's classes are made."""
    for found in re.finditer(rf"(?<![\w.]){PATTERN}", shown):
        if found[0].split(":")[0].split(".")[0] != HOME:
            raise ConfigError(
                f"the voice has the part {found[0][:80]}, which is not of {HOME}",
                where=where,
                remedy="A voice file is made of this package's parts alone.",
            )


def _kept(name: str, param: Param, leaf: Any, form: Form, where: str) -> dict[str, np.ndarray]:
    """The arrays that stand for one parameter."""
    if leaf is None or tuple(np.shape(leaf)) != param.shape:
        has = "is missing" if leaf is None else f"has the shape {list(np.shape(leaf))}"
        raise WeightsError(f"{name} {has}, and the voice has {list(param.shape)} there", where=where, remedy=_FITTING)
    values = np.asarray(leaf, np.float32)
    if not np.isfinite(values).all():
        raise WeightsError(
            f"{name} is not finite", where=where, remedy="Its training has diverged; use an earlier step."
        )
    if form is Form.FLOAT32 or values.ndim < 2 or param.role is Role.STATE:
        return {name: values}
    if form is Form.BFLOAT16 or values.size < _LEAST_INT8:
        return {name: values.astype(jnp.bfloat16)}
    scale = np.abs(values).max(axis=tuple(range(values.ndim - 1))) / 127
    codes = np.rint(values / np.where(scale > 0, scale, 1)).astype(np.int8)
    return {name: codes, name + _SCALE: scale.astype(np.float32)}


_FITTING = "Parameters and voice must be of the same run."


def _taken(name: str, param: Param, arrays: Mapping[str, np.ndarray], where: str) -> jax.Array:
    """One parameter, in the dtype that the voice has it in."""
    if name not in arrays:
        raise WeightsError(f"{name} is missing", where=where, remedy=_FITTING)
    kept = arrays[name]
    if kept.shape != param.shape:
        raise WeightsError(
            f"{name} has the shape {list(kept.shape)}, and the voice has {list(param.shape)} there",
            where=where,
            remedy=_FITTING,
        )
    if kept.dtype != np.int8:
        return jnp.asarray(kept.astype(np.float32), param.dtype)
    scale = arrays.get(name + _SCALE)
    if scale is None or scale.shape != param.shape[-1:]:
        raise WeightsError(f"{name} has no scale for each of its outputs", where=where, remedy=_FITTING)
    return jnp.asarray(kept.astype(np.float32) * scale, param.dtype)


def _left_over(names: list[str], where: str) -> WeightsError:
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    return WeightsError(f"{names[0]}{more} is in no place of the voice", where=where, remedy=_FITTING)


def _card(shown: str) -> Card:
    held: dict[str, Any] = json.loads(shown)
    figures = tuple((str(name), str(value)) for name, value in held.pop("figures"))
    return Card(figures=figures, **held)
