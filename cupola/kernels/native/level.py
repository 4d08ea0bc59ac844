"""Levels of CPU instructions that kernels are compiled for.

Imports the standard library alone: the package's own build reads it where nothing else is installed.
"""

import enum


class Level(enum.Enum):
    """What a processor can do; each level can do all that the ones before it can."""

    AVX2 = "avx2"
    AVX512 = "avx512"
    AVX512_BF16 = "avx512_bf16"
    """With products of bfloat16 and of 8-bit numbers (VNNI)."""
    AMX = "amx"
    """With products of whole tiles."""

    @property
    def number(self) -> int:
        """From 1, as the native code counts them."""
        return list(Level).index(self) + 1

    @property
    def flags(self) -> tuple[str, ...]:
        """What GCC and Clang are told to allow."""
        names = [name for level in list(Level)[: self.number] for name in _ADDS[level]]
        return tuple(f"-m{name}" for name in names)


_ADDS = {
    Level.AVX2: ("avx2", "fma", "f16c"),
    Level.AVX512: ("avx512f", "avx512bw", "avx512dq", "avx512vl"),
    Level.AVX512_BF16: ("avx512bf16", "avx512vnni"),
    Level.AMX: ("amx-tile", "amx-bf16", "amx-int8"),
}
