"""Models of others as decoders: a config and tensors by their names in, a model and its parameters out; and back.

Not here: the families (`families/`), the files that tensors stand in (`huggingface.py`, `gguf.py`).
Invariant: every parameter comes from one tensor of the right shape, and no tensor is left over.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from cupola.config import diff
from cupola.config.suggest import did_you_mean
from cupola.core.dtype import Precision
from cupola.core.errors import ConfigError, Unsupported
from cupola.core.module import Module, Tree, map_specs
from cupola.core.param import Param
from cupola.interop.errors import WeightsError
from cupola.interop.families.family import Family
from cupola.interop.families.gemma import GEMMA3
from cupola.interop.families.llama import LLAMA, MISTRAL
from cupola.interop.families.qwen import QWEN2, QWEN3
from cupola.interop.keys import Keys
from cupola.kernels.matmul import Weight, reshape
from cupola.kernels.matmul.api import shape_of
from cupola.layers.attention import Attention
from cupola.layers.block import Block
from cupola.layers.feed_forward import GatedMLP
from cupola.layers.repeat import Repeat, unstacked
from cupola.layers.stack import in_a_row
from cupola.models.decoder import Decoder

FAMILIES = {family.name: family for family in (LLAMA, QWEN2, QWEN3, MISTRAL, GEMMA3)}
"""By `model_type`; a model is exported as the first that can say it."""

_TIED = "lm_head.weight"
_COMPUTED = ".rotary_emb.inv_freq"
"""End of the names of tensors that old files hold although the config says all of them."""


@dataclasses.dataclass(frozen=True)
class Slot:
    """The place of one tensor of theirs in our tree.

    Args:
        name: their name of it.
        param: our parameter.
    """

    name: str
    param: Param

    @property
    def is_matrix(self) -> bool:
        """Whether it is multiplied with: theirs then is [outputs, inputs]. A table of tokens is not."""
        return self.param.is_matrix and self.param.dims != "V D"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of their tensor."""
        if self.is_matrix:
            return math.prod(self.param.shape[self.param.inputs :]), self.param.fan_in
        return self.param.shape if self.param.is_matrix else (self.param.size,)


def build(
    config: Mapping[str, Any], tensors: "Mapping[str, np.ndarray | Weight]", *, precision: Precision
) -> tuple[Decoder, Tree]:
    """Returns the model that a config asks for and its parameters, cut into layers (`unstacked`).

    Args:
        config: what a config.json of Hugging Face holds.
        tensors: arrays, [outputs, inputs], by their names; or forms of a weight (`kernels/matmul`), which
            already stand for [inputs, outputs], of a table of tokens too. They are asked for one at a time, and none is kept.
        precision: of the model; arrays are kept in its `param`, forms as they are.

    Raises:
        ConfigError: an unknown family, or a key that is missing, contradictory or not supported.
        WeightsError: a tensor is missing, of another shape, or left over.
    """
    family = family_of(config)
    model = family.decoder(Keys(config)).replace("precision", precision)
    slots = slots_of(model, family)
    _check_names(slots, tensors, model)
    return model, jax.tree.map(lambda slot: _taken(slot, tensors[slot.name]), slots)


def family_of(config: Mapping[str, Any]) -> Family:
    """Returns the family that a config names.

    Raises:
        ConfigError: it names none, one that is not known, or a class that is no language model.
    """
    keys = Keys(config)
    keys.only("quantization_config", None)
    name = keys.any("model_type", "")
    if not isinstance(name, str) or name not in FAMILIES:
        remedy = f"{did_you_mean(str(name), FAMILIES)} Supported: {', '.join(FAMILIES)}."
        if name == "gemma3":
            remedy = "Of a model with vision, save the text part: its model_type is gemma3_text."
        raise keys.refuse("model_type", f"is {name!r}, which is not known" if name else "is missing", remedy)
    family = FAMILIES[name]
    classes = keys.words("architectures")
    if classes and family.architecture not in classes:
        raise keys.refuse("architectures", f"is {classes}", f"Only {family.architecture} is read of {name}.")
    return family


def describe(model: Decoder) -> tuple[Family, dict[str, Any]]:
    """Returns the first family that can say all of a model, and the model's config.

    Raises:
        Unsupported: none can; the message holds what would be lost in the nearest.
    """
    for name, held in model.walk():
        if isinstance(held, Attention) and held.rope is None:
            raise Unsupported("no family leaves positions out", where=f"{name}.rope", remedy="Use Rope().")
    for index, held in enumerate(model.stack.blocks):
        if type(held) is not Block or type(held.feed_forward) is not GatedMLP:
            kind = type(held.feed_forward if isinstance(held, Block) else held).__name__
            raise Unsupported(f"{kind} is in no family", where=f"layer {index}", remedy="Use Block with GatedMLP.")
    told = _plain(model)
    nearest: list[diff.Change] | None = None
    for family in FAMILIES.values():
        config = family.config(model)
        try:
            again = family.decoder(Keys(config)).replace("precision", model.precision)
        except ConfigError:
            continue
        lost = diff.diff(told, _plain(again))
        if not lost:
            return family, {"architectures": [family.architecture], "model_type": family.name} | config
        nearest = lost if nearest is None or len(lost) < len(nearest) else nearest
    raise Unsupported(
        f"no family says all of this model; in the nearest it would change:\n{diff.text(nearest or [])}",
        where="model",
        remedy=f"Change it before it is trained. Families: {', '.join(FAMILIES)}.",
    )


