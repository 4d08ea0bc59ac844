"""AdamW in native code: one call for all leaves, written over what came in where that is given up.

On a mesh each device moves its own parts: what belongs to a parameter is laid out as the parameter is.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import sequential_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from cupola.kernels.adamw.rule import Leaves, Rule
from cupola.kernels.native.level import Level
from cupola.kernels.native.library import call

DTYPES = ("float32", "bfloat16")


def adamw(
    params: Leaves,
    gradients: Leaves,
    means: Leaves,
    squares: Leaves,
    rule: Rule,
    rate: Float[Array, ""],
    count: Int[Array, ""],
    scale: Float[Array, ""],
    *,
    level: Level,
) -> tuple[list[Array], list[Array], list[Array]]:
    """Returns the moved parameters, the means, and the means of squares."""
    now = jnp.stack([scale, rate, 1 / (1 - rule.b1**count), 1 / (1 - rule.b2**count)]).astype(jnp.float32)
    one_by_one = sequential_vmap(lambda *given: _update(*given, rule, level))
    moved, next_means, next_squares = one_by_one(now, list(params), list(gradients), list(means), list(squares))
    return moved, next_means, next_squares


def refuses(params: Leaves, gradients: Leaves, means: Leaves, squares: Leaves, *_: Any, level: Level) -> list[str]:
    """Returns the dtypes that there is no kernel for."""
    found: dict[str, tuple[Leaves, tuple[str, ...]]] = {
        "parameters": (params, DTYPES),
        "gradients": (gradients, DTYPES),
    }
    found |= {"means": (means, DTYPES[:1]), "means of squares": (squares, DTYPES[:1])}
    return [reason for what, (leaves, taken) in found.items() for reason in _other(what, leaves, taken)]


def global_norm(arrays: Leaves, *, level: Level) -> Float[Array, ""]:
    """Returns the root of the sum of all squares."""
    each = sequential_vmap(lambda arrays: _squares(arrays, level))(list(arrays))
    return jnp.sqrt(sum(each, jnp.float32(0)))


def norm_refuses(arrays: Leaves, *, level: Level) -> list[str]:
    """Returns the dtypes that there is no kernel for."""
    return _other("arrays", arrays, DTYPES)


def _other(what: str, leaves: Leaves, taken: tuple[str, ...]) -> list[str]:
    names = sorted({x.dtype.name for x in leaves} - set(taken))
    return [f"{what} are {' and '.join(names)}, and it takes {' and '.join(taken)}"] if names else []


@partial(custom_partitioning, static_argnums=(5, 6))
def _update(now, params, gradients, means, squares, rule, level):
    leaves = len(params)
    given = [*params, *gradients, *means, *squares]
    out = [*params, *means, *squares]
    # `now` comes first; gradients stay as they are.
    written = [*range(1, 1 + leaves), *range(1 + 2 * leaves, 1 + 4 * leaves)]
    results = call(
        "adamw",
        level,
        [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in out],
        now,
        *given,
        aliases={place: result for result, place in enumerate(written)},
        multipliers=np.asarray(rule.multipliers, np.float32),
        decays=np.asarray(rule.decays, np.float32),
        keep_mean=np.float32(rule.b1),
        keep_square=np.float32(rule.b2),
        epsilon=np.float32(rule.epsilon),
    )
    return results[:leaves], results[leaves : 2 * leaves], results[2 * leaves :]


def _partition_update(rule, level, mesh: Mesh, shapes, _):
    everywhere, (_, like, *_) = NamedSharding(mesh, PartitionSpec()), shapes
    place = [x.sharding for x in like]
    return mesh, partial(_update.fun, rule=rule, level=level), (place,) * 3, (everywhere, *[place] * 4)


def _rule_of_update(rule, level, mesh, given, results):
    dims = _dims(given[1 : 1 + len(rule.decays)])
    return f"now, {', '.join(dims * 4)} -> {', '.join(dims * 3)}"


_update.def_partition(partition=_partition_update, sharding_rule=_rule_of_update)


@partial(custom_partitioning, static_argnums=(1,))
def _squares(arrays, level):
    return call("squares", level, [jax.ShapeDtypeStruct((), jnp.float32)] * len(arrays), *arrays)


def _partition_squares(level, mesh: Mesh, shapes, _):
    (arrays,) = shapes
    everywhere, place = NamedSharding(mesh, PartitionSpec()), [x.sharding for x in arrays]

    def summed(parts):
        found = _squares.fun(parts, level)
        return [jax.lax.psum(x, _axes(spot)) if _axes(spot) else x for x, spot in zip(found, place, strict=True)]

    return mesh, summed, [everywhere] * len(arrays), (place,)


def _axes(sharding: NamedSharding) -> tuple[str, ...]:
    """Returns the axes of the mesh that cut an array."""
    named = [(entry,) if isinstance(entry, str) else entry or () for entry in sharding.spec]
    return tuple(axis for each in named for axis in each)


def _rule_of_squares(level, mesh, given, results):
    return f"{', '.join(_dims(given))} -> {', '.join([''] * len(given))}"


_squares.def_partition(partition=_partition_squares, sharding_rule=_rule_of_squares)


def _dims(arrays: Any) -> list[str]:
    """Returns names for the dims of each array, all different."""
    return [" ".join(f"x{leaf}_{dim}" for dim in range(len(x.shape))) for leaf, x in enumerate(arrays)]
