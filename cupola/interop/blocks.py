"""Quantized blocks of GGUF files as the form `Grouped`: the same whole numbers, scales and offsets.

Not here: reading files (`gguf.py`), products with the form (`kernels/matmul`).
Invariant: `dense(grouped(raw, kind, shape))` is what the library's `dequantize` gives, to the last bit:
scales have at most 18 significant bits and codes 6 (or 11 and 8), so that their product is exact and
only the offset rounds.
Source: block layouts of ggml (`block_q4_K` and so on).
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from gguf import GGMLQuantizationType
from jaxtyping import UInt8

from cupola.kernels.matmul import Grouped

Blocks = np.ndarray
"""One row of bytes for each block."""
Parts = tuple[np.ndarray, np.ndarray, np.ndarray | None, int, int]
"""Codes [blocks, groups, group], scales and offsets [blocks, groups], bits and zero."""


def grouped(raw: UInt8[np.ndarray, "F N"], kind: GGMLQuantizationType) -> Grouped:
    """Returns the form of a matrix of quantized blocks; it stands for [K, F], inputs first.

    Args:
        raw: the bytes of each output's row.
        kind: one of `KINDS`.
    """
    block_bytes, read = KINDS[kind]
    outputs = len(raw)
    codes, scales, offsets, bits, zero = read(np.ascontiguousarray(raw).reshape(-1, block_bytes))
    inputs = codes.size // outputs
    if bits == 4:
        first, second = np.split(codes, 2, axis=-1)
        codes = first | second << 4
    return Grouped(
        jnp.asarray(codes.reshape(outputs, -1)),
        jnp.asarray(scales.reshape(outputs, -1)),
        None if offsets is None else jnp.asarray(offsets.reshape(outputs, -1)),
        shape=(inputs, outputs),
        bits=bits,
        zero=zero,
    )


def _half(data: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(data).view(np.float16)


def _nibbles(data: np.ndarray, width: int) -> np.ndarray:
    """[blocks, n * width] bytes to [blocks, 2 * n, width] codes: the low halves of a run, then its high ones."""
    runs = data.reshape(len(data), -1, 1, width) >> np.array([0, 4], np.uint8).reshape(1, 1, 2, 1)
    return (runs & 15).reshape(len(data), -1, width)


def _q8_0(blocks: Blocks) -> Parts:
    return (blocks[:, 2:] ^ 128)[:, None], _half(blocks[:, :2]), None, 8, 128


def _q4_0(blocks: Blocks) -> Parts:
    return _nibbles(blocks[:, 2:], 16).reshape(-1, 1, 32), _half(blocks[:, :2]), None, 4, 8


def _q4_1(blocks: Blocks) -> Parts:
    codes = _nibbles(blocks[:, 4:], 16).reshape(-1, 1, 32)
    return codes, _half(blocks[:, :2]), _half(blocks[:, 2:4]), 4, 0


def _fives(blocks: Blocks, start: int) -> np.ndarray:
    """Codes of Q5_0 and Q5_1: 32 fifth bits, then 16 bytes of the other four."""
    fifth = np.unpackbits(blocks[:, start : start + 4], axis=1, bitorder="little")[:, None]
    return _nibbles(blocks[:, start + 4 :], 16).reshape(-1, 1, 32) | fifth << 4


def _q5_0(blocks: Blocks) -> Parts:
    return _fives(blocks, 2), _half(blocks[:, :2]), None, 8, 16


def _q5_1(blocks: Blocks) -> Parts:
    return _fives(blocks, 4), _half(blocks[:, :2]), _half(blocks[:, 2:4]), 8, 0


def _scales_and_offsets(blocks: Blocks) -> tuple[np.ndarray, np.ndarray]:
    """Of Q4_K and Q5_K: eight scales and offsets of 6 bits in 12 bytes, each times a number of the block."""
    scale, offset = (_half(blocks[:, i : i + 2]).astype(np.float32) for i in (0, 2))
    low, middle, high = np.split(blocks[:, 4:16], 3, axis=1)
    scales = np.concatenate([low & 63, high & 15 | low >> 2 & 48], axis=1)
    offsets = np.concatenate([middle & 63, high >> 4 | middle >> 2 & 48], axis=1)
    return scale * scales, -(offset * offsets)


def _q4_k(blocks: Blocks) -> Parts:
    return _nibbles(blocks[:, 16:], 32), *_scales_and_offsets(blocks), 4, 0


def _q5_k(blocks: Blocks) -> Parts:
    fifth = blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8).reshape(1, 8, 1) & 1
    return _nibbles(blocks[:, 48:], 32) | fifth << 4, *_scales_and_offsets(blocks), 8, 0


def _q6_k(blocks: Blocks) -> Parts:
    low = _nibbles(blocks[:, :128], 64).reshape(-1, 8, 32)
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1) & 3
    codes = (low | high.reshape(-1, 8, 32) << 4).reshape(-1, 16, 16)
    scales = _half(blocks[:, 208:]).astype(np.float32) * np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)
    return codes, scales, None, 8, 32


KINDS: dict[GGMLQuantizationType, tuple[int, Callable[[Blocks], Parts]]] = {
    GGMLQuantizationType.Q8_0: (34, _q8_0),
    GGMLQuantizationType.Q4_0: (18, _q4_0),
    GGMLQuantizationType.Q4_1: (20, _q4_1),
    GGMLQuantizationType.Q5_0: (22, _q5_0),
    GGMLQuantizationType.Q5_1: (24, _q5_1),
    GGMLQuantizationType.Q4_K: (144, _q4_k),
    GGMLQuantizationType.Q5_K: (176, _q5_k),
    GGMLQuantizationType.Q6_K: (210, _q6_k),
}
"""Bytes of a block, and what takes it apart."""