def named(model: Decoder, params: Tree, family: Family) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (their name, their array) of each parameter, one at a time, in the order of the layers.

    Args:
        params: stacked or cut into layers.

    Raises:
        Unsupported: a parameter is not an array but another form of a weight.
    """
    places = slots_of(model, family)
    structure: Any = jax.tree.structure(places)  # up to which a form of a weight stays whole
    # Of arrays on the host a layer is a view, where on a device it would be a copy.
    cut = unstacked(model, jax.tree.map(np.asarray, params))
    for slot, array in zip(jax.tree.leaves(places), structure.flatten_up_to(cut), strict=True):
        if not isinstance(array, np.ndarray):
            problem = f"the weight is kept as {type(array).__name__}"
            raise Unsupported(problem, where=slot.name, remedy="Make it dense before exporting.")
        if slot.is_matrix:
            array = array.reshape(slot.shape[::-1]).T
        yield slot.name, np.ascontiguousarray(array.reshape(slot.shape))


def slots_of(model: Decoder, family: Family) -> Tree:
    """Returns the tree of slots: that of the parameters, cut into layers."""
    layer = itertools.count()

    def of(module: Module, within: str, number: int = 0) -> Tree:
        def slot(path: str, param: Param) -> Slot:
            return Slot(family.names[f"{within}.{path}"].format(number), param)

        return map_specs(slot, module.specs())

    def cut(repeat: Repeat) -> Tree:
        return {"block": tuple(of(repeat.block, "block", next(layer)) for _ in range(repeat.layers))}

    stack = model.stack
    tree = {
        "embedding": of(model.embedding, "embedding"),
        "stack": cut(stack) if isinstance(stack, Repeat) else {"parts": tuple(map(cut, stack.parts))},
        "norm": of(model.norm, "norm"),
    }
    return tree if model.head is None else tree | {"head": of(model.head, "head")}


def _check_names(slots: Tree, tensors: Mapping[str, Any], model: Decoder) -> None:
    due, there = [slot.name for slot in jax.tree.leaves(slots)], set(tensors)
    missing = [name for name in due if name not in there]
    if missing:
        remedy = f"{did_you_mean(missing[0], there)} The weights and config.json must be of the same model."
        raise WeightsError(_counted(missing, "is missing"), where="weights", remedy=remedy)
    left = sorted(name for name in there.difference(due) if not name.endswith(_COMPUTED))
    if model.head is None and _TIED in left and _same(tensors[_TIED], tensors[due[0]]):
        left.remove(_TIED)
    if left:
        remedy = "config.json asks for a model without it: both must be of the same model."
        if left == [_TIED]:
            remedy = "It is not the embedding's: write tie_word_embeddings: false in config.json."
        raise WeightsError(_counted(left, "is in no place of the model"), where="weights", remedy=remedy)


def _counted(names: list[str], what: str) -> str:
    others = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    return f"the tensor {names[0]}{others} {what}"


def _same(a: Any, b: Any) -> bool:
    return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and np.array_equal(a, b)


def _taken(slot: Slot, value: "np.ndarray | Weight") -> Weight:
    """Returns the parameter that a tensor of theirs is."""
    is_array = isinstance(value, np.ndarray)
    if not is_array and not slot.param.is_matrix:
        raise WeightsError(
            f"is kept as {type(value).__name__}, which only matrices may be",
            where=slot.name,
            remedy="Give it as an array.",
        )
    shape = value.shape if is_array else shape_of(value)[::-1]
    if shape != slot.shape:
        raise WeightsError(
            f"has the shape {list(shape)}, but the config asks for {list(slot.shape)}",
            where=slot.name,
            remedy="The weights and config.json must be of the same model.",
        )
    if not is_array:
        return reshape(value, slot.param.shape) if slot.is_matrix else value
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise WeightsError(f"holds {value.dtype.name} numbers", where=slot.name, remedy="Use unquantized weights.")
    return _array(value.T if slot.is_matrix else value, slot.param)


def _array(value: np.ndarray, param: Param) -> Shaped[Array, "..."]:
    # Converted before it is handed over, so that jax never holds it in two formats.
    return jnp.asarray(np.ascontiguousarray(value.reshape(param.shape), dtype=param.dtype))


def _plain(model: Decoder) -> Decoder:
    """Returns the model with everything set to its default that its outputs do not depend on."""
    blocks = [_plain_block(block) for block in model.stack.blocks]
    plain = model.replace("stack", in_a_row(blocks))
    plain = plain.replace("embedding.init_table", type(model.embedding)().init_table)
    return plain if plain.head is None else plain.replace("head", type(plain.head)())


def _plain_block(block: Any) -> Block:
    held: Attention = block.attention
    changes = {
        "dropout": None,
        "attention.init_output": Attention.init_output,
        "attention.key_heads": held.groups,
        "attention.head_width": held.head_size,
        "attention.scale": held.scale or 1 / math.sqrt(held.head_size),
        "feed_forward.init_output": GatedMLP.init_output,
    }
    return functools.reduce(lambda one, change: one.replace(*change), changes.items(), block)
