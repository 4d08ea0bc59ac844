"""Rotary positions as a config.json has them: `rope_parameters`, or `rope_theta` and `rope_scaling` before.

Not here: the angles (`layers/position.py`). Invariant: what is written reads back as the same.
"""

from typing import Any

from cupola.interop.keys import Keys
from cupola.layers.position import LinearScaling, Llama3Scaling, Rope, Scaling

_TYPES = {"default": "default", "linear": "linear", "llama3": "llama3"}


def read_rope(keys: Keys, *, base: float = 10000.0) -> Rope:
    """Returns the rotary positions of a model in which every layer has the same.

    Args:
        base: where the config gives none.

    Raises:
        ConfigError: a scaling that is not supported, or the old and the new form disagree.
    """
    new = keys.inner("rope_parameters")
    _check_agreement(keys, "rope_theta", new, "rope_theta")
    old = keys.inner("rope_scaling")
    if "rope_parameters" in keys and "rope_scaling" in keys and _scaling(new, keys) != _scaling(old, keys):
        raise keys.refuse("rope_scaling", "and rope_parameters differ", "Leave rope_scaling out.")
    scaled = new if "rope_parameters" in keys else old
    return Rope(
        base=new.number("rope_theta", old.number("rope_theta", keys.number("rope_theta", base))),
        scaling=_scaling(scaled, keys),
    )


def read_rope_of(kind: str, keys: Keys, *, theta: str, base: float, scaling: str | None) -> Rope:
    """Returns the rotary positions of one kind of layer, such as "full_attention".

    Args:
        kind: names them in `rope_parameters`.
        theta: key of the base where there is no `rope_parameters`.
        base: where the config gives none.
        scaling: key of the scaling where there is no `rope_parameters`; None: never scaled there.

    Raises:
        ConfigError: a scaling that is not supported, or the old and the new form disagree.
    """
    new = keys.inner("rope_parameters").inner(kind)
    _check_agreement(keys, theta, new, "rope_theta")
    scaled = new if "rope_parameters" in keys or scaling is None else keys.inner(scaling)
    return Rope(base=new.number("rope_theta", keys.number(theta, base)), scaling=_scaling(scaled, keys))


def rope_keys(rope: Rope) -> dict[str, Any]:
    """Returns the object that says all of one rotary embedding, as `rope_parameters` or one kind in it."""
    parameters: dict[str, Any] = {"rope_type": "default", "rope_theta": rope.base}
    match rope.scaling:
        case LinearScaling(factor=factor):
            return parameters | {"rope_type": "linear", "factor": factor}
        case Llama3Scaling() as scaling:
            return parameters | {
                "rope_type": "llama3",
                "factor": scaling.factor,
                "low_freq_factor": scaling.low_frequency,
                "high_freq_factor": scaling.high_frequency,
                "original_max_position_embeddings": scaling.original_length,
            }
    return parameters


def scaling_keys(rope: Rope) -> dict[str, Any] | None:
    """Returns the object that older readers look for as `rope_scaling`; None where there is no scaling."""
    return None if rope.scaling is None else {k: v for k, v in rope_keys(rope).items() if k != "rope_theta"}


def _scaling(keys: Keys, whole: Keys) -> Scaling | None:
    keys.only("partial_rotary_factor", 1.0)
    kind = keys.choice("type" if "rope_type" not in keys else "rope_type", _TYPES, "default")
    if kind == "linear":
        return LinearScaling(factor=keys.number("factor"))
    if kind == "llama3":
        original = keys.whole("original_max_position_embeddings", None)
        return Llama3Scaling(
            factor=keys.number("factor"),
            low_frequency=keys.number("low_freq_factor"),
            high_frequency=keys.number("high_freq_factor"),
            original_length=original or whole.whole("max_position_embeddings"),
        )
    return None


def _check_agreement(keys: Keys, name: str, new: Keys, new_name: str) -> None:
    if name in keys and new_name in new and keys.number(name) != new.number(new_name):
        problem = f"is {keys.any(name)}, but rope_parameters has {new.any(new_name)}"
        raise keys.refuse(name, problem, f"Leave {name} out.")
