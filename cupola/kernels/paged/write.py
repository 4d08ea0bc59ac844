"""Writing keys and values of new tokens into their pages, in place where the pool is donated."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cupola.kernels.paged.stored import Keys, Values, store


def write_tokens(
    keys: Keys,
    values: Values,
    key: Float[Array, "B T K C"],
    value: Float[Array, "B T K C"],
    table: Int[Array, "B N"],
    start: Int[Array, " B"],
) -> tuple[Keys, Values]:
    """Returns the pool with T tokens of each row written from position `start` on, wherever that is in a page."""
    size = keys.shape[3]
    at = start[:, None] + jnp.arange(key.shape[1])[None]
    pages = jnp.take_along_axis(table, at // size, axis=1)
    keys = keys.at[pages, :, :, at % size].set(store(key, keys.dtype))
    return keys, values.at[pages, :, at % size].set(store(value, values.dtype))


def write_pages(
    keys: Keys,
    values: Values,
    key: Float[Array, "B T K C"],
    value: Float[Array, "B T K C"],
    table: Int[Array, "B N"],
    start: Int[Array, " B"],
) -> tuple[Keys, Values]:
    """Returns the pool with T tokens of each row written as whole pages: many times as fast for long rows.

    Each `start` is the first position of a page and T a multiple of the page size; what stands past
    a sequence's end is overwritten when the sequence gets there.
    """
    (rows, tokens, groups, width), size = key.shape, keys.shape[3]
    at = start[:, None] // size + jnp.arange(tokens // size)[None]
    pages = jnp.take_along_axis(table, at, axis=1, mode="fill", fill_value=0)
    cut = (rows, tokens // size, size, groups, width)
    keys = keys.at[pages].set(store(key, keys.dtype).reshape(cut).transpose(0, 1, 3, 4, 2))
    return keys, values.at[pages].set(store(value, values.dtype).reshape(cut).transpose(0, 1, 3, 2, 4))
