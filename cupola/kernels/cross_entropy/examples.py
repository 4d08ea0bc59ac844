"""The loss of a linear head at the sizes of real models."""

from typing import Any

import jax.numpy as jnp

from cupola.kernels.cross_entropy.api import CROSS_ENTROPY, LINEAR_CROSS_ENTROPY, LINEAR_LOG_PROBS, LINEAR_LOSSES
from cupola.kernels.example import Example, normal, products_in


def _log_probs(dtype: str, B: int, T: int, D: int, V: int) -> tuple[Any, ...]:
    targets = jnp.arange(B * T, dtype=jnp.int32).reshape(B, T) % V
    return normal(0, (B, T, D)), normal(1, (V, D)), targets, products_in(dtype)


def _cross_entropy(dtype: str, **sizes: int) -> tuple[Any, ...]:
    x, head, targets, precision = _log_probs(dtype, **sizes)
    return x, head, targets, jnp.ones(targets.shape, jnp.float32), precision


def _from_logits(dtype: str, B: int, T: int, V: int) -> tuple[Any, ...]:
    targets = jnp.arange(B * T, dtype=jnp.int32).reshape(B, T) % V
    return normal(0, (B, T, V), dtype), targets, jnp.ones((B, T), jnp.float32)


TRAINED = ({"B": 4, "T": 256, "D": 512, "V": 8192}, {"B": 2, "T": 256, "D": 576, "V": 49152})
EXAMPLES = (
    Example(LINEAR_CROSS_ENTROPY, _cross_entropy, backward=TRAINED, differentiated=(0, 1)),
    Example(LINEAR_LOSSES, _cross_entropy, backward=TRAINED, differentiated=(0, 1)),
    Example(LINEAR_LOG_PROBS, _log_probs, ({"B": 2, "T": 256, "D": 512, "V": 8192},)),
    Example(CROSS_ENTROPY, _from_logits, backward=({"B": 2, "T": 256, "V": 8192},)),
)
