"""Which two numbers of a head turn together."""

import enum


class Pairing(enum.Enum):
    """The layout of the pairs that a rotary embedding turns."""

    HALVES = "halves"
    """Number i with number i + C/2 (Llama in Hugging Face's layout, GPT-NeoX)."""
    NEIGHBOURS = "neighbours"
    """Number 2i with number 2i + 1 (the original paper, Llama in GGUF's layout)."""
