"""Records of arrays: frozen dataclasses that jax sees as trees.

Not here: values without arrays (`config/value.py`).
"""

import dataclasses
from typing import TypeVar, dataclass_transform, no_type_check

import jax

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def record(cls: type[T]) -> type[T]:
    """Makes a class a frozen dataclass and a tree; fields with metadata {"static": True} are not leaves.

    Its fields are not checked against their annotations when it is made: jax makes it with whatever
    a function over trees returns for the leaves (shardings, axes, None), not only with arrays.
    """
    return no_type_check(jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls)))
